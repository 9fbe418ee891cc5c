"""Payloads over HTTP for devices: exactly the bytes, only with a proof, never too many at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from control_plane.web import range as serving_route
from control_plane.web.app import create_app
from control_plane.web.attempts import Limits
from control_plane.web.serving import Serving
from protocol.identifiers import digest_of
from protocol.payload import FRAME_SIZE, PAYLOAD_PATH, check_lists, frame_digest
from tests.control_plane.web.conftest import Api
from tests.control_plane.web.reader import Reader, enrolled, reader_of
from tests.fakes.device_keys import new_key

MOST = 5
OTHER = digest_of(b"another payload")


@pytest.fixture
def reader(api: Api) -> Reader:
    return reader_of(api)


# --- what is sent ---------------------------------------------------------------------------------


def test_a_payload_and_its_lists_are_read_with_one_proof(reader: Reader):
    whole, lists = reader.read(), reader.read(".lists")
    assert (whole.status_code, whole.content) == (200, reader.content)
    assert (lists.status_code, lists.content) == (200, reader.lists)
    frames = check_lists(reader.entry, [lists.content])
    assert frames[4] == frame_digest(whole.content[4 * FRAME_SIZE :])


@pytest.mark.parametrize(
    "first, last",
    [(0, 0), (0, FRAME_SIZE - 1), (FRAME_SIZE, 3 * FRAME_SIZE - 1), (4 * FRAME_SIZE, None), (5, 7)],
)
def test_a_range_is_answered_with_exactly_those_bytes(reader: Reader, first, last):
    size = len(reader.content)
    answer = reader.read(Range=f"bytes={first}-{'' if last is None else last}")
    end = size if last is None else last + 1
    assert (answer.status_code, answer.content) == (206, reader.content[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
    assert answer.headers["content-length"] == str(end - first)


def test_a_range_beyond_the_end_is_cut_there(reader: Reader):
    size = len(reader.content)
    answer = reader.read(Range=f"bytes={size - 10}-{10 * size}")
    assert (answer.status_code, answer.content) == (206, reader.content[-10:])
    assert answer.headers["content-range"] == f"bytes {size - 10}-{size - 1}/{size}"


@pytest.mark.parametrize(
    "asked", ["bytes=9999999-", "bytes=5-2", "bytes=-5", "bytes=0-1,5-6", "frames=0-1", "bytes=+3-"]
)
def test_other_ranges_are_refused_with_what_there_is(reader: Reader, asked):
    answer = reader.read(Range=asked)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(reader.content)}"
    assert answer.headers["content-type"] == "application/problem+json"


def test_head_says_what_would_come_and_sends_nothing(reader: Reader):
    whole, part = reader.read(method="HEAD"), reader.read(method="HEAD", Range="bytes=10-19")
    assert (whole.status_code, whole.content) == (200, b"")
    assert whole.headers["content-length"] == str(len(reader.content))
    assert whole.headers["accept-ranges"] == "bytes"
    assert (part.status_code, part.content) == (206, b"")
    assert part.headers["content-length"] == "10"
    assert reader.api.parts.serving.bytes()[reader.entry.payload] == 0


def test_what_is_sent_may_be_kept_for_ever_and_is_not_packed(reader: Reader):
    for answer in (reader.read(**{"Accept-Encoding": "gzip, br"}), reader.read(".lists")):
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert "content-encoding" not in answer.headers
    assert reader.read().headers["etag"] == f'"{reader.entry.payload}"'
    assert reader.read(".lists").headers["etag"] == f'"{reader.entry.payload}.lists"'


def test_what_was_sent_is_counted_by_payload(reader: Reader):
    reader.read(Range="bytes=0-99")
    reader.read(".lists")
    sent = 100 + len(reader.lists)
    assert reader.api.parts.serving.bytes() == {reader.entry.payload: sent}
    reader.api.pushed()
    listed = reader.api.get("models/digits/payloads").json()["items"]
    (shown,) = (each for each in listed if each["payload"] == reader.entry.payload)
    assert (shown["served_bytes"], shown["published_bytes"]) == (sent, 0)


@pytest.mark.parametrize("what", ["file", "lists"])
def test_a_payload_that_is_gone_from_the_disk_is_not_found(reader: Reader, what):
    path = reader.api.parts.settings.payloads / reader.entry.payload
    (path if what == "file" else path.with_name(f"{path.name}.lists")).unlink()
    answer = reader.read("" if what == "file" else ".lists")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")


def test_a_control_plane_that_serves_no_payloads_has_no_such_path(reader: Reader):
    api: Any = reader.api
    settings = replace(api.parts.settings, serve_payloads=False)
    api.client.app.state.parts = replace(api.parts, settings=settings)
    answer = reader.read()
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S111")


# --- who may --------------------------------------------------------------------------------------


def test_without_a_proof_nothing_is_answered(reader: Reader, monkeypatch):
    monkeypatch.setattr(serving_route, "_file", None)  # would break if it was reached
    for method in ("GET", "HEAD"):
        for tail in ("", ".lists"):
            for said in ("", reader.api.client.headers["authorization"], "Outrider-Device"):
                answer = reader.read(tail, said, method)
                assert answer.status_code in (401, 403), (method, tail, said)


def wrong_proofs(reader: Reader) -> dict[str, str]:
    right = reader.proof()
    stranger = new_key()
    enrolled(reader.api, "cam-2")
    return {
        "of another payload": reader.proof(OTHER),
        "by another key": reader.proof(key=stranger),
        "in another device's name": reader.proof(device="north-cam-2"),
        "of a device that there is not": reader.proof(device="north-cam-9"),
        "by its local name": right.replace("north-cam-1", "cam-1"),
        "cut short": right[:-8],
        "not base64": f"{right}%%",
        "without a signature": "Outrider-Device north-cam-1:",
        "without a device": f"Outrider-Device {right.partition(':')[2]}",
        "endless": f"{right}{'A' * 4096}",
    }


def test_proofs_for_another_payload_or_device_do_not_open_this_one(reader: Reader, monkeypatch):
    monkeypatch.setattr(serving_route, "_file", None)
    said = set()
    for what, proof in wrong_proofs(reader).items():
        answer = reader.read(proof=proof)
        assert (answer.status_code, answer.json()["code"]) == (403, "OUT-A211"), what
        said.add(answer.json()["detail"])
        reader.api.parts.attempts.limits = Limits(most=1000)
    # Nobody learns which devices there are: what is malformed is told apart, nothing else.
    assert len(said) == 2


def test_whoever_has_no_proof_does_not_learn_which_payloads_there_are(reader: Reader):
    stranger = reader.proof(key=new_key())
    there = reader.read(proof=stranger)
    nowhere = reader.api.call(
        "GET",
        f"{PAYLOAD_PATH}{OTHER}",
        headers={"Authorization": reader.proof(OTHER, key=new_key())},
    )
    assert there.json()["detail"] == nowhere.json()["detail"]
    assert there.status_code == nowhere.status_code == 403


def test_a_payload_that_is_none_is_not_found_by_a_device(reader: Reader):
    for name in (OTHER, "nothing", "sha256-1.lists"):
        proof = reader.proof(name.removesuffix(".lists"))
        answer = reader.api.call("GET", f"{PAYLOAD_PATH}{name}", headers={"Authorization": proof})
        assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")


def test_no_name_leads_out_of_the_folder(reader: Reader):
    settings = reader.api.parts.settings
    (settings.payloads.parent / "secret").write_text("s")
    for name in ("..%2Fsecret", "%2e%2e%2fsecret", f"{reader.entry.payload}%2f..%2f..%2fsecret"):
        proof = reader.proof("../secret")
        answer = reader.api.call("GET", f"{PAYLOAD_PATH}{name}", headers={"Authorization": proof})
        assert answer.status_code in (403, 404)


def test_a_wrong_proof_counts_as_a_guess_and_no_proof_does_not(reader: Reader):
    attempts = reader.api.parts.attempts
    attempts.limits = Limits(most=MOST, most_together=20, window_s=600.0)
    for _ in range(3 * MOST):
        assert reader.read(proof="").status_code == 401
    assert attempts.failures == 0
    wrong = reader.proof(OTHER)
    answers = [reader.read(proof=wrong).status_code for _ in range(MOST + 1)]
    assert answers == [403] * MOST + [429]
    refused = reader.read()
    assert (refused.status_code, refused.json()["code"]) == (429, "OUT-A103")
    assert int(refused.headers["retry-after"]) > 0


def test_a_retired_device_reads_nothing(reader: Reader):
    assert reader.read().status_code == 200
    reader.api.post("devices/cam-1/retire", {"why": "lost"})
    for tail in ("", ".lists"):
        answer = reader.read(tail)
        assert (answer.status_code, answer.json()["code"]) == (403, "OUT-A212")
    # It is no guess: its neighbours behind the same address are not made to wait.
    assert reader.api.parts.attempts.failures == 0


def test_a_revoked_key_reads_nothing(reader: Reader):
    reader.api.store.certificates.revoke(reader.device, reader.api.clock[0], "stolen")
    assert reader.read().json()["code"] == "OUT-A212"


def test_who_may_read_payloads_may_do_nothing_else(reader: Reader):
    for path in ("devices", "models/digits/payloads", f"payloads/{reader.entry.payload}"):
        answer = reader.api.call("GET", path, headers={"Authorization": reader.proof()})
        assert answer.status_code == 401


# --- how many -------------------------------------------------------------------------------------


class Held:
    """Requests that are taken up to their first bytes, and then wait."""

    def __init__(self, reader: Reader, app: Any) -> None:
        self._reader = reader
        self._app = app
        self.go_on = asyncio.Event()
        self.three = asyncio.Event()
        """Of them are under way."""
        self.begun = 0
        self.statuses: list[int] = []
        self.headers: list[dict[bytes, bytes]] = []

    async def request(self) -> None:
        path = f"{PAYLOAD_PATH}{self._reader.entry.payload}"
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "https",
            "server": ("127.0.0.1", 8400),
            "client": ("127.0.0.1", 1),
            "headers": [(b"authorization", self._reader.proof().encode())],
        }
        await self._app(scope, _stays, self._send)

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])
            self.headers.append(dict(message["headers"]))
            if message["status"] == 200:
                self.begun += 1
                if self.begun == 3:
                    self.three.set()
                await self.go_on.wait()


async def _stays() -> Any:
    """A client that says nothing more, and does not go away."""
    await asyncio.Event().wait()


def test_more_than_so_many_at_a_time_are_asked_to_come_back(reader: Reader):
    parts = replace(reader.api.parts, serving=Serving(3))

    async def scenario() -> None:
        held = Held(reader, create_app(parts))
        first = [asyncio.create_task(held.request()) for _ in range(3)]
        await held.three.wait()
        await held.request()
        assert held.statuses == [200, 200, 200, 503]
        assert 5 <= int(held.headers[-1][b"retry-after"]) <= 30
        assert parts.serving.turned_away == 1
        held.go_on.set()
        await asyncio.gather(*first)
        assert parts.serving.now == 0
        await held.request()
        assert held.statuses[-1] == 200

    asyncio.run(scenario())
    assert Serving().most == 32


def test_who_takes_nothing_any_more_gives_its_place_back(reader: Reader, monkeypatch):
    monkeypatch.setattr(serving_route, "STALLED_S", 0.05)
    parts = replace(reader.api.parts, serving=Serving(1))

    async def scenario() -> None:
        held = Held(reader, create_app(parts))
        await held.request()
        assert held.begun == 1
        assert parts.serving.now == 0

    asyncio.run(scenario())
