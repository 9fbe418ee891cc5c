import json

import httpx
import pytest

from control_plane import client as module
from control_plane.client import Access, Client
from protocol.errors import OutriderError, Unavailable

ACCESS = Access("https://cp:8400", "north", "a-token")


def client_to(answer) -> Client:
    return Client(ACCESS, transport=httpx.MockTransport(answer))


def test_paths_are_of_the_fleet_and_the_token_goes_along():
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer a-token"
        return httpx.Response(200, json={"path": request.url.raw_path.decode()})

    with client_to(answer) as client:
        assert client.get("devices", selector="site = a", limit=5, cursor=None) == {
            "path": "/v1/fleets/north/devices?selector=site+%3D+a&limit=5"
        }
        assert client.get("/v1/health") == {"path": "/v1/health"}


def test_a_list_is_read_to_its_end_with_the_same_filter():
    pages = {
        None: {"items": [1, 2], "next_cursor": "x", "count": 3},
        "x": {"items": [3], "next_cursor": None, "count": 3},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["selector"] == "site = a"
        return httpx.Response(200, json=pages[request.url.params.get("cursor")])

    assert list(client_to(answer).items("devices", selector="site = a")) == [1, 2, 3]


def test_a_post_that_found_no_listener_is_repeated_with_the_same_key(monkeypatch):
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0))
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) < 3:
            raise httpx.ConnectError("[Errno 111] Connection refused")
        return httpx.Response(201, json={"id": "digits-1"})

    assert client_to(answer).post("rollouts", {}) == {"id": "digits-1"}
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    "error, said",
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "connection refused"),
        (httpx.ReadTimeout("timed out"), "no answer"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "not signed by"),
        (httpx.RemoteProtocolError("Server disconnected"), "Server disconnected"),
    ],
)
def test_an_unreachable_control_plane_is_n104(monkeypatch, error, said):
    monkeypatch.setattr(module, "PAUSES_S", ())

    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(Unavailable) as raised:
        client_to(answer).get("devices")
    assert raised.value.code == "OUT-N104"
    assert said in raised.value.why
    assert "https://cp:8400" in raised.value.headline


def test_an_answer_that_is_not_ours_is_an_error_not_a_crash():
    client = client_to(lambda request: httpx.Response(502, text="<html>proxy</html>"))
    with pytest.raises(OutriderError) as raised:
        client.get("devices")
    assert "HTTP 502" in raised.value.why


def test_an_upload_streams_the_file_and_tells_how_far_it_is(tmp_path):
    file = tmp_path / "digits.bundle"
    file.write_bytes(b"x" * 150_000)
    told = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert len(request.read()) == 150_000
        return httpx.Response(202, json={"id": "op-1", "state": "queued"})

    operation = client_to(answer).upload("bundles", file, lambda *seen: told.append(seen))
    assert operation["id"] == "op-1"
    assert told == [(65_536, 150_000), (131_072, 150_000), (150_000, 150_000)]


def operation(state: str, **more: object) -> dict[str, object]:
    return {"id": "op-1", "state": state, "done": 1, "total": 2, "result": None, **more}


def test_waiting_for_an_operation_gives_its_result():
    answers = iter([operation("running"), operation("succeeded", result={"version": "v1"})])
    client = client_to(lambda request: httpx.Response(200, json=next(answers)))
    told = []
    result = client.wait(operation("queued"), lambda *seen: told.append(seen), look_s=0)
    assert result == {"version": "v1"}
    assert told == [(1, 2)] * 3


def test_waiting_for_an_operation_that_fails_raises_its_problem():
    problem = {"code": "OUT-B130", "detail": "digits/v1 is 4be1d7a3", "help": "choose a new one"}
    client = client_to(
        lambda request: httpx.Response(200, json=operation("failed", problem=problem))
    )
    with pytest.raises(OutriderError) as raised:
        client.wait(json.loads(json.dumps(operation("running"))), look_s=0)
    assert (raised.value.code, raised.value.why) == ("OUT-B130", "digits/v1 is 4be1d7a3")
