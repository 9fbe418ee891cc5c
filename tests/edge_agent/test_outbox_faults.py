"""The outbox on storage that fails for real: what is said, what goes on, and what is saved.

Long because every way to break the file has its case, and all share one outbox.
"""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.buffer import Outbox
from edge_agent.wal import Wal
from protocol.errors import Unavailable
from protocol.reported import Outcome, ReportedState
from protocol.telemetry import FINAL, EventWindow, Record, StreamAck, read_body
from tests.fakes.telemetry import BUNDLE, MODEL, take

STATE = ReportedState(order=0, agent="0.1.0")
NOBODY = 65_534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


def opened(path: Path, **changes) -> Outbox:
    settings: dict[str, Any] = {"window_s": 0.0, "min_window_n": 0, "synchronous": "OFF"}
    return Outbox(path, rng=random.SystemRandom(), **(settings | changes))


def fill(outbox: Outbox, takes: int, *, first: int = 1, runner: str = "r-1") -> int:
    """Answers in so many closed windows."""
    for seq in range(first, first + takes):
        outbox.commit_take(take(seq, 30, runner=runner, rows=30), float(seq), seq)
        outbox.close_due(float(seq))
    return 30 * takes


def ready(outbox: Outbox) -> list[Record]:
    return outbox.sendable(lambda _: False, records=10**6, body_bytes=10**9)


def counted(outbox: Outbox) -> int:
    return sum(record.n for record in ready(outbox) if record.kind == "inference")


def losses(outbox: Outbox) -> list[dict[str, Any]]:
    """Details of what was reported as lost, once a state has been recorded."""
    outbox.put_state(STATE, 1)
    found = [read_body(record) for record in ready(outbox) if record.kind == "events"]
    return [
        each.newest["OUT-D503"]
        for each in found
        if isinstance(each, EventWindow) and "OUT-D503" in each.counts
    ]


def crashed(outbox: Outbox, path: Path) -> None:
    """Database and log as a killed process leaves them."""
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), path.with_name(f"copy{suffix}"))
    outbox.close()
    for suffix in ("", "-wal"):
        path.with_name(f"copy{suffix}").replace(path.with_name(path.name + suffix))


# --- no room --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with three megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_keeps_the_counts_with_the_runner_until_there_is_room(small_disk):
    outbox = opened(small_disk / "outbox.db")
    answers = fill(outbox, 20)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(Unavailable) as failure:
        fill(outbox, 500, first=21)
    assert failure.value.code == "OUT-D501"
    assert outbox.problem is not None
    assert outbox.problem[0] == "OUT-D501"
    assert "no room" in outbox.problem[1]
    # Everything that only reads goes on.
    committed = outbox.acknowledged("r-1")
    assert outbox.baseline(MODEL, BUNDLE) is not None
    assert outbox.answers == 30 * committed >= answers
    assert outbox.state().records > 0
    ballast.unlink()
    outbox.commit_take(take(committed + 1, 30, rows=30), 900.0, 900)
    outbox.close_all()
    assert outbox.problem is None
    assert counted(outbox) == outbox.answers == 30 * (committed + 1)


def test_a_disk_that_is_full_from_the_start_is_said_to_be_full(small_disk):
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    outbox = opened(small_disk / "outbox.db")
    with pytest.raises(Unavailable) as failure:
        outbox.put_state(STATE, 1)
    assert failure.value.code == "OUT-D501"
    ballast.unlink()
    outbox.put_state(STATE, 2)
    assert outbox.problem is None


# --- nothing may be written -----------------------------------------------------------------------


@pytest.fixture
def no_root():
    """A folder whose rights bind, also for tests that run as root."""
    place = Path(tempfile.mkdtemp(prefix="outrider-"))
    root = os.geteuid() == 0
    if root:
        os.chown(place, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield place
    place.chmod(0o700)
    if root:
        os.seteuid(0)
    shutil.rmtree(place)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_file_or_folder_is_said_and_mends_by_itself(no_root, what):
    path = no_root / "outbox.db"
    outbox = opened(path)
    answers = fill(outbox, 5)
    outbox.close()
    target = path if what == "file" else no_root
    target.chmod(0o400 if what == "file" else 0o500)
    with pytest.raises(Unavailable) as failure:
        fill(outbox, 1, first=6)
    assert failure.value.code == "OUT-D502"
    assert outbox.problem is not None
    assert outbox.problem[0] == "OUT-D502"
    outbox.state()
    target.chmod(0o600 if what == "file" else 0o700)
    answers += fill(outbox, 1, first=6)
    assert counted(outbox) == outbox.answers == answers
    assert outbox.problem is None
    outbox.close()


def test_outcomes_wait_and_say_so_while_they_cannot_be_recorded(path, monkeypatch):
    outbox = opened(path)
    outbox.put_outcome(Outcome(1, MODEL, BUNDLE, "committed"), 1)
    assert outbox.reported_number(MODEL) == 1
    outbox.close()
    path.rename(path.with_name("elsewhere"))
    path.with_name("outbox.db.made").unlink()
    path.mkdir()
    with pytest.raises(Unavailable):
        outbox.put_outcome(Outcome(2, MODEL, BUNDLE, "committed"), 2)
    with pytest.raises(Unavailable):
        outbox.reported_number(MODEL)
    path.rmdir()
    path.with_name("elsewhere").rename(path)
    outbox.put_outcome(Outcome(2, MODEL, BUNDLE, "committed"), 2)
    assert outbox.reported_number(MODEL) == 2


# --- damage ---------------------------------------------------------------------------------------


def damage(path: Path, first: int, pages: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[first * 4096 : (first + pages) * 4096] = os.urandom(pages * 4096)
    path.write_bytes(data)


def test_one_damaged_page_costs_only_what_is_on_it(path):
    outbox = opened(path)
    answers = fill(outbox, 300)
    outbox.put_outcome(Outcome(7, MODEL, BUNDLE, "committed"), 1)
    outbox.close()
    with closing(sqlite3.connect(path)) as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    damage(path, pages - 40)
    before = {record.e for record in ready(opened(path.with_name("other.db")))}
    assert before == set()
    outbox = opened(path)
    seen = use(outbox)
    if not seen:
        # The page was free, or held what nobody asked for.
        assert counted(outbox) == answers
        return
    kept = counted(outbox)
    assert answers // 2 < kept
    (lost,) = losses(outbox)
    assert lost["saved"] >= kept // 30
    assert kept < answers or lost["known"] != "all"
    assert outbox.problem is not None
    assert outbox.problem[0] == "OUT-D503"
    assert path.with_name("outbox.db.broken").exists()
    # In the epoch it was born in; what comes now is of another.
    (old,) = {record.e for record in ready(outbox) if record.kind == "drift"}
    fill(outbox, 1, first=301)
    outbox.close_all()
    assert {r.e for r in ready(outbox) if r.kind == "drift"} > {old}


def use(outbox: Outbox) -> set[str]:
    """Codes of what fails until everything works again."""
    seen = set()
    for attempt in range(4):
        try:
            ready(outbox)
            outbox.put_event("OUT-D201", {"attempt": attempt}, attempt)
            outbox.delete_safe([StreamAck(1, "events/-/-", ((0, 0),), ((0, 0),))])
        except Unavailable as error:
            seen.add(error.code)
    assert seen <= {"OUT-D502"}
    return seen


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_short_keeps_what_is_left(path, share):
    outbox = opened(path)
    answers = fill(outbox, 300)
    outbox.close()
    size = path.stat().st_size
    os.truncate(path, int(size * share) // 4096 * 4096)
    outbox = opened(path)
    use(outbox)
    kept = counted(outbox)
    assert kept < answers
    if share > 0.5:
        assert kept > 0
    (lost,) = losses(outbox)
    assert lost["why"] == "outbox.db was damaged"
    fill(outbox, 3, first=301)
    outbox.close_all()
    assert counted(outbox) == kept + 90


def test_a_file_of_garbage_is_set_aside_and_said_once(path):
    path.write_bytes(os.urandom(50_000))
    outbox = opened(path)
    fill(outbox, 2)
    (lost,) = losses(outbox)
    assert (lost["saved"], lost["known"], lost["kept"]) == (0, "in part", "outbox.db.broken")
    outbox.close()
    again = opened(path)
    assert len(losses(again)) == 1
    assert counted(again) == 60


def test_what_is_not_said_yet_survives_a_restart(path):
    path.write_bytes(os.urandom(50_000))
    outbox = opened(path)
    fill(outbox, 1)
    outbox.close()
    assert len(losses(opened(path))) == 1


def test_a_log_of_garbage_is_noticed(path):
    outbox = opened(path)
    fill(outbox, 40)
    crashed(outbox, path)
    log = path.with_name("outbox.db-wal")
    assert log.stat().st_size > 10_000
    log.write_bytes(os.urandom(log.stat().st_size))
    outbox = opened(path)
    (lost,) = losses(outbox)
    assert "log was damaged" in lost["why"]
    fill(outbox, 2, runner="r-2")
    outbox.close_all()


def test_changes_behind_a_damaged_place_of_the_log_are_noticed(path):
    outbox = opened(path)
    fill(outbox, 40)
    crashed(outbox, path)
    log = path.with_name("outbox.db-wal")
    data = bytearray(log.read_bytes())
    middle = 32 + (len(data) - 32) // (2 * 4120) * 4120
    data[middle + 100 : middle + 200] = os.urandom(100)
    log.write_bytes(data)
    outbox = opened(path)
    assert 0 < outbox.answers < 1200
    (lost,) = losses(outbox)
    assert "changes are lost" in lost["why"]


def test_a_log_that_a_power_cut_left_torn_is_no_damage(path):
    outbox = opened(path)
    fill(outbox, 40)
    crashed(outbox, path)
    log = path.with_name("outbox.db-wal")
    commits = Wal.read(log).commits
    assert len(commits) > 5
    os.truncate(log, 32 + 4120 * (commits[-1] - 1))
    outbox = opened(path)
    assert outbox.answers in (1170, 1200)
    assert losses(outbox) == []


def test_a_whole_log_is_taken_as_it_is(path):
    outbox = opened(path)
    answers = fill(outbox, 40)
    crashed(outbox, path)
    outbox = opened(path)
    assert outbox.answers == counted(outbox) == answers
    assert losses(outbox) == []


@pytest.mark.parametrize("head", [b"", b"\0" * 64, b"short"])
def test_a_log_that_was_never_begun_is_no_log(path, head):
    log = path.with_name("log")
    log.write_bytes(head)
    assert Wal.read(log) == Wal()
    assert Wal.read(path) == Wal()
    assert Wal().missing(-1) == ""


def test_a_file_that_is_deleted_while_it_is_open_is_saved_from_there(path):
    outbox = opened(path)
    answers = fill(outbox, 30)
    epochs = {record.e for record in ready(outbox)}
    for each in path.parent.glob("outbox.db*"):
        each.unlink()
    answers += fill(outbox, 1, first=31)
    outbox.close_all()
    assert counted(outbox) == outbox.answers == answers
    assert {record.e for record in ready(outbox)} > epochs
    assert losses(outbox) == []
    outbox.close()
    assert counted(opened(path)) == answers


def test_a_folder_that_is_deleted_while_it_is_open_costs_nothing_once_it_is_back(tmp_path):
    path = tmp_path / "home" / "outbox.db"
    path.parent.mkdir()
    outbox = opened(path)
    answers = fill(outbox, 30)
    shutil.rmtree(path.parent)
    for _ in range(2):
        with pytest.raises(Unavailable) as failure:
            fill(outbox, 1, first=31)
        assert failure.value.code == "OUT-D502"
    path.parent.mkdir()
    answers += fill(outbox, 1, first=31)
    outbox.close_all()
    assert counted(outbox) == answers


def test_a_log_that_is_deleted_while_it_is_open_costs_nothing(path):
    outbox = opened(path)
    answers = fill(outbox, 10)
    path.with_name("outbox.db-wal").unlink()
    answers += fill(outbox, 1, first=11)
    outbox.close_all()
    assert counted(outbox) == answers
    outbox.close()
    assert counted(opened(path)) == answers


def test_a_file_that_was_gone_at_the_start_is_reported(path):
    outbox = opened(path)
    fill(outbox, 3)
    outbox.close()
    path.unlink()
    (lost,) = losses(opened(path))
    assert lost["why"] == "outbox.db was gone"
    fresh = opened(path.with_name("new.db"))
    assert losses(fresh) == []


def test_a_row_that_is_no_record_does_not_keep_the_others_from_being_sent(path):
    outbox = opened(path)
    fill(outbox, 5)
    outbox.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE buf SET body=x'ff00' WHERE lo=2 AND stream LIKE 'inference/%'")
        db.execute("UPDATE buf SET hi=hi+2 WHERE lo=3 AND stream LIKE 'drift/%'")
        db.commit()
    outbox = opened(path)
    rows = ready(outbox)
    assert len(rows) == 8
    (lost,) = losses(outbox)
    assert lost["why"] == "2 records could not be read"
    assert sorted(window[2:] for window in lost["windows"]) == [[2, 2], [3, 5]]
    assert all(record.part == FINAL for record in rows)


def test_what_was_saved_of_a_broken_file_is_not_counted_again_by_a_runner_that_repeats_itself(path):
    outbox = opened(path)
    fill(outbox, 50)
    outbox.close()
    with closing(sqlite3.connect(path)) as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    damage(path, pages - 5)
    outbox = opened(path)
    use(outbox)
    before = counted(outbox)
    outbox.commit_take(take(50, 30, rows=30), 99.0, 99)
    outbox.close_all()
    assert counted(outbox) == before
