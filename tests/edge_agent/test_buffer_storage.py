"""The outbox when its storage is full, damaged, missing, locked, or killed in the middle."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.buffer import Outbox
from protocol.errors import Unavailable
from protocol.reported import ReportedState
from protocol.telemetry import EventWindow, Record, read_body
from tests.fakes.telemetry import Counts, Take, drift, inference, take

STATE = ReportedState(order=0, agent="0.1.0")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


def opened(path: Path, **changes) -> Outbox:
    settings = {"window_s": 3600.0, "min_window_n": 50, "limit_bytes": 32_000_000}
    return Outbox(path, rng=random.SystemRandom(), **(settings | changes))


def ready(outbox: Outbox) -> list[Record]:
    return outbox.sendable(lambda _: False, records=10_000, body_bytes=10**9)


def counted(outbox: Outbox) -> int:
    return sum(record.n for record in ready(outbox) if record.kind == "inference")


def test_a_full_buffer_gives_up_resolution_then_histograms_and_states_but_no_count(path):
    limit = 350_000
    often = {"limit_bytes": limit, "window_s": 0.0, "min_window_n": 0, "synchronous": "OFF"}
    outbox = opened(path, **often)
    total = 0
    for seq in range(1, 201):
        # Restarted again and again, so that most windows are alone in their epoch.
        if seq <= 100 or seq % 2 == 0:
            outbox.close()
            outbox = opened(path, **often)
        wide = replace(drift(40), counts=((10, 10, 10, 10),) * 60)
        outbox.commit_take(Take("r", seq, (Counts(inference(40), wide),)), float(seq), seq)
        outbox.put_state(STATE, seq)
        outbox.close_due(float(seq))
        total += 40
        assert outbox.state().bytes <= limit
    everything = outbox.sendable(lambda _: False, records=10**6, body_bytes=10**9)
    assert sum(r.n for r in everything if r.kind == "inference") == total
    assert sum(r.n for r in everything if r.kind == "drift") == total
    assert outbox.state().merged > 50
    assert outbox.state().thinned > 50
    newest = max(everything, key=lambda r: r.t0)
    assert max((r for r in everything if r.kind == "drift"), key=lambda r: r.t0).b["counts"]
    assert any(r.kind == "state" and r.t0 == newest.t0 for r in everything)


def test_a_buffer_that_cannot_take_more_says_so_and_leaves_the_counts_with_the_runner(path):
    outbox = opened(path, limit_bytes=120_000, window_s=0.0, min_window_n=0)
    seq = 0

    def go_on():
        nonlocal seq
        while True:
            seq += 1
            outbox.commit_take(take(seq, 40), float(seq), seq)
            outbox.close_due(float(seq))

    with pytest.raises(Unavailable) as failure:
        go_on()
    assert failure.value.code == "OUT-D501"
    assert outbox.problem is not None
    assert outbox.problem[0] == "OUT-D501"
    assert outbox.acknowledged("r-1") in (seq - 1, seq)
    outbox.resize(4_000_000)
    outbox.commit_take(take(seq, 40), float(seq), seq)
    outbox.close_all()
    assert counted(outbox) == outbox.answers == seq * 40
    assert outbox.problem is None


def test_a_damaged_file_is_set_aside_and_its_loss_reported(path):
    opened(path).commit_take(take(1, 30), 0.0, 1)
    path.write_bytes(b"no database" * 1000)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    outbox = opened(path)
    outbox.commit_take(take(1, 30), 0.0, 1)
    outbox.put_state(STATE, 2)
    outbox.put_state(STATE, 3)
    assert outbox.problem is not None
    assert outbox.problem[0] == "OUT-D503"
    assert path.with_name("outbox.db.broken").read_bytes().startswith(b"no database")
    events = [read_body(r) for r in ready(outbox) if r.kind == "events"]
    assert [list(event.counts) for event in events if isinstance(event, EventWindow)] == [
        ["OUT-D503"]
    ]


def test_damage_found_while_running_starts_afresh_instead_of_crashing(path):
    outbox = opened(path, window_s=0.0, min_window_n=0)
    for seq in range(1, 200):
        outbox.commit_take(take(seq, 30), float(seq), seq)
        outbox.close_due(float(seq))
    outbox.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    seen = set()
    for _ in range(3):
        try:
            outbox.commit_take(take(500, 30), 0.0, 1)
        except Unavailable as error:
            seen.add(error.code)
    assert seen <= {"OUT-D502"}
    assert outbox.acknowledged("r-1") == 500


def test_a_folder_that_is_missing_is_an_unavailable_buffer_and_then_works(tmp_path):
    outbox = opened(tmp_path / "later" / "outbox.db")
    with pytest.raises(Unavailable) as failure:
        outbox.commit_take(take(1, 30), 0.0, 1)
    assert failure.value.code == "OUT-D502"
    assert outbox.problem is not None
    assert outbox.problem[0] == "OUT-D502"
    assert (outbox.state().records, outbox.answers) == (0, 0)
    (tmp_path / "later").mkdir()
    outbox.commit_take(take(1, 30), 0.0, 1)
    assert outbox.answers == 30


def test_a_locked_file_is_unavailable_and_nothing_has_happened(path, monkeypatch):
    outbox = opened(path)
    outbox.commit_take(take(1, 30), 0.0, 1)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **(k | {"timeout": 0.0})))
    outbox.close()
    other = real(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable):
        outbox.commit_take(take(2, 5), 0.0, 1)
    other.execute("ROLLBACK")
    outbox.commit_take(take(2, 5), 0.0, 1)
    assert outbox.answers == 35
    outbox.close_all()
    assert counted(outbox) == 35


def test_a_file_of_a_newer_agent_is_left_alone(path):
    opened(path).put_state(STATE, 1)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(Unavailable, match="newer agent"):
        opened(path).put_state(STATE, 2)


WRITER = """
import sys, pathlib
from edge_agent.buffer import Outbox
from tests.fakes.telemetry import take
outbox = Outbox(pathlib.Path(sys.argv[1]), window_s=0.0, min_window_n=0)
seq = outbox.acknowledged("r-1")
while True:
    seq += 1
    outbox.commit_take(take(seq, seq), float(seq), seq)
    outbox.close_due(float(seq))
    print(seq, flush=True)
"""


def test_kill_nine_of_a_writer_loses_nothing_that_was_committed(path):
    root = Path(__file__).parent.parent.parent
    confirmed = 0
    for lines in (3, 11, 7):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=root,
            text=True,
        )
        assert writer.stdout is not None
        for _ in range(lines):
            confirmed = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        # What it left behind, WAL included, as a power-on would find it.
        copy = path.with_name("copy.db")
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                shutil.copy(source, copy.with_name(copy.name + suffix))
        outbox = opened(copy)
        last = outbox.acknowledged("r-1")
        assert last >= confirmed
        assert counted(outbox) == outbox.answers == last * (last + 1) // 2
        outbox.close()
        for leftover in path.parent.glob("copy.db*"):
            leftover.unlink()
