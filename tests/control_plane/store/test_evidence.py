"""Evidence records are a chain; work in progress is kept as it should be."""

from __future__ import annotations

import json

import pytest

from control_plane.rollout import record as records
from control_plane.rollout.clock import Span
from control_plane.rollout.evidence import Exposed, Silence, Slots, Tick
from control_plane.rollout.ticking import Change
from control_plane.store import bets
from control_plane.store.bets import Judged, Pending
from control_plane.store.evidence import BegunWave
from protocol.identifiers import digest_of
from tests.fakes.betting import HOUR_MS, START_MS, Fleet, Upload, manifest, window


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path, (2, 3))
    made.start()
    yield made
    made.close()


@pytest.fixture
def evidence(fleet):
    return fleet.store.evidence


# --- records --------------------------------------------------------------------------------------


def test_a_record_names_the_one_before_it_and_its_digest_is_that_of_its_text(evidence):
    first = evidence.append_record("digits-1", {"verdict": "insufficient"}, 5)
    second = evidence.append_record("digits-1", {"verdict": "pass"}, 6)
    rows = evidence.list_records("digits-1")
    assert [(each.digest, each.number, each.at_ms) for each in rows] == [
        (first, 1, 5),
        (second, 2, 6),
    ]
    assert [json.loads(each.body) for each in rows] == [
        {"verdict": "insufficient", "previous": ""},
        {"verdict": "pass", "previous": first},
    ]
    assert all(digest_of(each.body.encode()) == each.digest for each in rows)
    assert evidence.get_record(second) == rows[1]
    assert evidence.last_record("digits-1") == second


def test_each_rollout_has_its_own_chain(evidence):
    evidence.append_record("digits-1", {"verdict": "pass"}, 5)
    evidence.append_record("faces-1", {"verdict": "pass", "model": "faces"}, 5)
    (row,) = evidence.list_records("faces-1")
    assert (row.number, json.loads(row.body)["previous"]) == (1, "")
    assert evidence.last_record("other-1") is None
    assert evidence.get_record("sha256-" + "0" * 64) is None


def test_a_record_after_another_one_is_refused(evidence):
    first = evidence.append_record("digits-1", {}, 5)
    evidence.append_record("digits-1", {"previous": first}, 6)
    with pytest.raises(ValueError, match="the record before is"):
        evidence.append_record("digits-1", {"previous": first}, 7)
    assert len(evidence.list_records("digits-1")) == 2


def test_records_are_read_on_behind_a_number(evidence):
    for n in range(5):
        evidence.append_record("digits-1", {"n": n}, n)
    assert [each.number for each in evidence.list_records("digits-1", after=2, limit=2)] == [3, 4]


def test_what_is_kept_is_a_chain_that_others_can_check(evidence):
    for n in range(4):
        evidence.append_record("digits-1", {"n": n}, n)
    kept = [json.loads(row.body) for row in evidence.list_records("digits-1")]
    assert records.broken_at(kept) is None
    assert records.broken_at([*kept[:2], {**kept[2], "n": 7}, kept[3]]) == 3


# --- hours and silence ----------------------------------------------------------------------------


def test_closed_hours_add_up_and_are_read_on_behind_an_hour(evidence):
    evidence.begin("digits-1", BegunWave(1, START_MS, 2, 3, 7))
    one = Tick(7, {"latency/6": Slots(0.5, (1,) * 12, (0,) * 12)}, (3, 4))
    evidence.close("digits-1", 1, one, {6000: Exposed(1, 2, 1, 1)})
    evidence.close(
        "digits-1", 1, Tick(9, {}), {6000: Exposed(0, 1, 0, 0), 9000: Exposed(1, 1, 1, 1)}
    )
    assert evidence.ticks("digits-1", 1) == (one,)
    assert evidence.ticks("digits-1", 1, after=7) == ()
    assert evidence.exposed("digits-1", 1) == {
        6000: Exposed(1, 3, 1, 1),
        9000: Exposed(1, 1, 1, 1),
    }
    assert evidence.waves("digits-1") == {1: BegunWave(1, START_MS, 2, 3, 10)}


def test_silences_are_kept_in_the_order_in_which_they_were_found(evidence):
    found = [Silence(5, 6, "ab", 10), Silence(4, 5, "b", 20), Silence(4, 4, "a", 20)]
    for each in found:
        evidence.add_silence("digits-1", 1, each)
    evidence.add_silence("digits-1", 2, Silence(1, 1, "a", 30))
    assert evidence.silences("digits-1", 1) == tuple(found)


# --- which windows count --------------------------------------------------------------------------


def test_windows_are_placed_by_their_middle_and_only_closed_and_short_ones_count(fleet):
    device, at = fleet.devices[0], START_MS
    body = window("v1", 30)
    for lo, t0_ms, span_ms, more in (
        (0, at - HOUR_MS, HOUR_MS, {}),  # its middle is before
        (1, at - HOUR_MS // 2, HOUR_MS, {}),  # its middle is the first moment of it
        (2, at + HOUR_MS, HOUR_MS, {}),
        (3, at + 2 * HOUR_MS, HOUR_MS, {"part": 3}),  # still open
        (8, at, 7 * HOUR_MS, {"hi": 15}),  # a block of more than the whole span
        (4, at + 5 * HOUR_MS + HOUR_MS // 2, HOUR_MS, {}),  # its middle is the end, which is out
    ):
        fleet.upload([Upload(device, lo, t0_ms, body, span_ms, **more)])
    found = fleet.store.records.inference_within(
        device, {manifest("v1")}, Span(at, at + 6 * HOUR_MS)
    )
    assert [each.t0_ms for each in found] == [at - HOUR_MS // 2, at + HOUR_MS]


def test_one_device_is_read_through_an_index_whatever_else_is_stored(fleet):
    plan = fleet.store.connection().execute(
        "EXPLAIN QUERY PLAN SELECT 1 FROM record WHERE stream >= 'inference/' "
        "AND stream < 'inference0' AND device = 'd' AND t1 >= 5"
    )
    assert "record_inference (device=? AND t1>?)" in plan.fetchone()[3]


# --- bets -----------------------------------------------------------------------------------------


def test_only_the_lowest_places_are_kept(fleet, monkeypatch):
    monkeypatch.setattr(bets, "RESERVE", 3)
    for places in ([50, 40, 30], [60, 20], [45], [10]):
        fleet.store.bets.sample("digits-1", [(1, place, f"north-d{place}") for place in places])
        fleet.store.bets.sample("digits-1", [(2, 99, "north-d0")])
    assert fleet.store.bets.lowest("digits-1", 9) == [
        "north-d10",
        "north-d20",
        "north-d30",
        "north-d0",
    ]
    assert fleet.store.bets.lowest("digits-1", 2) == ["north-d10", "north-d20"]


def test_a_device_is_judged_once_per_exposure(fleet):
    pending = Pending(1, "north-d0", 6000, "a", START_MS, START_MS + 6000)
    fleet.store.bets.start_clocks("digits-1", [pending])
    judged = Judged(pending, 7, Change("a", {"latency/6": 1.0}))
    fleet.store.bets.judge("digits-1", [judged, judged])
    fleet.store.bets.judge("digits-1", [Judged(pending, 8, Change("a", {"latency/6": 9.0}))])
    assert list(fleet.store.bets.in_hours("digits-1", 1, 0, 99)) == [
        (6000, Change("a", {"latency/6": 1.0}))
    ]


def test_windows_that_have_not_come_are_looked_for_again_later(fleet):
    pending = Pending(1, "north-d0", 6000, "a", START_MS, START_MS + 6000)
    fleet.store.bets.start_clocks("digits-1", [pending])
    due = fleet.store.bets.due
    assert due("digits-1", 9, before_ms=START_MS + 5999) == []
    assert due("digits-1", 9, before_ms=START_MS + 6000) == [pending]
    fleet.store.bets.look_again("digits-1", [(pending, START_MS + 7000)])
    assert due("digits-1", 9, before_ms=START_MS + 6999) == []
    assert due("digits-1", 9, before_ms=START_MS + 7000) == [pending]
