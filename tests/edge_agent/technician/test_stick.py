"""A stick that anybody may have written is read within bounds, and never through a link."""

from __future__ import annotations

import os
import socket

import pytest

from edge_agent.technician.stick import StickFolder
from protocol.errors import InvalidRequest

NAME = ("tuf", "models.json")


@pytest.fixture
def top(tmp_path):
    (tmp_path / "stick/tuf").mkdir(parents=True)
    (tmp_path / "stick/tuf/models.json").write_bytes(b"said")
    (tmp_path / "secret").write_bytes(b"of another user")
    return tmp_path / "stick"


def refused(top, read):
    with StickFolder(top) as folder, pytest.raises(InvalidRequest) as raised:
        read(folder)
    assert raised.value.code == "OUT-T119"
    return raised.value.why


def test_what_is_there_is_read(top):
    with StickFolder(top) as folder:
        assert folder.read(NAME, 4) == b"said"
        assert folder.find(("tuf", "none.json"), 4) is None
        assert folder.find(("none", "none.json"), 4) is None
        assert (folder.has(NAME), folder.has(("none",))) == (True, False)
        with folder.stream(NAME, 4) as file:
            assert file.read(2) + file.read() == b"said"


def test_what_is_larger_than_it_may_be_is_not_read(top):
    with (top / "tuf/models.json").open("wb") as file:
        file.truncate(2**40)
    assert "at most 100" in refused(top, lambda folder: folder.read(NAME, 100))


def test_a_payload_of_another_size_is_refused_before_it_is_read(top):
    assert "4 of 5 bytes" in refused(top, lambda folder: folder.stream(NAME, 5))
    assert "4 of 3 bytes" in refused(top, lambda folder: folder.stream(NAME, 3))


def test_what_is_missing_is_said(top):
    assert refused(top, lambda f: f.read(("deny.json",), 9)) == "it lacks deny.json"
    assert refused(top, lambda f: f.stream(("payloads", "x"), 9)) == "it lacks payloads/x"


def link_to_a_file(top):
    (top / "tuf/models.json").unlink()
    (top / "tuf/models.json").symlink_to(top.parent / "secret")


def link_in_the_middle(top):
    (top / "tuf").rename(top.parent / "elsewhere")
    (top / "tuf").symlink_to(top.parent / "elsewhere")


def a_folder(top):
    (top / "tuf/models.json").unlink()
    (top / "tuf/models.json").mkdir()


def a_pipe(top):
    (top / "tuf/models.json").unlink()
    os.mkfifo(top / "tuf/models.json")


def a_socket(top):
    (top / "tuf/models.json").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(top / "tuf", os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/models.json")
        os.close(here)


@pytest.mark.parametrize("change", [link_to_a_file, link_in_the_middle, a_folder, a_pipe, a_socket])
def test_what_is_no_ordinary_file_is_never_opened(top, change):
    change(top)
    for read in (
        lambda folder: folder.read(NAME, 100),
        lambda folder: folder.has(NAME),
        lambda folder: folder.stream(NAME, 15),
    ):
        assert "tuf/models.json" in refused(top, read)


@pytest.mark.parametrize("kind", ["file", "link", "nothing"])
def test_what_is_no_folder_is_no_stick(tmp_path, top, kind):
    place = {"file": tmp_path / "secret", "link": tmp_path / "link", "nothing": tmp_path / "none"}
    (tmp_path / "link").symlink_to(top)
    with pytest.raises(InvalidRequest) as raised:
        StickFolder(place[kind])
    assert raised.value.code == "OUT-T119"


def test_no_file_stays_open(top):
    def count():
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - entries that come and go

    before = count()
    for _ in range(3):
        with StickFolder(top) as folder:
            folder.read(NAME, 100)
            folder.has(NAME)
            with pytest.raises(InvalidRequest):
                folder.read(NAME, 1)
            with pytest.raises(InvalidRequest):
                folder.stream(NAME, 1)
    assert count() == before
