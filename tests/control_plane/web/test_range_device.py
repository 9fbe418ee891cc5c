"""The agent's own way of fetching over HTTP, against the control plane's own listener and route."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from control_plane.fleet.authority import Authority
from control_plane.web.app import create_app
from control_plane.web.listener import listen
from control_plane.web.server import ApiServer
from edge_agent.enrol import device_key, settle
from edge_agent.http_source import Arrived, Ended, HttpSource, Wish
from edge_agent.identity import FOLDER, KEY, Identity
from edge_agent.proofs import Proofs
from edge_agent.urls import url_of
from protocol.enrolment import EnrolRequest, decode_token
from protocol.identifiers import digest_of
from protocol.payload import FRAME_SIZE
from tests.control_plane.web.conftest import Api
from tests.control_plane.web.reader import Reader, reader_of
from tests.fakes.conditions import eventually
from tests.fakes.device_keys import csr


@pytest.fixture
def reader(api: Api) -> Reader:
    return reader_of(api)


@contextmanager
def served(api: Api) -> Iterator[int]:
    """The API on its own listener, over TLS, as the control plane starts it. Its port."""
    authority = Authority(api.parts.settings.ca, api.parts.settings.fleet)
    listener = listen("127.0.0.1", 0)
    app = create_app(api.parts)
    server = ApiServer(app, listener, authority.certificate("api"), authority.key("api"))
    server.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.stop()


def identity(api: Api, home: Path, port: int) -> Identity:
    """What enrolment leaves on a device."""
    folder = home / FOLDER
    folder.mkdir(parents=True)
    key = device_key(folder / KEY)
    token = decode_token(api.parts.enrolment.create_token(api.clock[0])).t
    answer = api.parts.enrolment.enrol(EnrolRequest(token, csr(key), "cam-7"), api.clock[0])
    authority = (api.parts.settings.ca / "api-ca.crt").read_text()
    root = digest_of(answer.root.encode())
    url = f"https://127.0.0.1:{port}"
    return settle(folder, answer, key, root, url=url, api_ca=authority)


def taken(source: HttpSource) -> tuple[list[Arrived], Ended, int]:
    """Everything that comes of what was begun, and the bytes that travelled for it."""
    found: list[Arrived | Ended] = []
    travelled: list[int] = []

    def has_ended() -> bool:
        came, moved = source.take()
        found.extend(came)
        travelled.append(moved)
        return bool(found) and isinstance(found[-1], Ended)

    eventually(has_ended, 120)
    last = found.pop()
    assert isinstance(last, Ended)
    return [each for each in found if isinstance(each, Arrived)], last, sum(travelled)


@pytest.fixture
def device(reader: Reader, tmp_path: Path) -> Iterator[tuple[HttpSource, str]]:
    """The agent's own source of frames, and the address of the payload as its hint gives it."""
    with served(reader.api) as port:
        mine = identity(reader.api, tmp_path / "device", port)
        assert mine.server is not None
        source = HttpSource(Proofs(mine), lambda: reader.api.clock[0], timeout_s=60)
        url = url_of("/", reader.entry.payload, mine.server.url, False)
        assert url is not None
        yield source, url
        source.stop()


def test_a_device_fetches_a_payload_from_its_control_plane(reader: Reader, device):
    source, url = device
    source.begin(Wish(url, reader.entry, b"", True))
    (lists, *frames), ended, _ = taken(source)
    assert (lists.number, lists.data) == (None, reader.lists)
    assert [each.number for each in frames] == [0, 1, 2, 3, 4]
    assert b"".join(each.data for each in frames) == reader.content
    assert ended.error is None


def test_a_device_fetches_only_the_frames_that_it_lacks(reader: Reader, device):
    source, url = device
    source.begin(Wish(url, reader.entry, b"\1\0\0\1\0", True))
    frames, ended, travelled = taken(source)
    assert [each.number for each in frames] == [1, 2, 4]
    assert frames[2].data == reader.content[4 * FRAME_SIZE :]
    assert ended.error is None
    lacking = sum(len(each.data) for each in frames)
    assert reader.api.parts.serving.bytes() == {reader.entry.payload: lacking}
    assert travelled < lacking + FRAME_SIZE


def test_a_device_that_was_retired_is_told_so_and_rests(reader: Reader, device):
    source, url = device
    reader.api.post("devices/cam-7/retire", {"why": "lost"})
    source.begin(Wish(url, reader.entry, b"", True))
    frames, ended, _ = taken(source)
    assert not frames
    assert ended.error is not None
    assert ended.error.code == "OUT-F108"


def test_a_device_that_is_asked_to_come_back_does_not_come_before(reader: Reader, device):
    source, url = device
    reader.api.parts.serving.most = 0
    source.begin(Wish(url, reader.entry, b"", True))
    frames, ended, _ = taken(source)
    assert not frames
    assert ended.error is not None
    assert ended.error.code == "OUT-F107"
    assert 5 <= ended.rest_s <= 30
