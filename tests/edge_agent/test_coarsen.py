"""Merging windows for room: only whole aligned blocks, and nothing but resolution is lost."""

import random
import sqlite3
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.buffer import Outbox
from edge_agent.coarsen import COUNTS, EVENTS, Block, complete, merged, plan
from protocol.errors import Unavailable
from protocol.telemetry import (
    BLOCKS,
    FINAL,
    EventWindow,
    InferenceWindow,
    Record,
    StreamAck,
    read_body,
)
from tests.fakes.telemetry import Counts, Take, drift, inference

INFERENCE = "inference/" + "a" * 16 + "/" + "b" * 16
DRIFT = "drift/" + "a" * 16 + "/" + "b" * 16
EVENT = "events/-/-"
STATE = "state/-/-"


def key(lo, hi=None, *, epoch=1, stream=INFERENCE, part=FINAL, at=None):
    return (epoch, stream, lo, lo if hi is None else hi, part, lo if at is None else at)


def ranges(keys, kinds=COUNTS, most=100):
    found = plan(lambda: sorted(keys), kinds, most)
    return [(block.epoch, block.stream.split("/")[0], block.lo, block.hi) for block in found]


PLANS = {
    "two neighbours of one block": ([key(0), key(1)], [(1, "inference", 0, 1)]),
    "neighbours of two blocks": ([key(1), key(2)], []),
    "a window is missing": ([key(0), key(1, at=0), key(3)], [(1, "inference", 0, 1)]),
    "one is open": ([key(0), key(1, part=3)], []),
    "two epochs": ([key(0), key(1, epoch=2)], []),
    "two streams": ([key(0), key(1, stream=DRIFT)], []),
    "states never": ([key(0, stream=STATE), key(1, stream=STATE)], []),
    "events are not asked for": ([key(0, stream=EVENT), key(1, stream=EVENT)], []),
    "the finest level first": (
        [key(0, 1), key(2, 3), key(8), key(9)],
        [(1, "inference", 8, 9)],
    ),
    "then the next level": ([key(0, 1), key(2, 3)], [(1, "inference", 0, 3)]),
    "the oldest block first": (
        [key(0, at=7), key(1, at=8), key(4, epoch=2, at=3), key(5, epoch=2, at=4)],
        [(2, "inference", 4, 5), (1, "inference", 0, 1)],
    ),
    "24 of 8": ([key(0, 7), key(8, 15), key(16, 23)], [(1, "inference", 0, 23)]),
    "8 and its rests": (
        [key(0, 7), key(8, 11), key(12), key(13), key(14, 15)],
        [(1, "inference", 12, 13)],
    ),
    "no level above the last": ([key(0, 1343), key(1344, 2687)], []),
}


@pytest.mark.parametrize("name", PLANS)
def test_what_is_merged_next(name):
    keys, expected = PLANS[name]
    assert ranges(keys) == expected


def test_events_are_merged_only_when_they_are_asked_for():
    keys = [key(0, stream=EVENT), key(1, stream=EVENT), key(0), key(1)]
    assert ranges(keys, EVENTS) == [(1, "events", 0, 1)]


def test_what_does_not_fit_is_passed_over_and_does_not_hide_the_rest():
    keys = [key(0), key(1), key(4, 5), key(6, 7)]
    block = Block(1, INFERENCE, 0, 1, 0)
    found = plan(lambda: iter(keys), COUNTS, 10, {block})
    assert [(each.lo, each.hi) for each in found] == [(4, 7)]


def test_a_block_of_too_many_kinds_of_events_is_not_made():
    events = [EventWindow({f"OUT-X{n + 40 * half}": 1 for n in range(40)}) for half in (0, 1)]
    with pytest.raises(ValueError, match="80 kinds"):
        merged(events)
    assert merged([inference(3), inference(4)]) == inference(7)


@st.composite
def histories(draw):
    """Keys that one epoch can have: any blocks of a prefix, with holes and an open window."""
    keys, lo = [], 0
    for _ in range(draw(st.integers(0, 40))):
        fitting = [size for size in BLOCKS[:5] if lo % size == 0]
        size = draw(st.sampled_from(fitting))
        if draw(st.integers(0, 9)):
            keys.append(key(lo, lo + size - 1))
        lo += size
    return keys


@given(histories())
def test_merging_to_the_end_leaves_few_rows_and_never_overlaps(keys):
    rows = {(row[2], row[3]) for row in keys}
    windows = {w for lo, hi in rows for w in range(lo, hi + 1)}
    whole = windows == set(range(len(windows)))

    def now():
        return [key(lo, hi) for lo, hi in sorted(rows)]

    while blocks := plan(now, COUNTS, 3):
        for block in blocks:
            inside = {row for row in rows if block.lo <= row[0] and row[1] <= block.hi}
            assert sum(hi - lo + 1 for lo, hi in inside) == block.hi - block.lo + 1
            assert (block.hi - block.lo + 1) in BLOCKS
            assert block.lo % (block.hi - block.lo + 1) == 0
            rows -= inside
            rows.add((block.lo, block.hi))
    assert {w for lo, hi in rows for w in range(lo, hi + 1)} == windows
    if whole:
        # One level after the other, fewer than the next one takes; and one per eight weeks.
        assert len(rows) <= 18 + len(windows) // BLOCKS[-1]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=24, max_size=24))
def test_coarsening_keeps_labelled_and_correct(labels):
    windows = [replace(inference(3), labelled=a + b, correct=a) for a, b in labels]
    by_eight = [merged(windows[lo : lo + 8]) for lo in (0, 8, 16)]
    day = merged(by_eight)
    assert day == merged(windows)
    assert isinstance(day, InferenceWindow)
    assert day.correct == sum(a for a, _ in labels)
    assert day.labelled == sum(a + b for a, b in labels)


def test_a_year_of_hours_in_one_epoch_ends_as_eleven_rows():
    rows = [(lo, lo) for lo in range(8760)]
    for size in BLOCKS[1:]:
        blocks = list(complete((key(lo, hi) for lo, hi in rows), COUNTS, size))
        inside = {window for b in blocks for window in range(b.lo, b.hi + 1)}
        rest = [row for row in rows if row[0] not in inside]
        rows = sorted([*rest, *((b.lo, b.hi) for b in blocks)])
    assert [hi - lo + 1 for lo, hi in rows] == [1344] * 6 + [168] * 4 + [24]


# --- the real outbox ------------------------------------------------------------------------------


class Device:
    """An outbox of a device that goes through anything, and what it ever emitted."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.path = folder / "outbox.db"
        self.limit_bytes = limit_bytes
        self.rng = random.Random(7)
        self.seq = 0
        self.answers = self.rows = self.events = 0
        self.acked: dict[str, int] = defaultdict(int)
        self.emitted: dict[tuple[int, str], set[tuple[int, int]]] = defaultdict(set)
        self.opens = 0
        self.open()

    def open(self) -> None:
        self.opens += 1
        self.outbox = Outbox(
            self.path,
            rng=random.Random(self.rng.getrandbits(64)),
            limit_bytes=self.limit_bytes,
            window_s=0.0,
            min_window_n=0,
            synchronous="OFF",
        )
        self.outbox.state()

    def commit(self, windows: int) -> None:
        for _ in range(windows):
            self.seq += 1
            answers = self.rng.choice((0, 5, 19, 20, 60))
            self.take(answers)
            with suppress(Unavailable):
                self.outbox.close_due(self.seq)

    def take(self, answers: int) -> None:
        """What the outbox refuses has not happened: the runner keeps it."""
        counts = Counts(inference(answers, mark=1), drift(answers))
        with suppress(Unavailable):
            self.outbox.commit_take(Take(f"r{self.opens}", self.seq, (counts,)), self.seq, self.seq)
            self.answers += answers
            self.rows += answers

    def leave_open(self) -> None:
        """The process dies with a window open: it stays a partial one."""
        self.seq += 1
        self.take(30)
        self.restart()

    def happen(self) -> None:
        with suppress(Unavailable):
            self.outbox.put_event("OUT-D201", {"seq": self.seq}, self.seq)
            self.events += 1

    def restart(self) -> None:
        self.outbox.close()
        self.open()

    def resize(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.outbox.resize(limit_bytes)
        with suppress(Unavailable):
            self.outbox.close_due(self.seq)

    def emit(self) -> list[Record]:
        rows = self.outbox.sendable(lambda _: False, records=10**6, body_bytes=10**9)
        for row in rows:
            self.emitted[row.e, row.s].add((row.lo, row.hi))
        return rows

    def acknowledge(self, share: float) -> None:
        """The control plane has the first part of what could be sent."""
        rows = self.emit()
        stored = rows[: int(len(rows) * share)]
        acks: dict[tuple[int, str], list[Record]] = defaultdict(list)
        for row in stored:
            acks[row.e, row.s].append(row)
        before = {(r.e, r.s, r.lo): r for r in rows}
        for (epoch, stream), some in acks.items():
            safe = tuple((r.lo, r.hi) for r in some if r.part == FINAL)[:16]
            parts = tuple((r.lo, r.part, True) for r in some if r.part != FINAL)[:16]
            self.outbox.delete_safe([StreamAck(epoch, stream, safe, safe, parts)])
        after = {(r.e, r.s, r.lo) for r in self.emit()}
        for name, row in before.items():
            if name not in after:
                self.acked[row.kind] += row.n

    def held(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.path)) as db:
            rows = db.execute("SELECT stream, sum(n) FROM buf GROUP BY stream").fetchall()
        return {stream.split("/")[0]: n for stream, n in rows}

    def check(self) -> None:
        held = self.held()
        assert held.get("inference", 0) + self.acked["inference"] == self.answers
        assert held.get("drift", 0) + self.acked["drift"] == self.rows
        assert held.get("events", 0) + self.acked["events"] == self.events
        for row in self.emit():
            if row.kind == "inference":
                assert row.b.get("answers", 0) == row.n
        for emitted in self.emitted.values():
            around: list[int] = []
            for lo, hi in sorted(emitted, key=lambda each: (each[0], -each[1])):
                while around and around[-1] < lo:
                    around.pop()
                assert not around or hi <= around[-1], "nested or disjoint"
                around.append(hi)

    def totals(self) -> int:
        rows = self.emit()
        return sum(r.b.get("refused", 0) for r in rows if r.kind == "inference")


STEPS = {
    "commit": lambda d: d.commit(7),
    "commit many": lambda d: d.commit(25),
    "leave open": Device.leave_open,
    "happen": Device.happen,
    "restart": Device.restart,
    "tight": lambda d: d.resize(100_000),
    "wide": lambda d: d.resize(4_000_000),
    "acknowledge some": lambda d: d.acknowledge(0.3),
    "acknowledge all": lambda d: d.acknowledge(1.0),
}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_every_count_is_kept_whatever_happens_and_ranges_are_nested_or_disjoint(steps):
    with TemporaryDirectory() as folder:
        device = Device(Path(folder), 130_000)
        for step in steps:
            STEPS[step](device)
            device.check()
        device.outbox.close()


def test_totals_are_those_of_the_windows_that_were_merged(tmp_path):
    device = Device(tmp_path, 150_000)
    device.commit(400)
    assert device.outbox.state().merged > 0
    assert device.totals() == 400
    whole = merged(read_body(row) for row in device.emit() if row.kind == "inference")
    assert isinstance(whole, InferenceWindow)
    assert whole.answers == whole.rows == device.answers
    device.outbox.close()


def test_deleting_stops_at_the_first_block_that_is_not_safe(tmp_path):
    device = Device(tmp_path, 150_000)
    device.commit(300)
    rows = sorted((r for r in device.emit() if r.kind == "inference"), key=lambda r: r.lo)
    assert rows[0].hi > rows[0].lo
    first = rows[0]
    short = ((first.lo, first.hi - 1),)
    assert device.outbox.delete_safe([StreamAck(first.e, first.s, short, short)]) == 0
    later = ((rows[1].lo, rows[-1].hi),)
    assert device.outbox.delete_safe([StreamAck(first.e, first.s, later, later)]) == 0
    exact = ((first.lo, first.hi),)
    assert device.outbox.delete_safe([StreamAck(first.e, first.s, exact, exact)]) == 1
    device.outbox.close()
