"""Callers as they come: slow, many, silent, from elsewhere, through every door."""

import http.client
import json
import socket
import threading

import pytest

from edge_agent.runner import connection as limits
from edge_agent.runner.bearer import Bearer, make_token
from edge_agent.runner.http11 import MAX_BODY
from edge_agent.runner.oip import Encoded
from protocol.errors import InvalidRequest
from protocol.reported import Answering
from tests.fakes.callers import call
from tests.fakes.conditions import eventually
from tests.fakes.serving import answer_of, error_of, exchange, serving

TOKEN = "abcdefghijklmnop-0123"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\na"
LAST = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Measured:
    """A model that answers with the length of what it got."""

    def __init__(self) -> None:
        self.version = "v1"
        self.metadata = b"{}"
        self.answering: Answering = "model"
        self.refused = 0

    def infer(self, body: bytes | bytearray, header: str | None = None) -> Encoded:
        if header is not None:
            raise InvalidRequest("OUT-I106", "not here")
        return Encoded(b"%d" % len(body))

    def feedback(self, body: bytes | bytearray) -> int:
        return len(body)

    def count_refused(self) -> None:
        self.refused += 1


@pytest.fixture
def server():
    with serving({"toy": Measured()}) as made:
        yield made


def test_a_connection_serves_many_requests_also_sent_at_once(server):
    raw = exchange(server.port, LIVE * 50 + LAST)
    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 51
    assert raw.count(b'{"live":true}') == 51
    assert answer_of(raw)[1] == {"content-type": "application/json", "content-length": "13"}
    assert b"connection: close" in raw.rpartition(b"HTTP/1.1")[2]


def test_http_1_0_has_one_answer_and_needs_no_host(server):
    raw = exchange(server.port, b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert answer_of(raw)[0] == 200


def test_head_is_get_without_the_body(server):
    raw = exchange(server.port, LAST.replace(b"GET", b"HEAD"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-length: 13" in head
    assert body == b""


@pytest.mark.parametrize(
    "raw, status, error",
    [
        pytest.param(b"\x16\x03\x01\x00\xa5\x01\x00\x00", 400, "OUT-I106", id="TLS"),
        pytest.param(b"HELO there\r\n\r\n", 400, "OUT-I106", id="another protocol"),
        pytest.param(b"GET /v2 HTTP/1.1\r\n\r\n", 400, "OUT-I106", id="no host"),
        pytest.param(
            b"GET http://localhost/v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            400,
            "OUT-I106 ask for a path",
            id="whole address",
        ),
        pytest.param(
            b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            400,
            "OUT-I106",
            id="proxy",
        ),
        pytest.param(
            b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            400,
            "OUT-I106",
            id="options of the server",
        ),
        pytest.param(
            b"OPTIONS /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n"
            b"Connection: close\r\n\r\n",
            403,
            "OUT-I109",
            id="preflight from elsewhere",
        ),
        pytest.param(
            b"OPTIONS /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n"
            b"Connection: close\r\n\r\n",
            405,
            "OUT-I111",
            id="preflight from here",
        ),
        pytest.param(
            b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: br\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n",
            415,
            "OUT-I116",
            id="unknown encoding",
        ),
        pytest.param(
            b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2 HTTP/1.1\r\n",
            400,
            "OUT-I106",
            id="smuggled",
        ),
    ],
)
def test_what_is_no_request_is_refused_in_json(server, raw, status, error):
    answered = exchange(server.port, raw)
    assert error_of(answered)[0] == status
    assert error_of(answered)[1].startswith(error)
    assert "access-control" not in answered.decode().lower()
    # Nothing of what followed was taken for a request.
    assert answered.count(b"\r\ncontent-length: ") == 1


def test_a_caller_that_asks_whether_to_go_on_is_told(server):
    head = b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert answer_of(b"".join(iter(lambda: connection.recv(9999), b"")))[2] == b"3"
    announced = head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)
    assert error_of(exchange(server.port, announced))[0] == 413


def test_a_foreign_page_is_refused_before_its_body_is_kept(server):
    head = (
        b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 9999\r\n\r\n"
    )
    status, error = error_of(exchange(server.port, head))
    assert (status, error[:8]) == (403, "OUT-I109")


@pytest.mark.parametrize(
    "limit, sent, status",
    [
        pytest.param("HEAD_S", [b"GET /v2 HT"], 408, id="half a head"),
        pytest.param("BODY_S", [HALF], 408, id="half a body"),
        pytest.param("KEEP_ALIVE_S", [], None, id="nothing"),
        pytest.param("KEEP_ALIVE_S", [b"\r\n"], None, id="nearly nothing"),
    ],
)
def test_slow_callers_are_not_waited_for(server, monkeypatch, limit, sent, status):
    monkeypatch.setattr(limits, limit, 0.05)
    raw = exchange(server.port, *sent)
    if status is None:
        assert raw == b""
    else:
        assert error_of(raw) == (status, "OUT-I115 the request took too long to arrive")
    assert call(server.port, "GET", "/v2/health/live")[0] == 200


def test_a_caller_that_never_reads_its_answers_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(limits, "WRITE_S", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with pytest.raises(OSError):  # noqa: PT012 - which of them fails is up to the buffers
            for _ in range(100_000):
                connection.sendall(LIVE * 100)
    assert call(server.port, "GET", "/v2/health/live")[0] == 200


def test_too_many_connections_are_told_so_and_harm_nobody(server, monkeypatch):
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(limits, "MAX_TURNED_AWAY", 2)
    first = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    first.request("GET", "/v2/health/live")
    first.getresponse().read()
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(2)]
    eventually(lambda: len(server.thread._callers.connections) == 3)
    answered = exchange(server.port, LIVE)
    assert error_of(answered) == (503, "OUT-I114 too many connections at once")
    assert answer_of(answered)[1]["retry-after"] == "1"
    first.request("GET", "/v2/health/live")
    assert first.getresponse().status == 200
    first.close()
    for each in idle:
        each.close()
    eventually(lambda: not server.thread._callers.connections)
    assert call(server.port, "GET", "/v2/health/live")[0] == 200


def test_bodies_that_arrive_at_once_hold_no_more_than_all_may(server, monkeypatch):
    monkeypatch.setattr(limits, "MAX_HELD", 300_000)
    head = (
        b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as patient:
        patient.sendall(head + bytes(200_000))
        eventually(lambda: server.thread._callers.held == 200_000)
        status, error = error_of(exchange(server.port, head + bytes(200_000)))
        assert (status, error) == (503, "OUT-I114 too many bytes of requests at once")
        assert server.thread._callers.held == 200_000
    eventually(lambda: server.thread._callers.held == 0)


def test_the_network_door_asks_for_the_token_and_for_nothing_else(tmp_path):
    make_token(tmp_path / "token", TOKEN)
    with serving({"toy": Measured()}, "network", Bearer(tmp_path / "token")) as server:
        good = {"Authorization": f"Bearer {TOKEN}", "Host": "device-7.plant.example:8501"}
        assert call(server.port, "GET", "/v2", headers=good)[0] == 200
        assert call(server.port, "GET", "/v2", headers=good | {"Origin": "null"})[0] == 200
        for headers in ({}, {"Host": "localhost"}, {"Authorization": "Bearer wrong-wrong-wrong"}):
            status, answer = call(server.port, "GET", "/v2/health/live", headers=headers)
            assert (status, answer["error"][:8]) == (401, "OUT-I112")
        # Its body is not even waited for.
        head = b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n"
        raw = exchange(server.port, head)
        assert (error_of(raw)[0], answer_of(raw)[1]["www-authenticate"]) == (401, "Bearer")


def test_callers_from_elsewhere_leave_room_for_this_devices_own(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FROM_NETWORK", 1)
    make_token(tmp_path / "token", TOKEN)
    with (
        serving({"toy": Measured()}, "network", Bearer(tmp_path / "token")) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20),
    ):
        eventually(lambda: len(server.thread._callers.connections) == 1)
        assert error_of(exchange(server.port, LIVE))[0] == 503


def test_without_a_token_file_the_network_door_is_shut():
    with serving({"toy": Measured()}, "network") as server:
        assert call(server.port, "GET", "/v2", headers={"Authorization": "Bearer x"})[0] == 401


def test_the_unix_socket_trusts_whoever_may_open_it():
    with serving({"toy": Measured()}, "socket") as server:
        assert call(server.port, "GET", "/v2", headers={"Host": "anything"})[0] == 200


def test_an_exception_that_nobody_expected_is_an_answer_too():
    class Broken(Measured):
        def infer(self, body: bytes | bytearray, header: str | None = None) -> Encoded:
            raise KeyError("a bug")

    with serving({"toy": Broken()}) as server:
        answered = call(server.port, "POST", "/v2/models/toy/infer", b"{}")
    assert answered == (500, {"error": "OUT-S160 KeyError"})


def test_a_flood_of_requests_is_read_no_faster_than_it_is_answered(server):
    ask = LIVE * 1000
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:

        def flood() -> None:
            for _ in range(15):
                connection.sendall(ask)
            connection.sendall(LAST)

        sender = threading.Thread(target=flood, daemon=True)
        sender.start()
        most = answered = 0
        while data := connection.recv(65536):
            answered += data.count(b"HTTP/1.1 200")
            most = max([most, *(c._reader.held for c in server.thread._callers.connections)])
        sender.join()
    assert most < 600_000
    assert answered > 14_900


def test_draining_ends_connections_with_their_answers_and_loses_none(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().read() == b'{"live":true}'
    drained = threading.Thread(target=server.thread.drain)
    drained.start()
    drained.join()
    eventually(lambda: server.thread._application.draining)
    connection.request("GET", "/v2/health/live")
    response = connection.getresponse()
    assert (response.status, response.getheader("connection")) == (200, "close")
    response.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
    assert server.thread.drained.wait(20)


def test_what_was_paused_accepts_again(server):
    server.thread.pause()
    eventually(lambda: server.thread._application.draining)
    from edge_agent.runners.listener import bind

    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server.thread.accept({"loopback": listener.detach()})
    assert answer_of(exchange(port, LIVE + LAST))[1].get("connection") is None
    assert not server.thread.drained.is_set()
    assert json.loads(answer_of(exchange(port, LAST))[2]) == {"live": True}
