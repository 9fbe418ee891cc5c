"""What follows from a verdict: a table of positions, then the rules by name."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.advance import (
    Abort,
    Advance,
    Begin,
    Complete,
    LiftShadow,
    Pause,
    Position,
    Shadowed,
    StartSoak,
    Wait,
    decide,
)
from control_plane.rollout.phase import Counts
from control_plane.rollout.spec import read_spec
from tests.control_plane.rollout.bets import HOUR, LATENCY, compared, evidence

PLAIN = {"version": "digits/v2", "waves": ["12", "25%", "100%"], "soak": "1h"}
SUCCESS = {"healthy": ">= 95 %", "denominator": "activated", "min_completed": 10}


def spec(**more):
    return read_spec({**PLAIN, **more})


SPEC = spec()
DAY = 24 * HOUR
NOW = 10 * DAY
GOOD = {1: Counts(healthy=12), 2: Counts(healthy=65), 3: Counts(healthy=230)}
BAD = {1: Counts(rolled_back=12)}
BAD_WHY = (
    "12 of 12 devices rolled back: more than the limit of 2 % explains. A fine model gets this"
    " verdict with chance below 2.5 %."
)
DOUBT = {1: Counts(healthy=10, rolled_back=2)}
DOUBT_WHY = (
    "12 devices judged: neither harm nor safety shown; 2 of 12 failed, which allows rates up to"
    " 44 %, wanted 34 %. About 5 more would settle it."
)
BUSY = {1: Counts(healthy=6, activated=6)}


def begun(wave=1, status="running", *, ago=2 * HOUR, soak=None, **more):
    """In a wave that began `ago` and has soaked since."""
    return Position(
        status, wave, NOW - ago, soak_ms=NOW - (ago if soak is None else soak),
        wave_ms=NOW - ago, **more,
    )  # fmt: skip


def decision(spec, at, counts, *, ready=True, shadowed=None, now_ms=NOW):
    found = counts if not isinstance(counts, dict) else evidence(counts or Counts(), began_ms=NOW)
    return decide(spec, at, found, now_ms=now_ms, ready=ready, shadowed=shadowed)[0]


@pytest.mark.parametrize(
    "asked, at, counts, expected",
    [
        # Before the first wave.
        (SPEC, Position("preparing", 0, 0), Counts(), Begin()),
        (SPEC, Position("paused", 0, 0), Counts(), Wait()),
        (SPEC, Position("preparing", 0, 0, None, "gone"), Counts(), Abort("gone")),
        # A wave passes.
        (SPEC, dataclasses.replace(begun(), soak_ms=None), GOOD, StartSoak()),
        (SPEC, begun(soak=HOUR // 2), GOOD, Wait()),
        (SPEC, begun(), GOOD, Advance(2)),
        (SPEC, begun(2), GOOD, Advance(3)),
        (SPEC, begun(3), GOOD, Complete()),
        (SPEC, begun(status="paused"), GOOD, Wait()),
        # It fails.
        (SPEC, begun(), BAD, Abort(BAD_WHY)),
        (SPEC, begun(status="paused"), BAD, Abort(BAD_WHY)),
        (SPEC, begun(accepted=True), BAD, Abort(BAD_WHY)),
        (spec(on_failure="abort keep"), begun(), BAD, Abort(BAD_WHY, keep=True)),
        (spec(on_failure="pause"), begun(), BAD, Pause(BAD_WHY)),
        (spec(on_failure="pause"), begun(status="paused"), BAD, Wait()),
        # Neither is shown.
        (SPEC, begun(), DOUBT, Pause(DOUBT_WHY, "OUT-R213")),
        (SPEC, begun(status="paused"), DOUBT, Wait()),
        (SPEC, begun(accepted=True), DOUBT, Advance(2)),
        (spec(unproven="proceed"), begun(), DOUBT, Advance(2)),
        # Too little is known.
        (SPEC, begun(), BUSY, Wait()),
        # Over, or withdrawn.
        (SPEC, begun(status="completed"), BAD, Wait()),
        (SPEC, begun(status="aborted"), GOOD, Wait()),
        (SPEC, begun(withdrawn="gone"), GOOD, Abort("gone")),
        (SPEC, begun(status="paused", withdrawn="gone"), GOOD, Abort("gone")),
    ],
)
def test_decisions(asked, at, counts, expected):
    counts = {1: counts} if isinstance(counts, Counts) else counts
    assert decision(asked, at, counts) == expected


def test_nothing_begins_before_everything_is_published():
    assert decision(SPEC, Position("preparing", 0, 0), {1: Counts()}, ready=False) == Wait()


# --- a person lets waves begin --------------------------------------------------------------------

ASKING = spec(
    waves=[{"devices": 12}, {"percent": 25, "approve": True}, {"percent": 100, "approve": True}]
)


@pytest.mark.parametrize(
    "at, expected",
    [
        (begun(), Pause("the next wave waits for a person: wave 2", "OUT-R205")),
        (begun(approved=True), Advance(2)),
        (begun(accepted=True), Advance(2)),
        (begun(status="paused"), Wait()),
        (begun(2), Pause("the next wave waits for a person: wave 3", "OUT-R205")),
        (begun(3), Complete()),
    ],
)
def test_a_wave_that_wants_approval_begins_after_a_pass_and_a_persons_word(at, expected):
    assert decision(ASKING, at, GOOD) == expected


def test_approval_of_the_next_wave_does_not_make_a_doubtful_wave_good():
    assert decision(ASKING, begun(approved=True), DOUBT) == Pause(DOUBT_WHY, "OUT-R213")


@pytest.mark.parametrize(
    "approved, expected",
    [
        (False, Pause("the next wave waits for a person: wave 1", "OUT-R205")),
        (True, Begin()),
    ],
)
def test_even_the_first_wave_may_wait_for_a_person(approved, expected):
    first = spec(waves=[{"devices": 12, "approve": True}, "100%"])
    at = Position("preparing", 0, 0, approved=approved)
    assert decision(first, at, {1: Counts()}) == expected


# --- operators' own success -----------------------------------------------------------------------


@pytest.mark.parametrize("unproven", ["ask", "proceed"])
def test_a_missed_success_condition_asks_whatever_is_done_with_the_unproven(unproven):
    asked = spec(success_condition=SUCCESS, unproven=unproven)
    found = decision(asked, begun(), {1: Counts(healthy=11, rolled_back=1)})
    assert found == Pause("11 of 12 activated devices healthy; wanted >= 95 %", "OUT-R213")


# --- waiting --------------------------------------------------------------------------------------


def test_a_doubtful_wave_waits_for_devices_that_are_under_way_while_they_can_be_heard():
    asked = spec(silent_after="3h", soak="0")
    counts = {1: Counts(healthy=18, rolled_back=3, activated=1, staged=1)}
    assert decision(asked, begun(ago=2 * HOUR), counts) == Wait()
    assert isinstance(decision(asked, begun(ago=3 * HOUR), counts), Pause)
    patient = spec(silent_after="3h", in_progress_timeout="6h", soak="0")
    assert decision(patient, begun(ago=5 * HOUR), counts) == Wait()
    assert isinstance(decision(patient, begun(ago=6 * HOUR), counts), Pause)


@pytest.mark.parametrize("days, pauses", [(6.9, False), (7.1, True)])
def test_too_little_evidence_is_waited_for_and_then_a_person_is_asked(days, pauses):
    found = decision(SPEC, begun(ago=int(days * DAY)), BUSY)
    assert isinstance(found, Pause) == pauses
    if pauses:
        assert found.why.startswith("not enough evidence after 7 d: 6 of 12 judged: 0 not reached")


def test_a_person_who_goes_on_is_not_asked_again_at_once():
    assert decision(SPEC, begun(ago=8 * DAY, accepted=True), BUSY) == Wait()


@pytest.mark.parametrize(
    "ago, soak, pauses",
    [(2 * HOUR, 2 * HOUR, False), (4 * HOUR, 4 * HOUR, True), (4 * HOUR, HOUR // 2, False)],
)
def test_too_little_evidence_may_pause_as_soon_as_the_soak_is_over(ago, soak, pauses):
    found = decision(spec(on_insufficient="pause"), begun(ago=ago, soak=soak), BUSY)
    assert isinstance(found, Pause) == pauses


def test_a_wave_that_never_had_enough_devices_is_paused_as_well():
    asked = spec(on_insufficient="pause", success_condition=SUCCESS)
    at = dataclasses.replace(begun(ago=5 * HOUR), soak_ms=None)
    found = decision(asked, at, {1: Counts(targeted=10, healthy=2)})
    assert isinstance(found, Pause)
    assert found.why.startswith("2 activated, judged from 10.")


@pytest.mark.parametrize("hours, expected", [(2, Wait()), (3, Pause("not completed after 2 h"))])
def test_a_rollout_that_takes_too_long_is_paused(hours, expected):
    at = dataclasses.replace(begun(), started_ms=NOW - hours * HOUR)
    assert decision(spec(deadline="2h"), at, BUSY) == expected


def test_devices_that_are_away_for_weeks_hold_nothing_up():
    away = {
        1: Counts(healthy=11, targeted=1, unlinked=1),
        2: Counts(healthy=60, reached=5, unlinked=5),
        3: Counts(healthy=200, targeted=30, unlinked=30),
    }
    assert [decision(SPEC, begun(wave), away) for wave in (1, 2, 3)] == [
        Advance(2), Advance(3), Complete(),
    ]  # fmt: skip


def test_a_last_wave_of_devices_that_are_all_away_completes_without_a_soak():
    away = {**GOOD, 3: Counts(targeted=230, unlinked=230)}
    at = dataclasses.replace(begun(3), soak_ms=None)
    assert decision(SPEC, at, away) == Complete()


# --- beside the current model first ---------------------------------------------------------------

SHADOW = spec(shadow={"rows": 200, "agreement": ">= 95 %"})
STAGED = {1: Counts(staged=10, targeted=2, unlinked=2)}


@pytest.mark.parametrize(
    "shadowed, accepted, expected",
    [
        (None, False, Wait()),
        (Shadowed(0, 0, 0, 0), False, Wait()),
        (Shadowed(10, 8, 4_000, 4_000), False, Wait()),
        (Shadowed(10, 9, 1_800, 1_710), False, LiftShadow()),
        (Shadowed(10, 10, 4_000, 4_000), False, LiftShadow()),
        (
            Shadowed(10, 10, 4_000, 3_600), False,
            Pause(
                "beside the current model 3,600 of 4,000 answers of 10 of 10 devices agree (90 %);"
                " wanted 95 %"
            ),
        ),
        (Shadowed(10, 10, 4_000, 3_600), True, LiftShadow()),
        (Shadowed(10, 8, 4_000, 3_600), True, Wait()),
    ],
)  # fmt: skip
def test_a_shadowing_wave_activates_once_enough_devices_agree(shadowed, accepted, expected):
    at = dataclasses.replace(begun(shadowing=True, accepted=accepted), soak_ms=None)
    assert decision(SHADOW, at, STAGED, shadowed=shadowed) == expected


def test_a_shadowing_wave_does_not_pass_by_what_its_devices_say_of_themselves():
    assert decision(SHADOW, begun(shadowing=True), GOOD) == Wait()
    assert decision(SHADOW, begun(), GOOD) == Advance(2)


def test_a_shadowing_wave_fails_and_a_shadow_that_lasts_too_long_asks():
    assert isinstance(decision(SHADOW, begun(shadowing=True), BAD), Abort)
    late = dataclasses.replace(begun(shadowing=True, ago=8 * DAY), soak_ms=None)
    assert isinstance(decision(SHADOW, late, STAGED), Pause)


def test_a_shadowing_wave_that_nobody_is_in_any_more_has_no_shadow_to_wait_for():
    at = dataclasses.replace(begun(2, shadowing=True, ago=2 * DAY), soak_ms=None)
    nothing = Shadowed(0, 0, 0, 0)
    passed = GOOD[1]
    assert decision(SHADOW, at, {1: passed, 2: Counts()}, shadowed=nothing) == LiftShadow()
    away = {1: passed, 2: Counts(targeted=2, unlinked=2)}
    assert decision(SHADOW, at, away, shadowed=nothing) == Wait()


def test_a_shadow_waits_for_devices_that_have_not_said_yet_that_they_are_pinned_no_more():
    at = dataclasses.replace(begun(1, shadowing=True, ago=0), soak_ms=None)
    assert decision(SHADOW, at, {1: Counts()}, shadowed=Shadowed(0, 0, 0, 0)) == Wait()


def test_shadows_that_never_come_are_asked_about_also_where_earlier_waves_were_fine():
    at = dataclasses.replace(begun(3, shadowing=True, ago=8 * DAY), soak_ms=None)
    away = {1: GOOD[1], 2: Counts(), 3: Counts(targeted=2, unlinked=2)}
    found = decision(SHADOW, at, away, shadowed=Shadowed(0, 0, 0, 0))
    assert isinstance(found, Pause)


def test_a_rollout_without_a_shadow_has_none_to_wait_for():
    assert decision(SPEC, begun(shadowing=True), STAGED) == LiftShadow()


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, expected",
    [(0.0, Advance), (LATENCY.margin, Pause), (LATENCY.margin + 0.1, Abort)],
)
def test_scores_decide_too(change, expected):
    found = evidence(
        Counts(healthy=30),
        compared(LATENCY, 30, 270, change),
        watched=[LATENCY],
        eligible=(30, 270),
    )
    assert isinstance(decision(SPEC, begun(), found), expected)


# --- properties -----------------------------------------------------------------------------------

some = st.integers(0, 12)


@given(
    healthy=some, rolled_back=some, activated=some, targeted=some,
    status=st.sampled_from(["running", "paused"]), accepted=st.booleans(),
    hours=st.integers(0, 24 * 9),
)  # fmt: skip
def test_no_wave_begins_without_a_healthy_device_and_what_is_paused_only_waits_or_aborts(
    healthy, rolled_back, activated, targeted, status, accepted, hours
):
    counts = {
        1: Counts(healthy=healthy, rolled_back=rolled_back, activated=activated, targeted=targeted)
    }
    at = begun(status=status, accepted=accepted, ago=hours * HOUR)
    first = decision(SPEC, at, counts)
    if isinstance(first, Advance):
        assert healthy > 0
        assert status == "running"
    if status == "paused":
        assert isinstance(first, Abort | Wait)
