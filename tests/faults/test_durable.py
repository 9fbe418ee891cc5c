"""The model of a power cut: it must be neither kinder nor crueller than a disk may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.durable import Durable


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    return tmp_path


def create(disk: Durable, path: Path, data: bytes) -> None:
    path.write_bytes(b"")
    disk.added(path)
    write(disk, path, data)


def write(disk: Durable, path: Path, data: bytes) -> None:
    disk.writing(path)
    path.write_bytes(data)


def move(disk: Durable, old: Path, new: Path) -> None:
    disk.moving(old, new)
    old.rename(new)


def left(home: Path) -> dict[str, bytes]:
    files = [path for path in home.rglob("*") if path.is_file()]
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


def test_bytes_that_were_not_synced_are_lost(home: Path):
    disk = Durable(home)
    write(disk, home / "file", b"new")
    write(disk, home / "file", b"newer")
    disk.cut()
    assert left(home) == {"file": b"old"}


def test_synced_bytes_stay(home: Path):
    disk = Durable(home)
    write(disk, home / "file", b"new")
    disk.synced(home / "file")
    disk.cut()
    assert left(home) == {"file": b"new"}


def test_a_synced_file_without_a_synced_name_is_lost(home: Path):
    disk = Durable(home)
    create(disk, home / "folder" / "new", b"x")
    disk.synced(home / "folder" / "new")
    disk.cut()
    assert left(home) == {"file": b"old"}


def test_a_synced_name_without_synced_bytes_is_an_empty_file(home: Path):
    disk = Durable(home)
    create(disk, home / "folder" / "new", b"x")
    disk.synced(home / "folder")
    disk.cut()
    assert left(home) == {"file": b"old", "folder/new": b""}


@pytest.mark.parametrize(
    "synced, found", [(False, {"file": b"old"}), (True, {"file": b"new"})], ids=["before", "after"]
)
def test_a_replaced_file_is_the_old_one_until_its_folder_is_synced(
    home: Path, synced: bool, found: dict[str, bytes]
):
    disk = Durable(home)
    create(disk, home / ".new", b"new")
    disk.synced(home / ".new")
    move(disk, home / ".new", home / "file")
    if synced:
        disk.synced(home)
    disk.cut()
    assert left(home) == found


def test_a_deletion_that_was_not_synced_did_not_happen(home: Path):
    disk = Durable(home)
    disk.removing(home / "file")
    (home / "file").unlink()
    disk.removing(home / "folder")
    (home / "folder").rmdir()
    disk.cut()
    assert left(home) == {"file": b"old"}
    assert (home / "folder").is_dir()


def test_what_is_pending_in_a_folder_goes_with_it(home: Path):
    disk = Durable(home)
    create(disk, home / "folder" / "new", b"x")
    disk.synced(home / "folder" / "new")
    move(disk, home / "folder", home / "final")
    disk.synced(home)
    disk.cut()
    assert left(home) == {"file": b"old"}
    assert (home / "final").is_dir()


def test_a_sync_of_everything_saves_everything(home: Path):
    disk = Durable(home)
    create(disk, home / "folder" / "new", b"x")
    disk.synced_all()
    disk.cut()
    assert left(home) == {"file": b"old", "folder/new": b"x"}


@pytest.mark.parametrize(
    "how, found", [("half", b"ab"), ("zeros", b"\0\0\0\0")], ids=["half", "zeros"]
)
def test_a_torn_write_keeps_its_name(home: Path, how: str, found: bytes):
    disk = Durable(home)
    create(disk, home / "new", b"abcd")
    assert disk.tear("half" if how == "half" else "zeros") == "new"
    assert left(home) == {"file": b"old", "new": found}


def test_where_everything_is_synced_the_file_written_last_is_damaged(home: Path):
    disk = Durable(home)
    write(disk, home / "file", b"abcd")
    disk.synced(home / "file")
    assert disk.tear("half") == "file"
    assert left(home) == {"file": b"ab"}


def test_the_outbox_is_as_of_its_last_commit(home: Path):
    database = home / "outbox.db"
    database.write_bytes(b"one")
    disk = Durable(home)
    disk.committed(database)
    database.write_bytes(b"two")
    (home / "outbox.db-wal").write_bytes(b"log")
    disk.cut()
    assert left(home) == {"file": b"old", "outbox.db": b"one"}


def test_a_commit_that_nobody_heard_of_is_half_there(home: Path):
    log = home / "outbox.db-wal"
    log.write_bytes(b"aaaa")
    disk = Durable(home)
    disk.committed(home / "outbox.db")
    log.write_bytes(b"aaaabbbb")
    disk.tear_commit(home / "outbox.db", "half")
    assert log.read_bytes() == b"aaaab"


def test_what_another_process_wrote_is_lost_unless_it_is_known_to_be_synced(home: Path):
    disk = Durable(home)
    (home / "folder" / "growing").write_bytes(b"by another")
    disk.unseen(home / "folder" / "growing")
    disk.cut()
    assert left(home) == {"file": b"old", "folder/growing": b""}
