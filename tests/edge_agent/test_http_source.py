"""Frames over HTTPS: who is believed, who is told who asks, and what a server may do to a device.

What a fetch makes of it: test_fetch_http.
"""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from edge_agent.asking import Server
from edge_agent.http_source import Arrived, Ended, HttpSource, Wish
from protocol.identifiers import Digest, digest_of
from protocol.payload import FEATURE_RAW, FRAME_SIZE, HintEntry, frame_count
from tests.fakes.certificates import Authority
from tests.fakes.range_server import Act, RangeServer

DATA = random.Random(1).randbytes(5 * FRAME_SIZE + 77)
FRAMES = [DATA[at : at + FRAME_SIZE] for at in range(0, len(DATA), FRAME_SIZE)]
LISTS = b"".join(hashlib.sha256(frame).digest() for frame in FRAMES)
ENTRY = HintEntry(digest_of(LISTS), len(DATA), frame_count(len(DATA)), FEATURE_RAW, 0)
FILES = {f"/p/{ENTRY.payload}": DATA, f"/p/{ENTRY.payload}.lists": LISTS}
PROOF = "Outrider-Device local-cam:c2ln"
NOW_MS = int(time.time() * 1000)
DAY_MS = 86_400_000
WAIT_S = 60.0


@dataclass
class Access:
    """The control plane that a device enrolled with."""

    authority: str
    asked: int = 0

    def server(self) -> Server | None:
        return Server("", "", 0, self.authority)

    def proof(self, payload: Digest) -> str:
        assert payload == ENTRY.payload
        self.asked += 1
        return PROOF


@dataclass
class Client:
    """A device that fetches from one server, and what came of it."""

    server: RangeServer
    access: Access
    now_ms: int = NOW_MS
    timeout_s: float = WAIT_S
    dev: bool = True

    def bring(self, *, own: bool, have: bytes = b"") -> tuple[list[Arrived], Ended]:
        woken = threading.Event()
        source = HttpSource(
            self.access,
            lambda: self.now_ms,
            on_wake=woken.set,
            dev=self.dev,
            timeout_s=self.timeout_s,
        )
        source.begin(Wish(f"{self.server.url}/p/{ENTRY.payload}", ENTRY, have, own))
        arrived: list[Arrived] = []
        while woken.wait(WAIT_S):
            woken.clear()
            for item in source.take()[0]:
                if isinstance(item, Ended):
                    return arrived, item
                arrived.append(item)
        raise AssertionError("it never ended")

    def brings_everything(self, *, own: bool) -> bool:
        (lists, *frames), ended = self.bring(own=own)
        assert ended == Ended()
        return lists.data == LISTS and [each.data for each in frames] == FRAMES

    @property
    def proofs_seen(self) -> set[str | None]:
        return {asked.headers.get("authorization") for asked in self.server.asked}


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Authority]:
    folder = tmp_path_factory.mktemp("ca")
    return {name: Authority.create(folder, name) for name in ("fleet", "world")}


def served(authority: Authority, **more: timedelta) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1", server=True, **more))
    return context


@pytest.fixture
def plane(authorities: dict[str, Authority]) -> Iterator[Client]:
    """The control plane, whose authority the device was told of when it enrolled."""
    with RangeServer(FILES, context=served(authorities["fleet"])) as server:
        yield Client(server, Access(authorities["fleet"].ca.read_text()))


@pytest.fixture
def mirror(authorities: dict[str, Authority], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A mirror, whose authority is one of those that the system knows."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities["world"].ca))
    with RangeServer(FILES, context=served(authorities["world"])) as server:
        yield Client(server, Access(authorities["fleet"].ca.read_text()))


def test_the_control_plane_is_known_by_its_own_authority_and_told_who_asks(plane):
    assert plane.brings_everything(own=True)
    assert plane.proofs_seen == {PROOF}
    assert plane.server.connections == 1


def test_a_server_of_any_other_authority_is_not_the_control_plane(mirror):
    arrived, ended = mirror.bring(own=True)
    assert arrived == []
    assert ended.error is not None
    assert ended.error.code == "OUT-F107"
    assert mirror.server.asked == [], "the proof was said to a stranger"


def test_a_mirror_is_known_by_the_authorities_of_the_system_and_not_told_who_asks(mirror):
    assert mirror.brings_everything(own=False)
    assert mirror.proofs_seen == {None}
    assert mirror.access.asked == 0


def test_a_mirror_that_only_the_fleets_authority_vouches_for_is_a_stranger(plane):
    _, ended = plane.bring(own=False)
    assert ended.error is not None
    assert ended.error.code == "OUT-F107"
    assert plane.server.asked == []


@pytest.mark.parametrize("own", [True, False])
def test_a_certificate_of_another_host_is_refused(authorities, monkeypatch, own):
    authority = authorities["fleet"]
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("elsewhere"))
    with RangeServer(FILES, context=context) as server:
        client = Client(server, Access(authority.ca.read_text()))
        _, ended = client.bring(own=own)
        assert ended.error is not None
        assert ended.error.code == "OUT-F107"
        assert server.asked == []


@pytest.mark.parametrize("own", [True, False])
def test_a_certificate_that_expired_by_trusted_time_is_refused(plane, mirror, own):
    client = plane if own else mirror
    client.now_ms = NOW_MS + 2 * DAY_MS
    _, ended = client.bring(own=own)
    assert ended.error is not None
    assert ended.error.code == "OUT-T118"
    assert client.server.asked == []


def test_the_system_clock_says_nothing_about_a_certificate(authorities):
    """Devices wake up in 1970; only what is trusted may end a certificate."""
    authority = authorities["fleet"]
    context = served(authority, valid=timedelta(days=-1))
    with RangeServer(FILES, context=context) as server:
        client = Client(server, Access(authority.ca.read_text()), now_ms=NOW_MS - 3 * DAY_MS)
        assert client.brings_everything(own=True)


def test_only_what_is_missing_is_asked_for_on_one_connection(plane):
    frames, ended = plane.bring(own=True, have=b"\1\0\1\0\0\1")
    assert ended == Ended()
    assert [each.number for each in frames] == [1, 3, 4]
    assert [asked.range for asked in plane.server.asked] == [
        f"bytes={FRAME_SIZE}-{2 * FRAME_SIZE - 1}",
        f"bytes={3 * FRAME_SIZE}-{5 * FRAME_SIZE - 1}",
    ]
    assert plane.server.connections == 1


def test_what_comes_over_tls_costs_more_than_its_bytes(plane):
    source = HttpSource(plane.access, lambda: NOW_MS, dev=True, timeout_s=WAIT_S)
    source.begin(Wish(f"{plane.server.url}/p/{ENTRY.payload}", ENTRY, b"", own=True))
    moved, ended = 0, False
    deadline_s = time.monotonic() + WAIT_S
    while not ended and time.monotonic() < deadline_s:
        found, more = source.take()
        moved += more
        ended = any(isinstance(item, Ended) for item in found)
    assert moved == len(DATA) + len(LISTS) + 2 * 256 + 5000


def test_a_server_that_trickles_is_left(plane):
    plane.server.always = Act(trickles=True)
    plane.timeout_s = 0.5
    arrived, ended = plane.bring(own=True)
    assert arrived == []
    assert ended.error is not None
    assert (ended.error.code, "too long" in ended.error.why) == ("OUT-F107", True)


def test_a_server_that_says_nothing_is_left(plane):
    plane.server.acts = [Act()]
    plane.server.always = Act(body=FRAME_SIZE + 5, stalls=True)
    plane.timeout_s = 0.5
    arrived, ended = plane.bring(own=True)
    assert [each.number for each in arrived] == [None, 0]
    assert ended.error is not None
    assert ended.error.code == "OUT-F107"


def test_a_name_that_leads_back_to_the_device_is_refused_before_anything_is_asked(mirror):
    mirror.dev = False
    _, ended = mirror.bring(own=False)
    assert ended.error is not None
    assert ended.error.code == "OUT-F108"
    assert mirror.server.asked == []


def test_stopping_ends_a_session_whose_server_does_not_even_shake_hands():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = HttpSource(Access(""), lambda: NOW_MS, dev=True, timeout_s=WAIT_S)
        earlier = set(threading.enumerate())
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/p/{ENTRY.payload}"
        source.begin(Wish(url, ENTRY, b"", own=False))
        line, _ = silent.accept()
        with line:
            line.recv(1)  # it has begun to
            (thread,) = set(threading.enumerate()) - earlier
            source.stop()
            thread.join(WAIT_S / 2)
            assert not thread.is_alive()


def test_stopping_ends_a_session_that_waits_for_its_server(plane):
    plane.server.always = Act(body=10, stalls=True)
    source = HttpSource(plane.access, lambda: NOW_MS, dev=True, timeout_s=WAIT_S)
    earlier = set(threading.enumerate())
    source.begin(Wish(f"{plane.server.url}/p/{ENTRY.payload}", ENTRY, b"", own=True))
    (thread,) = (each for each in set(threading.enumerate()) - earlier if each.name == "http")
    source.stop()
    thread.join(WAIT_S / 2)
    assert not thread.is_alive()
    assert source.take() == ([], 0)
    assert not source.busy
