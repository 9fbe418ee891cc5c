"""The outbox: counted once, durable, honest about a storage that fails."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.buffer import Outbox
from protocol.reported import Outcome, ReportedState
from protocol.telemetry import (
    EVENT_STREAM,
    FINAL,
    STATE_STREAM,
    EventWindow,
    InferenceWindow,
    Record,
    StreamAck,
    read_body,
)
from tests.fakes.telemetry import BUNDLE, MANIFEST, MODEL, Counts, Take, drift, inference, take

STATE = ReportedState(order=0, agent="0.1.0")
OUTCOME = Outcome(3, MODEL, BUNDLE, "rolled_back", "OUT-D310", "confidence 0.31, was 0.97")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


def opened(path: Path, **changes) -> Outbox:
    settings = {"window_s": 3600.0, "min_window_n": 50, "limit_bytes": 32_000_000}
    return Outbox(path, rng=random.Random(os.urandom(8)), **(settings | changes))


def ready(outbox: Outbox) -> list[Record]:
    return outbox.sendable(lambda _: False, records=500, body_bytes=10_000_000)


def counted(outbox: Outbox) -> int:
    return sum(record.n for record in ready(outbox) if record.kind == "inference")


def test_a_take_is_counted_once_however_often_it_comes(path):
    outbox = opened(path)
    for _ in range(3):
        outbox.commit_take(take(1, 30), 0.0, 1000)
    outbox.commit_take(take(2, 5), 1.0, 2000)
    outbox.commit_take(take(1, 30), 2.0, 3000)
    assert outbox.acknowledged("r-1") == 2
    assert outbox.answers == 35
    outbox.close_all()
    assert counted(outbox) == 35


def test_a_restarted_agent_knows_which_takes_it_has(path):
    opened(path).commit_take(take(4, 30), 0.0, 1000)
    again = opened(path)
    assert again.acknowledged("r-1") == 4
    again.commit_take(take(4, 30), 0.0, 2000)
    assert again.answers == 30
    assert again.acknowledged("r-2") == 0


def test_an_open_window_is_not_sendable_until_it_closes_or_its_agent_is_gone(path):
    outbox = opened(path)
    outbox.commit_take(take(1, 60), 0.0, 1000)
    assert ready(outbox) == []
    (partial,) = ready(opened(path))
    assert (partial.part, partial.lo, partial.n) == (1, 0, 60)
    outbox.close_due(3600.0)
    (final,) = ready(outbox)
    assert (final.part, final.lo, final.n) == (FINAL, 0, 60)


@pytest.mark.parametrize(
    "age_s, answers, closes",
    [
        (3599.0, 1000, False),
        (3600.0, 49, False),
        (3600.0, 50, True),
        (90000.0, 1, False),
    ],
)
def test_a_window_closes_when_it_is_old_enough_and_full_enough(path, age_s, answers, closes):
    outbox = opened(path)
    outbox.commit_take(take(1, answers), 0.0, 1000)
    outbox.close_due(age_s)
    assert bool(ready(outbox)) is closes


def test_windows_of_a_stream_are_numbered_from_zero_in_each_epoch(path):
    outbox = opened(path, min_window_n=0, window_s=0.0)
    for seq in (1, 2, 3):
        outbox.commit_take(take(seq, 30, rows=40), float(seq), seq)
        outbox.close_due(float(seq))
    numbers = [(r.kind, r.lo, r.n) for r in sorted(ready(outbox), key=lambda r: (r.s, r.lo))]
    assert numbers == [
        (kind, lo, n) for kind, n in (("drift", 40), ("inference", 30)) for lo in range(3)
    ]
    assert len({r.e for r in ready(outbox)}) == 1
    again = opened(path, min_window_n=0, window_s=0.0)
    again.commit_take(take(1, 30, runner="r-2"), 9.0, 9)
    again.close_all()
    newest = ready(again)[-1]
    assert newest.lo == 0
    assert newest.e not in {r.e for r in ready(outbox)[:-1]}


def test_every_checkpoint_of_an_open_window_is_a_higher_part(path):
    outbox = opened(path)
    for seq in (1, 2, 3):
        outbox.commit_take(take(seq, 30), 0.0, seq)
    (partial,) = ready(opened(path))
    assert (partial.part, partial.n) == (3, 90)


def test_an_empty_take_opens_no_window_but_is_acknowledged(path):
    outbox = opened(path)
    outbox.commit_take(take(1, 0), 0.0, 1000)
    outbox.close_all()
    assert ready(outbox) == []
    assert outbox.acknowledged("r-1") == 1


def test_errors_without_answers_are_counted(path):
    outbox = opened(path)
    failed = InferenceWindow(MANIFEST, MANIFEST, errors=7)
    outbox.commit_take(Take("r", 1, (Counts(failed, drift(0)),)), 0.0, 1)
    outbox.close_all()
    (record,) = ready(outbox)
    assert record.n == 0
    assert read_body(record) == failed


def test_a_bundles_own_window_length_is_kept_in_production_and_not_in_development(path):
    own = replace(Counts(inference(30), drift(30)), window_s=600.0, window_rows=25)
    for signed, closes in ((True, [False, False, True]), (False, [False, True, True])):
        outbox = opened(path, window_s=300.0, min_window_n=20, signed_windows=signed)
        outbox.commit_take(Take(f"r-{signed}", 1, (own,)), 0.0, 1000)
        closed = []
        for now_s in (299.0, 300.0, 600.0):
            outbox.close_due(now_s)
            closed.append(bool(ready(outbox)))
        assert closed == closes
        outbox.close()
        path.unlink()


def test_a_window_with_too_few_rows_for_its_bundle_stays_open(path):
    outbox = opened(path, signed_windows=True)
    few = replace(Counts(inference(30), drift(30)), window_s=600.0, window_rows=31)
    outbox.commit_take(Take("r", 1, (few,)), 0.0, 1000)
    outbox.close_due(90_000.0)
    assert ready(outbox) == []
    outbox.commit_take(Take("r", 2, (replace(few, inference=inference(1)),)), 90_000.0, 1000)
    outbox.close_due(90_000.0)
    assert {(record.kind, record.n) for record in ready(outbox)} == {
        ("inference", 31),
        ("drift", 60),
    }


def labelled(answers: int, labels: int) -> InferenceWindow:
    bins = (0,) * 19
    right = labels // 2
    return replace(
        inference(answers),
        labelled=labels,
        correct=right,
        labelled_bins=(*bins, labels),
        correct_bins=(*bins, right),
    )


@pytest.mark.parametrize("labels, kept", [(19, False), (20, True)])
def test_bins_of_few_labels_leave_no_device(path, labels, kept):
    """Closed by its agent, or left open by one that died."""
    closed, left = opened(path), path.with_name("left.db")
    for outbox in (closed, opened(left)):
        outbox.commit_take(Take("r", 1, (Counts(labelled(60, labels), drift(0)),)), 0.0, 1)
    closed.close_all()
    for outbox in (closed, opened(left)):
        (record,) = ready(outbox)
        body = read_body(record)
        assert isinstance(body, InferenceWindow)
        assert (body.labelled, body.correct) == (labels, labels // 2)
        assert (bool(body.labelled_bins), bool(body.correct_bins)) == (kept, kept)
        assert body.confidence


def test_labels_without_answers_are_counted(path):
    outbox = opened(path)
    late = replace(InferenceWindow(MANIFEST, MANIFEST), labelled=7, correct=5)
    outbox.commit_take(Take("r", 1, (Counts(late, drift(0)),)), 0.0, 1)
    outbox.close_all()
    (record,) = ready(outbox)
    assert (record.n, read_body(record)) == (0, late)


def histograms(record: Record) -> bool:
    body = record.b
    return any(body.get(name) for name in ("latency", "confidence", "classes", "counts"))


@pytest.mark.parametrize("answers, kept", [(19, False), (20, True)])
def test_a_closed_window_of_few_answers_keeps_totals_only(path, answers, kept):
    outbox = opened(path)
    outbox.commit_take(take(1, answers, rows=answers), 0.0, 1000)
    outbox.close_all()
    assert [histograms(record) for record in ready(outbox)] == [kept, kept]
    assert [record.n for record in ready(outbox)] == [answers, answers]


@pytest.mark.parametrize("answers, kept", [(19, False), (20, True)])
def test_a_window_left_open_by_a_dead_agent_keeps_totals_only_if_it_has_few(path, answers, kept):
    opened(path).commit_take(take(1, answers, rows=answers), 0.0, 1000)
    assert [histograms(record) for record in ready(opened(path))] == [kept, kept]


def test_windows_of_a_model_that_no_runner_holds_are_closed(path):
    other = "sha256-" + "d" * 64
    outbox = opened(path)
    both = (Counts(inference(30), drift(0)), Counts(inference(40, manifest=other), drift(0)))
    outbox.commit_take(Take("r", 1, both), 0.0, 1)
    outbox.close_unserved([other])
    assert [record.n for record in ready(outbox)] == [30]
    outbox.close_unserved([])
    assert sorted(record.n for record in ready(outbox)) == [30, 40]


def test_states_are_ordered_by_time_and_never_backwards(path):
    outbox = opened(path)
    orders = [outbox.put_state(STATE, 5000), outbox.put_state(STATE, 4000)]
    orders.append(opened(path).put_state(STATE, 100))
    orders.append(opened(path).put_state(STATE, 9000))
    assert orders == [5000, 5001, 5002, 9000]
    records = ready(outbox)
    assert all((r.s, r.part, r.n, r.lo == r.hi) == (STATE_STREAM, FINAL, 1, True) for r in records)
    assert sorted(r.b["order"] for r in records) == orders


def test_an_outcome_becomes_one_event_however_often_it_is_put(path):
    outbox = opened(path)
    assert outbox.reported_number(MODEL) == 0
    for _ in range(2):
        outbox.put_outcome(OUTCOME, 1000)
        outbox = opened(path)
    outbox.put_outcome(replace(OUTCOME, number=2), 2000)
    assert outbox.reported_number(MODEL) == 3
    (event,) = ready(outbox)
    body = read_body(event)
    assert isinstance(body, EventWindow)
    assert (event.s, event.n, body.counts) == (EVENT_STREAM, 1, {"rolled_back": 1})
    assert body.newest["rolled_back"]["detail"] == OUTCOME.detail


def test_an_event_with_an_endless_detail_is_cut(path):
    outbox = opened(path)
    outbox.put_event("OUT-D201", {"text": "x" * 100_000}, 1000)
    (event,) = ready(outbox)
    assert len(event.b["newest"]["OUT-D201"]["cut"]) == 4096


def test_the_newest_state_goes_first_then_the_oldest_records(path):
    outbox = opened(path, min_window_n=0)
    for at in (1, 2, 3):
        outbox.put_event("OUT-D201", {"at": at}, at)
    outbox.put_state(STATE, 4)
    outbox.put_state(STATE, 5)
    assert [(r.kind, r.t0) for r in ready(outbox)] == [
        ("state", 5), ("events", 1), ("events", 2), ("events", 3), ("state", 4),
    ]  # fmt: skip


def safe(record: Record, *ranges: tuple[int, int]) -> StreamAck:
    return StreamAck(record.e, record.s, have=ranges, safe=ranges)


def test_deleting_stops_at_the_first_row_that_is_not_safe(path):
    outbox = opened(path)
    for at in range(5):
        outbox.put_event("OUT-D201", {}, at)
    first = ready(outbox)[0]
    assert outbox.delete_safe([safe(first, (0, 1), (3, 4))]) == 2
    assert [r.lo for r in ready(outbox)] == [2, 3, 4]
    assert outbox.delete_safe([StreamAck(first.e, first.s, have=((0, 4),))]) == 0
    assert outbox.delete_safe([replace(safe(first, (0, 4)), e=first.e ^ 1)]) == 0
    assert outbox.delete_safe([safe(first, (2, 4))]) == 3


@pytest.mark.parametrize(
    "part, in_backup, deleted", [(2, True, 0), (3, False, 0), (3, True, 1), (4, True, 1)]
)
def test_a_partial_window_is_deleted_when_this_version_is_safe(path, part, in_backup, deleted):
    outbox = opened(path)
    for seq in (1, 2, 3):
        outbox.commit_take(take(seq, 30), 0.0, seq)
    outbox = opened(path)
    (partial,) = ready(outbox)
    ack = StreamAck(partial.e, partial.s, part=((0, part, in_backup),))
    assert outbox.delete_safe([ack]) == deleted


def test_no_ack_deletes_a_window_that_is_still_open(path):
    outbox = opened(path)
    outbox.commit_take(take(1, 30), 0.0, 1)
    (held,) = outbox.held(10)
    epoch, stream, low, high = held
    assert (low, high) == (0, 0)
    lie = StreamAck(epoch, stream, ((0, 9),), ((0, 9),), ((0, FINAL, True),))
    assert outbox.delete_safe([lie]) == 0
    outbox.close_all()
    assert counted(outbox) == 30


def test_the_baseline_is_the_last_48_closed_windows_and_the_open_one(path):
    outbox = opened(path, window_s=0.0, min_window_n=0)
    assert outbox.baseline(MODEL, BUNDLE) is None
    for seq in range(1, 61):
        outbox.commit_take(take(seq, seq), float(seq), seq)
        if seq < 60:
            outbox.close_due(float(seq))
    window = outbox.baseline(MODEL, BUNDLE)
    assert window is not None
    assert window.answers == sum(range(12, 61))
    assert window.classes == (0, window.answers, 0)


def test_the_baseline_survives_acks_and_restarts_and_keeps_small_windows_whole(path):
    outbox = opened(path)
    outbox.commit_take(take(1, 10), 0.0, 1)
    outbox.close_all()
    for record in ready(outbox):
        outbox.delete_safe([safe(record, (0, 0))])
    again = opened(path)
    again.commit_take(take(1, 7, runner="r-2"), 0.0, 2)
    window = again.baseline(MODEL, BUNDLE)
    assert window is not None
    assert (window.answers, window.classes) == (17, (0, 17, 0))


def test_the_baseline_forgets_bundles_that_are_long_gone(path):
    outbox = opened(path)
    for seq in range(1, 9):
        digest = f"sha256-{seq:064}"
        manifest = f"sha256-{seq:016}" + "0" * 48
        counts = Counts(inference(30, manifest=manifest), drift(0), digest=digest)
        outbox.commit_take(Take("r", seq, (counts,)), 0.0, seq)
    known = [seq for seq in range(1, 9) if outbox.baseline(MODEL, f"sha256-{seq:064}")]
    assert known == [5, 6, 7, 8]
