"""The folder of a stick: whole or no stick, gone on with, and nothing of anybody else's."""

from __future__ import annotations

import json

import pytest

from control_plane.stick_folder import StickFolder, Written, payload_digest
from protocol import stick
from protocol.errors import InvalidRequest, OutriderError, TrustError, Unavailable
from protocol.payload import FRAME_SIZE, build_lists

NOTE = {"v": 1, "fleet": "north", "made_ms": 1, "devices": ["north-cam-1"]}
CONTENT = bytes(range(256)) * 600
FRAMES = [CONTENT[at : at + FRAME_SIZE] for at in range(0, len(CONTENT), FRAME_SIZE)]
PAYLOAD = build_lists(FRAMES)[0]
FILES = {"tuf/root/1.json": "{}", "tuf/timestamp.json": "{}", "deny.json": "{}"}
TOTAL = len(CONTENT) + 6


class Origin:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.content = CONTENT

    def __call__(self, path):
        self.asked.append(path)
        yield self.content[:1000]
        yield self.content[1000:]


@pytest.fixture
def origin():
    return Origin()


def write(folder, origin, files=FILES, payloads=None, note=NOTE):
    sizes = {PAYLOAD: len(CONTENT)} if payloads is None else payloads
    folder.require_usable()
    return folder.write(note, files, sizes, origin, lambda done, total: None)


def test_a_stick_is_written_with_its_description(tmp_path, origin):
    written = write(StickFolder(tmp_path / "usb", "north"), origin)
    assert written == Written(TOTAL, TOTAL)
    path = tmp_path / "usb/payloads" / PAYLOAD
    assert path.read_bytes() == CONTENT
    assert payload_digest(path) == PAYLOAD
    assert json.loads((tmp_path / "usb" / stick.NOTE).read_bytes()) == NOTE
    assert (tmp_path / "usb/deny.json").read_text() == "{}"


def test_what_lies_there_whole_is_not_asked_for_again(tmp_path, origin):
    folder = StickFolder(tmp_path, "north")
    write(folder, origin)
    assert write(folder, origin) == Written(TOTAL, 0)
    assert len(origin.asked) == 1
    damaged = tmp_path / "payloads" / PAYLOAD
    damaged.write_bytes(CONTENT[:-1] + b"x")
    assert write(folder, origin).written_bytes == len(CONTENT)
    assert damaged.read_bytes() == CONTENT


def test_what_is_not_part_of_it_any_more_goes(tmp_path, origin):
    folder = StickFolder(tmp_path, "north")
    write(folder, origin)
    write(folder, origin, files={"deny.json": "{}"}, payloads={})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"deny.json", stick.NOTE}


def test_an_export_that_breaks_off_leaves_no_stick_and_is_gone_on_with(tmp_path, origin):
    folder = StickFolder(tmp_path, "north")
    write(folder, origin)

    def broken(path):
        yield b"other"
        raise Unavailable("OUT-N104", "gone")

    other = build_lists([b"other thing"])[0]
    with pytest.raises(Unavailable):
        write(folder, broken, payloads={PAYLOAD: len(CONTENT), other: 11})
    assert not (tmp_path / stick.NOTE).exists()
    assert not (tmp_path / "payloads" / other).exists()
    assert (tmp_path / "payloads" / PAYLOAD).read_bytes() == CONTENT
    assert write(folder, origin).written_bytes == 0


@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1], b"x" * len(CONTENT)])
def test_a_payload_that_is_not_what_was_asked_for_is_refused(tmp_path, origin, content):
    origin.content = content
    with pytest.raises(TrustError) as raised:
        write(StickFolder(tmp_path, "north"), origin)
    assert raised.value.code == "OUT-T103"
    assert list((tmp_path / "payloads").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "tuf/../../x",
        "tuf/.bashrc",
        "home/x",
        "plans/a/b/c",
        "plans/",
        "outrider-stick.json",
    ],
)
def test_the_control_plane_cannot_write_beside_the_stick(tmp_path, origin, name):
    folder = StickFolder(tmp_path / "a/usb", "north")
    with pytest.raises(OutriderError):
        write(folder, origin, files={name: "x"})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def other_files(folder):
    (folder / "thesis.doc").write_text("mine")


def other_fleet(folder):
    (folder / stick.NOTE).write_text(json.dumps({**NOTE, "fleet": "south"}))


def a_link(folder):
    (folder.parent / "home").mkdir()
    (folder / "payloads").symlink_to(folder.parent / "home")


@pytest.mark.parametrize("put", [other_files, other_fleet, a_link])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, origin, put):
    folder = tmp_path / "usb"
    folder.mkdir()
    put(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidRequest) as raised:
        write(StickFolder(folder, "north"), origin)
    assert raised.value.code == "OUT-S120"
    assert sorted(folder.rglob("*")) == before
    assert origin.asked == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "usb").write_text("x")
    with pytest.raises(InvalidRequest):
        StickFolder(tmp_path / "usb", "north").require_usable()


def test_what_systems_put_on_a_medium_does_not_matter(tmp_path, origin):
    (tmp_path / "lost+found").mkdir()
    write(StickFolder(tmp_path, "north"), origin)


def test_links_on_the_stick_are_replaced_never_written_through(tmp_path, origin):
    folder = StickFolder(tmp_path / "usb", "north")
    write(folder, origin)
    (tmp_path / "mine").write_text("{}")
    (tmp_path / "usb/tuf/timestamp.json").unlink()
    (tmp_path / "usb/tuf/timestamp.json").symlink_to(tmp_path / "mine")
    write(folder, origin, files={**FILES, "tuf/timestamp.json": "newer"})
    assert (tmp_path / "mine").read_text() == "{}"
    assert not (tmp_path / "usb/tuf/timestamp.json").is_symlink()
