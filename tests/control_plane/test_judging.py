"""Evidence is collected once and for good, whatever comes when and whatever breaks off."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.judging import Judge
from control_plane.rollout.conditions import NO_SCORES
from control_plane.rollout.evidence import Exposed, Silence, to_json
from control_plane.rollout.spec import RolloutSpec
from protocol.codec import to_wire
from protocol.reported import ModelState, ReportedState, Shadow
from tests.fakes.betting import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    MODEL,
    ROUNDS,
    SALT,
    SMALL,
    START_MS,
    Fleet,
    Upload,
    a_world,
    bundle,
    play,
    times,
    traffic,
)
from tests.fakes.crashing import Crash, crashing_at


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path)
    yield made
    made.close()


@pytest.fixture
def judge(fleet):
    return Judge(fleet.store)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The evidence of a smaller fleet that has been through all of it."""
    fleet = Fleet(tmp_path_factory.mktemp("played"), SMALL)
    play(a_world(fleet), Judge(fleet.store))
    yield Judge(fleet.store).evidence(fleet.id)
    fleet.close()


def test_candidates_that_fail_more_often_are_in_higher_slots(played):
    a, b = played.waves[0].totals()["error_rate/21600"]

    def mean(slots):
        return sum(n * slot for slot, n in enumerate(slots)) / sum(slots)

    assert mean(a) > mean(b) + 2


# --- nothing depends on a round being finished ----------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_round_that_breaks_off_at_any_write_is_gone_on_with(tmp_path, played, seed):
    rng = random.Random(seed)
    broken = Fleet(tmp_path, SMALL)
    broken.start()
    broken.begin(1, START_MS)
    crashes = 0
    for now in times(a_world(broken), 2):
        for number in rng.choices((1, 2, 3), k=3):
            with crashing_at(broken.store, number), contextlib.suppress(Crash):
                Judge(broken.store).round(now, 500)
                continue
            crashes += 1
        Judge(broken.store).round(now, 500)
    assert to_json(Judge(broken.store).evidence(broken.id)) == to_json(played)
    assert crashes > 20
    broken.close()


def test_many_small_rounds_find_what_few_large_ones_do(tmp_path, played):
    fleet = Fleet(tmp_path, SMALL)
    play(a_world(fleet), Judge(fleet.store), limit=7, rounds=20)
    assert to_json(Judge(fleet.store).evidence(fleet.id)) == to_json(played)
    fleet.close()


@pytest.fixture
def small(tmp_path):
    made = Fleet(tmp_path, SMALL)
    yield made
    made.close()


def test_evidence_that_was_read_before_is_the_same_when_it_is_read_anew(small):
    fleet, judge = small, Judge(small.store)
    fleet.start()
    fleet.begin(1, START_MS)
    for now in times(a_world(fleet), 9):
        judge.round(now)
        assert judge.evidence(fleet.id) == Judge(fleet.store).evidence(fleet.id)


# --- order, repetition, lateness ------------------------------------------------------------------

SHORT = RolloutSpec(MODEL, "v2", exposures_s=(6 * 3600.0,))


def small_world(fleet: Fleet) -> list[Upload]:
    """Windows of three hours: all that its devices will ever send."""
    rng = random.Random(11)
    uploads = []
    for device in fleet.devices:
        switch = START_MS if fleet.wave_of[device] == 1 else START_MS + 12 * HOUR_MS
        begins, ends = START_MS - 3 * DAY_MS, START_MS + 12 * HOUR_MS
        uploads += traffic(rng, device, begins, switch, span_ms=3 * HOUR_MS)
        uploads += traffic(rng, device, switch, ends, "v2", span_ms=3 * HOUR_MS)
    return uploads


def judged_with(fleet: Fleet, batches: list[list[Upload]]) -> dict[str, Any]:
    """All batches come before the exposures are looked at."""
    judge = Judge(fleet.store)
    fleet.start()
    for device in fleet.devices:
        fleet.contact(device, START_MS - HOUR_MS)
    past = [each for batch in batches for each in batch if each.t1_ms <= START_MS]
    fleet.upload(past)
    fleet.begin(1, START_MS)
    judge.round(START_MS)
    for device in fleet.devices:
        if fleet.wave_of[device] == 1:
            fleet.activates(device, START_MS + MINUTE_MS, START_MS + 2 * MINUTE_MS)
        fleet.contact(device, START_MS + 2 * MINUTE_MS)
    judge.round(START_MS + 3 * MINUTE_MS)
    for batch in batches:
        fleet.upload(batch)
    for hours in (7, 8, 9, 10):
        judge.round(START_MS + hours * HOUR_MS)
    (wave,) = judge.evidence(fleet.id).waves
    ticks = [dataclasses.replace(each, records=(0, 0)) for each in wave.ticks]
    return {**to_json(dataclasses.replace(judge.evidence(fleet.id), waves=())), "ticks": ticks}


@pytest.fixture(scope="module")
def in_order(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("order"), (4, 6), SHORT)
    found = judged_with(fleet, [small_world(fleet)])
    fleet.close()
    assert any(sum(slots.a) == 4 for tick in found["ticks"] for slots in tick.slots.values())
    return found


@given(st.randoms(use_true_random=False), st.integers(0, 20), st.integers(1, 4))
@settings(max_examples=12, deadline=None)
def test_order_repetition_and_lateness_before_judgement_change_nothing(
    tmp_path_factory, in_order, rng, repeated, batches
):
    fleet = Fleet(tmp_path_factory.mktemp("shuffled"), (4, 6), SHORT)
    uploads = small_world(fleet)
    uploads += rng.choices(uploads, k=repeated)
    rng.shuffle(uploads)
    assert judged_with(fleet, [uploads[n::batches] for n in range(batches)]) == in_order
    fleet.close()


def test_windows_that_come_after_judgement_change_nothing(small):
    fleet, judge = small, Judge(small.store)
    play(a_world(fleet), judge)
    before = to_json(judge.evidence(fleet.id))
    for device in fleet.devices[:12]:
        more = traffic(random.Random(1), device, START_MS, ROUNDS[-1], "v2", lo=500, worse=50)
        fleet.upload(more)
    for hours in range(1, 6):
        judge.round(ROUNDS[-1] + hours * HOUR_MS)
    after = Judge(fleet.store).evidence(fleet.id)
    assert len(before["waves"][0]["ticks"]) > 8
    for tick, was in zip(after.waves[0].ticks, before["waves"][0]["ticks"], strict=False):
        assert to_wire(tick) == was


# --- who bets -------------------------------------------------------------------------------------


def test_the_next_wave_begins_with_later_members_and_the_clocks_of_the_one_before_stop(
    fleet, judge
):
    fleet.start()
    fleet.begin(1, START_MS)
    second = START_MS + 8 * HOUR_MS
    world = a_world(fleet)
    for now in times(world):
        if now == second:
            fleet.begin(2, now)
        judge.round(now)
    first, later = judge.evidence(fleet.id).waves
    # Exposures that were over by then are judged; nobody is any more after a day.
    clocks = [
        since if since >= START_MS else at
        for device, (at, since) in world.reports.items()
        if device != fleet.devices[5]
    ]
    over = sum(clock + 6 * HOUR_MS <= second for clock in clocks)
    assert 0 < over == first.judged["21600"].due_a < len(clocks)
    assert "86400" not in first.judged
    # Candidates of the first wave are on neither side of the second.
    assert later.eligible == (20, 28)
    assert later.began_ms == second


def test_a_wave_that_was_over_before_it_was_seen_has_no_bets(fleet, judge):
    fleet.start()
    fleet.begin(1, START_MS)
    fleet.begin(2, START_MS)
    judge.round(START_MS)
    assert [each.eligible for each in judge.evidence(fleet.id).waves] == [(0, 0), (0, 0)]
    assert [each.wave for each in judge.evidence(fleet.id).waves] == [1, 2]


def test_terms_are_frozen_before_the_first_wave_and_not_again(fleet, judge):
    world = a_world(fleet)
    fleet.start()
    world.until(0, START_MS - DAY_MS)
    judge.round(START_MS, 500)
    found = judge.evidence(fleet.id)
    assert (found.terms.devices, found.waves) == (60, ())
    world.until(START_MS - DAY_MS, START_MS)
    fleet.begin(1, START_MS)
    judge.round(START_MS + HOUR_MS)
    assert Judge(fleet.store).evidence(fleet.id).terms == found.terms


def test_evidence_of_a_rollout_that_does_not_exist_is_empty(judge):
    assert judge.evidence("digits-99").waves == ()


# --- terms ----------------------------------------------------------------------------------------


def test_terms_share_out_the_chance_of_a_wrong_verdict(played):
    terms = played.terms
    assert (terms.salt, terms.devices) == (SALT, 26)
    assert (terms.candidate, terms.previous) == (bundle("v2"), bundle("v1"))
    assert (terms.limit, terms.background) == (0.02, 0.02)
    assert (terms.aa_from_ms, terms.aa_to_ms) == (START_MS - DAY_MS, START_MS)
    assert sum(each.alpha for each in terms.watched) == pytest.approx(0.02)
    assert {each.part for each in terms.watched if each.metric == "class_mix"} == {0, 1, 2}


def test_without_a_past_no_score_is_judged_and_devices_are_still_counted(fleet, judge):
    fleet.start()
    for device in fleet.devices:
        fleet.contact(device, START_MS - HOUR_MS)
    fleet.begin(1, START_MS)
    judge.round(START_MS)
    for device in fleet.devices[:12]:
        fleet.activates(device, START_MS, START_MS + MINUTE_MS)
    for hours in range(1, 30):
        judge.round(START_MS + hours * HOUR_MS)
    found = judge.evidence(fleet.id)
    assert found.terms.row_sd is None
    assert all(each.scale is None and each.alpha == 0 for each in found.terms.watched)
    assert found.waves[0].ticks == ()
    assert found.waves[0].judged["21600"] == Exposed(12, 0, 0, 0)


def test_switched_off_scores_are_not_watched(tmp_path):
    fleet = Fleet(tmp_path, (4, 6), RolloutSpec(MODEL, "v2", gates=NO_SCORES))
    judge = Judge(fleet.store)
    fleet.start()
    fleet.begin(1, START_MS)
    judge.round(START_MS)
    terms = judge.evidence(fleet.id).terms
    assert terms is not None
    assert terms.watched == ()
    fleet.close()


@pytest.mark.parametrize(
    "failed, of, background",
    [(6, 60, 0.1), (0, 60, 0.0), (2, 20, 0.02)],
    ids=["measured", "a fleet that never fails", "too few to measure"],
)
def test_background_is_what_failed_in_the_last_completed_rollouts(tmp_path, failed, of, background):
    fleet = Fleet(tmp_path, (of,))
    fleet.start()
    with fleet.store.write() as connection:
        connection.execute("UPDATE member SET phase = 'healthy'")
        connection.execute(
            "UPDATE member SET phase = 'failed' WHERE device IN "
            "(SELECT device FROM member LIMIT ?)",
            (failed,),
        )
    fleet.end(START_MS)
    fleet.id = f"{MODEL}-2"
    fleet.start(id=fleet.id, number=2)
    fleet.begin(1, START_MS)
    judge = Judge(fleet.store)
    judge.round(START_MS, 500)
    terms = judge.evidence(fleet.id).terms
    assert terms is not None
    assert terms.background == background
    fleet.close()


# --- silence, shadows, records, afterwards --------------------------------------------------------


def test_a_sweep_that_breaks_off_has_said_nothing(fleet, judge):
    fleet.start()
    for device in fleet.devices:
        fleet.contact(device, START_MS)
    fleet.begin(1, START_MS)
    members, evidence = fleet.store.rollouts.members, fleet.store.evidence

    def sweep(at_ms):
        with fleet.store.write():
            for rollout, wave, silence in members.sweep(at_ms, START_MS).silences():
                evidence.add_silence(rollout, wave, silence)

    later = START_MS + 10 * HOUR_MS
    for device in fleet.devices[2:-1]:
        fleet.contact(device, later)
        members.contact(device, later)
    with crashing_at(fleet.store, 1), pytest.raises(Crash):
        sweep(later)
    assert judge.evidence(fleet.id).waves[0].silences == ()
    sweep(later)
    (silence,) = judge.evidence(fleet.id).waves[0].silences
    assert silence == Silence(12, 48, silence.labels, later)
    assert sorted(silence.labels) == ["a", "a", "b"]
    sweep(later + 1)
    assert judge.evidence(fleet.id).waves[0].silences == (silence,)


def test_shadows_of_the_wave_are_added_up(fleet, judge):
    fleet.start(shadowing=True)
    fleet.begin(1, START_MS)
    for n, device in enumerate(fleet.devices[:3]):
        shadow = Shadow(bundle("v2"), rows=100 + 100 * n, agreed=90)
        model = ModelState(serving=bundle("v1"), target=bundle("v2"), shadow=shadow)
        state = ReportedState(1, "1.0", models={MODEL: model})
        fleet.store.devices.put_state(device, state, START_MS)
    found = judge.shadowed(fleet.store.rollouts.get(fleet.id))
    assert (found.reached, found.with_rows, found.rows, found.agreed) == (12, 2, 500, 180)


def test_after_its_end_what_was_counted_stays_and_work_in_progress_goes(small):
    fleet, judge = small, Judge(small.store)
    play(a_world(fleet), judge)
    before = judge.evidence(fleet.id)
    fleet.end(ROUNDS[-1])
    for _ in range(12):
        judge.round(ROUNDS[-1], limit=40)
    left = fleet.store.connection()
    for table in ("bettor", "started", "pending", "judged", "sampled"):
        assert left.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert judge.evidence(fleet.id) == before
