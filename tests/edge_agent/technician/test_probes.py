"""What doctor finds where no agent runs, and that it changes nothing."""

import json
import os
import shutil
import socket
import sqlite3
from contextlib import closing

import pytest

from edge_agent import cli
from edge_agent.disk import Disk
from edge_agent.journal import Journal
from edge_agent.technician import probes
from edge_agent.technician.checks import Kept, Unit
from tests.fakes.bundles import make_bundle
from tests.fakes.command_line import ran
from tests.fakes.mosquitto import free_port


@pytest.fixture
def home(tmp_path):
    """A device that has committed one bundle, with some records."""
    home = tmp_path / "device"
    (home / "run").mkdir(parents=True)
    home.chmod(0o700)
    disk = Disk(home)
    bundle = make_bundle(tmp_path / "origin", "toy")
    shutil.copytree(bundle.path, disk.path(bundle.digest))
    disk.write_journal(Journal("toy", current=bundle.digest))
    with closing(sqlite3.connect(home / "outbox.db")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE buf(n)")
        db.executemany("INSERT INTO buf VALUES (?)", [(n,) for n in range(7)])
        db.commit()
    return home


def everything(home):
    """Names, contents and times of all files."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def test_a_model_that_is_whole_is_named_and_one_that_is_damaged_is_told(home):
    assert probes.kept(home) == (Kept("toy/v1", True, 1),)
    member = next(path for path in (home / "bundles").rglob("*.onnx"))
    member.write_bytes(member.read_bytes()[:-1] + b"x")
    assert probes.kept(home) == (Kept("toy", False, 1),)


def test_what_would_take_too_long_is_left_to_the_agent(home, monkeypatch):
    monkeypatch.setattr(probes, "HASHED_BYTES", 1)
    assert probes.kept(home) == (Kept("toy", None, 1),)


def test_records_are_counted_also_those_in_the_log_of_the_file(home):
    found = probes.outbox(home / "outbox.db")
    assert found is not None
    assert (found.why, found.records) == ("", 7)
    assert probes.outbox(home / "none.db") is None


@pytest.mark.parametrize("damage", ["head", "page"])
def test_a_damaged_file_of_records_is_told(home, damage):
    path = home / "outbox.db"
    data = bytearray(path.read_bytes())
    if damage == "head":
        data[:16] = b"x" * 16
    else:
        data[4096:4196] = b"\xff" * 100
    path.write_bytes(bytes(data))
    found = probes.outbox(path)
    assert found is not None
    assert found.why


def test_a_port_is_free_or_a_runners_or_somebody_elses(home):
    port = free_port()
    assert probes.port_used_by(port, home / "run") == ""
    with closing(socket.create_server(("127.0.0.1", port))):
        assert probes.port_used_by(port, home / "run") == "another"
        (home / "run" / "r-1.sock").touch()
        assert probes.port_used_by(port, home / "run") == "runner"


def test_a_folder_that_others_may_change_or_a_key_that_they_may_read_is_told(home):
    said, wrong = probes.folder(home)
    assert (str(home) in said, wrong) == (True, ())
    key = home / "identity" / "device.key"
    key.parent.mkdir()
    key.touch(0o600)
    assert probes.folder(home)[1] == ()
    key.chmod(0o644)
    home.chmod(0o777)
    wrong = probes.folder(home)[1]
    assert ["changed by others" in wrong[0], "read by others" in wrong[1]] == [True, True]
    assert probes.folder(home / "none") == ("", ())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_files_of_another_user_than_the_folders_are_told(home):
    os.chown(home / "outbox.db", 65534, 65534)
    (wrong,) = probes.folder(home)[1]
    assert "outbox.db belongs to" in wrong


@pytest.mark.parametrize(
    "shown, unit",
    [
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n", Unit(True, True, True)),
        ("LoadState=loaded\nActiveState=failed\nUnitFileState=disabled\n", Unit(True)),
        ("LoadState=not-found\nActiveState=inactive\nUnitFileState=\n", Unit(False)),
        ("", Unit(False)),
    ],
)
def test_what_systemd_says_of_the_service(shown, unit):
    assert probes.unit_of(shown) == unit


def test_doctor_changes_nothing_on_the_disk(home):
    before = everything(home)
    result = ran(cli.run_command, ["doctor", "--json", "--home", str(home)])
    assert everything(home) == before
    checks = {each["name"]: each for each in json.loads(result.out)["checks"]}
    assert result.exit == 1
    assert checks["agent"]["detail"].startswith("not enrolled")
    assert checks["model"]["detail"] == "toy/v1 is whole; its journal has one copy"
    assert checks["buffer"]["detail"].startswith("7 records")


def test_doctor_says_how_it_is_on_an_empty_machine(tmp_path):
    result = ran(cli.run_command, ["doctor", "--home", str(tmp_path / "none")])
    assert result.exit == 1
    assert "FAIL  agent    not enrolled" in result.out
    assert not (tmp_path / "none").exists()
