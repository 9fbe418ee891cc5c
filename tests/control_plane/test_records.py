"""Stored records: each count once, in whatever order and however often they arrive."""

import itertools
import random
import sqlite3
import threading
from dataclasses import replace

import pytest
import sqlite_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.store.migrations import m0004_records
from control_plane.store.records import Gap, Ingested, Records
from protocol.codec import encode, to_wire
from protocol.reported import ReportedState
from protocol.telemetry import (
    EVENT_STREAM,
    FINAL,
    STATE_STREAM,
    Body,
    DriftWindow,
    EventWindow,
    InferenceWindow,
    Record,
    StreamAck,
    merge_bodies,
    merge_records,
    stream_name,
)
from tests.fakes.receiver import RecordsFile
from tests.fakes.telemetry import DEVICE, MANIFEST, PROFILE, drift, inference

INFERENCE = stream_name("inference", MANIFEST, PROFILE)
DRIFT = stream_name("drift", MANIFEST, PROFILE)


@pytest.fixture
def file(tmp_path):
    opened = RecordsFile(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def records(file):
    return Records(file.connection)


def window(lo: int, n: int = 1, *, part: int = FINAL, epoch: int = 1, at: int = 0) -> Record:
    return Record(epoch, INFERENCE, lo, lo, n, to_wire(inference(n, mark=n)), part, at, at)


def of(stream: str, lo: int, n: int, body: Body, *, at: int = 0) -> Record:
    return Record(1, stream, lo, lo, n, to_wire(body), FINAL, at, at)


def put(records: Records, *some: Record, device: str = DEVICE) -> Ingested:
    return records.ingest(device, [(record, encode(record.b).decode()) for record in some])


def block(lo: int, size: int) -> Record:
    return merge_records([window(number, number + 1) for number in range(lo, lo + size)])


@pytest.mark.parametrize(
    "arrivals, total, rows",
    [
        ([window(0, 5), window(0, 5)], 5, 1),
        ([window(0, 5, part=1), window(0, 9, part=2)], 9, 1),
        ([window(0, 9, part=2), window(0, 5, part=1)], 9, 1),
        ([window(0, 5, part=1), window(0, 9)], 9, 1),
        ([window(0, 9), window(0, 5, part=1)], 9, 1),
        ([window(0, 1), window(1, 2), block(0, 2)], 3, 2),
        ([block(0, 2), window(0, 1), window(1, 2)], 3, 1),
        ([window(0, 1), block(0, 2), window(1, 2)], 3, 1),
        ([window(1, 2), block(0, 2), block(0, 4), block(2, 2)], 10, 1),
        ([block(0, 2), block(2, 2), block(0, 4)], 10, 2),
        ([block(0, 8), block(8, 8), block(16, 8), block(0, 24)], 300, 3),
        ([window(0, 5), window(0, 5, epoch=2)], 10, 2),
    ],
)
def test_a_record_is_covered_or_replaces_what_it_contains(file, records, arrivals, total, rows):
    for record in arrivals:
        put(records, record)
    assert records.answers() == total
    assert file.connection().execute("SELECT count(*) FROM record").fetchone() == (rows,)


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """Everything one epoch may ever send: windows, prefixes of them, and nested blocks."""
    count = draw(st.integers(1, 24))
    ns = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    final = [window(lo, n) for lo, n in enumerate(ns)]
    sent = list(final)
    for lo, n in enumerate(ns):
        if draw(st.booleans()):
            sent.append(window(lo, n // 2, part=1))
    for size in (2, 4, 8, 24):
        for lo in range(0, count - size + 1, size):
            if draw(st.booleans()):
                sent.append(merge_records(final[lo : lo + size]))
    return sent


def in_memory() -> Records:
    db = sqlite3.connect(":memory:", isolation_level=None)
    m0004_records.migrate(sqlite_utils.Database(db))
    return Records(lambda: db)


@settings(max_examples=60, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_order_and_repetition_of_arrivals_do_not_matter(history, rng):
    records = in_memory()
    arrivals = history + rng.choices(history, k=len(history))
    rng.shuffle(arrivals)
    for start in range(0, len(arrivals), 5):
        put(records, *arrivals[start : start + 5])
    expected = sum(r.n for r in history if r.part == FINAL and r.lo == r.hi)
    assert records.answers() == expected
    (merged,) = records.inference(MANIFEST, PROFILE, {"all": [DEVICE]}, classes=3).values()
    assert merged.body.answers == merged.body.refused == expected
    last = max(r.hi for r in history)
    ack = records.coverage(DEVICE, 1, INFERENCE, [(0, last)])
    assert ack.have == ack.safe == ((0, last),)
    assert records.conflicts() == 0


@st.composite
def bodies(draw: st.DrawFn) -> list[Body]:
    n = draw(st.integers(1, 6))
    if draw(st.booleans()):
        return [inference(draw(st.integers(0, 99)), mark=k) for k in range(n)]
    return [drift(draw(st.integers(0, 99))) for _ in range(n)]


@given(bodies(), st.randoms(use_true_random=False))
def test_windows_merge_in_any_order_and_grouping(windows, rng):
    whole = list(itertools.accumulate(windows, merge_bodies))[-1]
    pool = list(windows)
    while len(pool) > 1:
        rng.shuffle(pool)
        pool.append(merge_bodies(pool.pop(), pool.pop()))
    assert pool == [whole]


def test_coverage_is_what_is_stored_and_safe_only_what_a_backup_has(records):
    records.mark_backup(0)
    put(records, window(0), window(1), window(4, 7, part=3))
    records.mark_backup(records.ingest_number())
    put(records, window(2), window(5, 7, part=1))
    ack = records.coverage(DEVICE, 1, INFERENCE, [(0, 9)])
    assert ack == StreamAck(1, INFERENCE, ((0, 2),), ((0, 1),), ((4, 3, True), (5, 1, False)))


def test_without_backups_what_is_stored_is_safe(records):
    put(records, window(0))
    assert records.coverage(DEVICE, 1, INFERENCE, [(0, 0)]).safe == ((0, 0),)


def test_coverage_answers_the_windows_it_is_asked_for_first(records):
    put(records, *(window(lo) for lo in range(0, 100, 2)))
    ack = records.coverage(DEVICE, 1, INFERENCE, [(0, 0), (90, 98)])
    assert len(ack.have) == 16
    assert {(0, 0), (90, 90), (98, 98)} <= set(ack.have)


def test_coverage_starts_with_the_block_that_holds_the_first_window(records):
    put(records, block(0, 8))
    assert records.coverage(DEVICE, 1, INFERENCE, [(5, 5)]).have == ((0, 7),)
    assert records.coverage("local-other", 1, INFERENCE, [(5, 5)]).have == ()


def test_one_window_with_two_contents_is_a_conflict_and_the_first_stays(records):
    put(records, window(0, 5))
    assert put(records, window(0, 6)).conflicts == 1
    assert put(records, window(0, 6)).conflicts == 1
    assert records.conflicts(DEVICE) == 2
    assert records.conflicts("local-other") == 0
    assert records.answers() == 5


def test_retired_windows_count_as_covered_and_late_copies_are_refused(records):
    put(records, *(window(lo) for lo in range(4)))
    assert records.retire(DEVICE, 1, INFERENCE, 2) == 3
    assert put(records, window(1)) == Ingested(late=1)
    assert records.answers() == 1
    assert records.coverage(DEVICE, 1, INFERENCE, [(0, 3)]).have == ((0, 3),)


def test_a_rolled_back_ingest_leaves_nothing(records):
    def fail_after_storing():
        with records.transaction():
            put(records, window(0, 5))
            raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError):
        fail_after_storing()
    assert records.answers() == 0
    assert records.ingest_number() == 0


def test_holes_are_pending_while_the_device_holds_them_and_lost_after(records):
    put(records, window(2), window(5), window(7, epoch=9))
    assert {gap.lost for gap in records.gaps(DEVICE)} == {False}
    records.note_held(DEVICE, [(1, INFERENCE, 3, 6)], 1)
    assert records.gaps(DEVICE) == [
        Gap(1, INFERENCE, 0, 1, True),
        Gap(1, INFERENCE, 3, 4, False),
        Gap(9, INFERENCE, 0, 6, True),
    ]
    records.note_held(DEVICE, [(1, INFERENCE, 4, 6)], 1)
    assert Gap(1, INFERENCE, 3, 3, True) in records.gaps(DEVICE)


def test_what_a_device_held_and_never_brought_is_lost_once_it_holds_it_no_more(records):
    put(records, window(0))
    records.note_held(DEVICE, [(1, INFERENCE, 0, 4), (2, DRIFT, 0, 2), (2, STATE_STREAM, 0, 9)], 1)
    assert records.gaps(DEVICE) == []
    records.note_held(DEVICE, [(3, INFERENCE, 0, 0)], 2)
    lost = [Gap(1, INFERENCE, 1, 4, True), Gap(2, DRIFT, 0, 2, True)]
    assert records.gaps(DEVICE) == lost
    records.note_held(DEVICE, [(3, INFERENCE, 0, 1)], 3)
    assert records.gaps(DEVICE) == lost
    # A stick, or a queue, may still fill it.
    put(records, window(1), window(2, part=7), window(3), window(4))
    assert records.gaps(DEVICE) == lost[1:]
    records.note_held(DEVICE, [], 4)
    assert records.gaps(DEVICE) == [*lost[1:], Gap(3, INFERENCE, 0, 1, True)]


def test_what_was_stored_or_retired_before_it_was_deleted_is_no_loss(records):
    put(records, window(0), window(1), window(0, epoch=2))
    records.note_held(DEVICE, [(1, INFERENCE, 0, 1), (2, INFERENCE, 0, 3)], 1)
    records.retire(DEVICE, 2, INFERENCE, 3)
    records.note_held(DEVICE, [], 2)
    assert records.gaps(DEVICE) == []


def test_a_capped_list_of_what_is_held_proves_no_loss(records):
    put(records, window(2))
    records.note_held(DEVICE, [(epoch, INFERENCE, 0, 0) for epoch in range(500)], 1)
    assert records.gaps(DEVICE) == [Gap(1, INFERENCE, 0, 1, False)]


def test_the_newest_state_is_that_of_the_highest_order(records):
    for lo, order in enumerate((5, 9, 7)):
        put(records, of(STATE_STREAM, lo, 1, ReportedState(order=order, agent=f"a{order}")))
    other = ReportedState(order=1, agent="b")
    put(records, of(STATE_STREAM, 0, 1, other), device="local-other")
    states = records.newest_states()
    assert {device: state.agent for device, state in states.items()} == {
        DEVICE: "a9", "local-other": "b",
    }  # fmt: skip
    assert records.newest_state("local-unknown") is None


def test_totals_are_sums_over_devices_and_variants(records):
    other = "sha256-" + "d" * 64
    put(records, window(0, 5), window(1, 6))
    stream = stream_name("inference", other, PROFILE)
    put(records, of(stream, 0, 3, inference(3, manifest=other)), of(DRIFT, 0, 8, drift(8)))
    put(records, window(0, 7), device="local-other")
    assert records.answers_by_device() == {DEVICE: 14, "local-other": 7}
    assert records.answers_by_device([MANIFEST]) == {DEVICE: 11, "local-other": 7}
    assert records.answers([DEVICE], [other]) == 3
    assert records.answers([], [other]) == 0
    assert records.stored(DEVICE) == {"drift": 8, "inference": 14}


def test_windows_of_inputs_are_merged_per_device_and_time(records):
    put(records, of(DRIFT, 0, 10, drift(10), at=1000), of(DRIFT, 1, 20, drift(20), at=2000))
    put(records, of(DRIFT, 0, 40, drift(40), at=3000), device="local-b")
    odd = DriftWindow(MANIFEST, PROFILE, 9, ((9,),))
    other = DriftWindow(MANIFEST, PROFILE, 9, drift(9).counts, residual=(9,))
    put(records, of(DRIFT, 1, 9, odd), of(DRIFT, 2, 9, other), device="local-b")
    merged = dict(records.drift_by_device(MANIFEST, PROFILE, slots=(4, 4)))
    assert {name: (m.body.rows, m.windows, m.devices, m.unfit) for name, m in merged.items()} == {
        DEVICE: (30, 2, 1, 0),
        "local-b": (40, 1, 1, 2),
    }
    assert merged[DEVICE].body.counts == ((0, 30, 0, 0), (30, 0, 0, 0))
    span = {"since_ms": 1500, "until_ms": 2500}
    ((device, later),) = records.drift_by_device(MANIFEST, PROFILE, slots=(4, 4), **span)
    assert (device, later.body.rows) == (DEVICE, 20)
    (_, whole), _ = records.drift_by_device(MANIFEST, PROFILE, slots=(4, 4), residual=1)
    assert (whole.body.residual, whole.unfit) == ((9,), 1)


def test_answers_are_merged_per_group_of_devices(records):
    put(records, window(0, 5, at=1000), window(1, 6, at=2000))
    put(records, window(0, 7), device="local-b")
    odd = replace(inference(9), classes=(9,), score=(1, 2))
    put(records, of(INFERENCE, 1, 9, odd), device="local-b")
    groups = {"site=a": [DEVICE], "site=b": ["local-b"], "site=c": ["local-c"]}
    merged = records.inference(MANIFEST, PROFILE, groups, classes=3)
    assert {n: (m.body.answers, m.windows, m.devices, m.unfit) for n, m in merged.items()} == {
        "site=a": (11, 2, 1, 0),
        "site=b": (7, 1, 1, 1),
        "site=c": (0, 0, 0, 0),
    }
    merged = records.inference(MANIFEST, PROFILE, groups)
    assert (merged["site=b"].body.answers, merged["site=b"].unfit) == (16, 0)
    assert merged["site=b"].body.classes == merged["site=b"].body.score == ()
    (later,) = records.inference(MANIFEST, PROFILE, {"a": [DEVICE]}, since_ms=1500).values()
    assert later.body.answers == 6


def test_windows_and_events_of_a_device_come_in_order_of_time(records):
    put(records, window(1, 6, at=20), window(0, 5, at=10), of(DRIFT, 0, 8, drift(8), at=15))
    event = EventWindow({"OUT-D201": 2, "committed": 1}, {"committed": {"number": 4}})
    put(records, of(EVENT_STREAM, 0, 3, event, at=30))
    found = records.windows(DEVICE)
    assert [(w.stream.split("/")[0], w.n, w.final) for w in found] == [
        ("inference", 5, True), ("drift", 8, True), ("inference", 6, True),
    ]  # fmt: skip
    assert isinstance(found[0].body, InferenceWindow)
    assert [w.n for w in records.windows(DEVICE, since_ms=15, until_ms=18)] == [8]
    assert [(e.code, e.count) for e in records.events()] == [("OUT-D201", 2), ("committed", 1)]
    (committed,) = records.events(DEVICE, code="committed")
    assert committed.detail == {"number": 4}
    assert records.events("local-other") == []


def test_a_random_history_gives_the_same_totals_through_two_connections(file, tmp_path):
    """Two ingesters on one file: the write lock puts them in some order, and any will do."""
    arrivals = [window(lo, lo + 1) for lo in range(24)] + [block(0, 24), block(0, 8)]
    failures = []

    def ingest(seed: int) -> None:
        try:
            mine = Records(file.connection)
            shuffled = arrivals * 2
            random.Random(seed).shuffle(shuffled)
            for record in shuffled:
                put(mine, record)
        except sqlite3.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=ingest, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Records(file.connection).answers() == 300
