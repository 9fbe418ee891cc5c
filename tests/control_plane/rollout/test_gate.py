"""Verdicts by their sentence: what aborts, what passes, and what only waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.advance import (
    Abort,
    Advance,
    Begin,
    Complete,
    Pause,
    Position,
    StartSoak,
    Wait,
    decide,
)
from control_plane.rollout.gate import enough, judge
from control_plane.rollout.phase import PHASES, Counts
from control_plane.rollout.spec import read_spec

SPEC = read_spec({"version": "digits/v2", "waves": ["12", "25%", "100%"], "soak": "1h"})
HOUR = 3_600_000


def verdict(counts, wave=1, spec=SPEC, now_ms=HOUR, soak_ms=0):
    if isinstance(counts, Counts):
        counts = {1: counts}
    found = judge(spec, wave, counts, now_ms=now_ms, soak_ms=soak_ms)
    return found.verdict, found.id, found.sentence


@pytest.mark.parametrize(
    "counts, expected",
    [
        (
            Counts(targeted=12),
            ("insufficient", "no_data", "no device has activated: 12 of 12 are linked, 0 reached"),
        ),
        (
            Counts(targeted=12, unlinked=12),
            ("insufficient", "no_data", "no device has activated: 0 of 12 are linked, 0 reached"),
        ),
        (
            Counts(targeted=1, reached=3, staged=2, activated=2, healthy=4),
            ("insufficient", "too_few", "6 activated, judged from 10"),
        ),
        (
            Counts(activated=6, healthy=6),
            ("insufficient", "under_way", "6 of 12 came to an end, 6 are under way"),
        ),
        (
            Counts(healthy=12),
            ("pass", "success", "12 of 12 activated devices healthy"),
        ),
        (
            Counts(healthy=11, targeted=1, unlinked=1),
            ("pass", "success", "11 of 11 activated devices healthy; 1 not linked"),
        ),
        (
            Counts(healthy=11, rolled_back=1),
            (
                "inconclusive",
                "success_condition",
                "11 of 12 activated devices healthy; wanted >= 95 %",
            ),
        ),
        (
            Counts(healthy=10, unexercised=2),
            (
                "inconclusive",
                "success_condition",
                "10 of 12 activated devices healthy, 2 had too little traffic; wanted >= 95 %",
            ),
        ),
        (
            Counts(activated=8, rolled_back=3, targeted=1),
            (
                "fail",
                "error_condition",
                "3 of 11 activated devices rolled back; more than 10 % aborts",
            ),
        ),
        (
            Counts(healthy=10, silent=2),
            (
                "fail",
                "error_condition",
                "2 of 12 activated devices fell silent; more than 10 % aborts",
            ),
        ),
        (
            Counts(healthy=9, failed=1, rolled_back=1, silent=1),
            (
                "fail",
                "error_condition",
                "3 of 12 activated devices went wrong (1 failed, 1 rolled back, 1 fell silent); "
                "more than 10 % aborts",
            ),
        ),
    ],
)  # fmt: skip
def test_one_wave(counts, expected):
    assert verdict(counts) == expected


def test_an_early_failure_counts_those_who_have_not_tried_as_fine():
    assert verdict(Counts(rolled_back=1, targeted=11))[0] == "insufficient"
    assert verdict(Counts(rolled_back=2, targeted=10)) == (
        "fail",
        "error_condition",
        "2 of the 10 that are judged: rolled back; more than 10 % aborts",
    )


def test_a_small_wave_is_judged_from_all_of_it():
    assert verdict(Counts(healthy=1))[0] == "pass"
    assert verdict(Counts(healthy=2, activated=1))[0] == "insufficient"
    assert verdict(Counts(healthy=2, rolled_back=1))[0] == "fail"


def test_many_good_devices_of_earlier_waves_do_not_hide_a_bad_wave():
    counts = {1: Counts(healthy=200), 2: Counts(healthy=6, rolled_back=4)}
    assert verdict(counts, wave=2)[0] == "fail"


def test_a_wave_that_nobody_has_reached_does_not_pass_on_the_merit_of_the_first():
    counts = {1: Counts(healthy=12), 2: Counts(targeted=65)}
    assert verdict(counts, wave=2)[:2] == ("insufficient", "too_few")


def test_a_last_wave_whose_devices_are_all_away_does_not_wait_for_them():
    counts = {1: Counts(healthy=12), 2: Counts(healthy=60), 3: Counts(targeted=8, unlinked=8)}
    assert verdict(counts, wave=3)[0] == "pass"
    assert verdict({1: counts[1], 2: counts[3]}, wave=2)[0] == "insufficient"


def test_later_waves_are_not_looked_at():
    counts = {1: Counts(healthy=12), 2: Counts(rolled_back=60)}
    assert verdict(counts, wave=1)[0] == "pass"


@pytest.mark.parametrize(
    "now_ms, soak_ms, expected",
    [
        (HOUR, 0, "pass"),
        (HOUR - 1, 0, "insufficient"),
        (HOUR, None, "insufficient"),
        (HOUR, 1000, "insufficient"),
    ],
)
def test_soak_counts_from_when_enough_had_tried(now_ms, soak_ms, expected):
    found = verdict(Counts(healthy=12), now_ms=now_ms, soak_ms=soak_ms)
    assert found[0] == expected
    if expected == "insufficient":
        assert found[1] == "soaking"


def test_refused_devices_can_be_counted_as_bad_and_are_then_in_the_denominator():
    spec = read_spec(
        {
            "version": "digits/v2",
            "error_condition": {"bad": "> 50 %", "phases": ["refused", "rolled back"]},
        }
    )
    assert verdict(Counts(refused=12), spec=spec)[0] == "fail"
    assert verdict(Counts(refused=12))[0] == "insufficient"


@pytest.mark.parametrize("denominator, fails", [("activated", True), ("targeted", False)])
def test_the_denominator_is_the_operators_choice(denominator, fails):
    spec = read_spec(
        {
            "version": "digits/v2",
            "error_condition": {"bad": "> 10 %", "denominator": denominator},
        }
    )
    counts = Counts(targeted=60, activated=7, rolled_back=3)
    assert (verdict(counts, spec=spec)[0] == "fail") == fails


counts_of = st.builds(
    lambda numbers, away: Counts(
        **dict(zip(PHASES, numbers, strict=True)), unlinked=min(away, numbers[0])
    ),
    st.lists(st.integers(0, 30), min_size=len(PHASES), max_size=len(PHASES)),
    st.integers(0, 30),
)


@given(counts_of)
def test_no_data_never_passes_and_a_pass_has_what_was_asked_for(counts):
    found = verdict(counts)
    if found[0] == "pass":
        assert counts.healthy > 0
        assert counts.healthy * 100 >= 95 * counts.tried
        assert counts.judged * 10 >= counts.waited_for * 9


@given(counts_of)
def test_what_tried_contains_every_failure(counts):
    assert counts.failed + counts.rolled_back + counts.silent <= counts.tried
    assert counts.ever_activated <= counts.ever_staged <= counts.ever_reached <= counts.all


@given(counts_of, st.integers(1, 10))
def test_one_more_failure_never_mends_a_verdict(counts, more):
    worse = counts + Counts(rolled_back=more)
    if verdict(counts)[0] == "fail":
        mended = counts.all < SPEC.error_condition.min_completed
        assert verdict(worse)[0] == "fail" or mended
    assert not (verdict(counts)[0] != "pass" and verdict(worse)[0] == "pass")


# --- decisions ----------------------------------------------------------------------------------

GOOD = {1: Counts(healthy=12), 2: Counts(healthy=65), 3: Counts(healthy=230)}
BAD = {1: Counts(rolled_back=12)}
PAUSING = read_spec({"version": "digits/v2", "on_failure": "pause"})
DEADLINE = read_spec({"version": "digits/v2", "deadline": "2h"})
BUSY = {1: Counts(activated=12)}
IDLE = {1: Counts(healthy=10, unexercised=2)}
IDLE_SENTENCE = "10 of 12 activated devices healthy, 2 had too little traffic; wanted >= 95 %"


@pytest.mark.parametrize(
    "spec, at, counts, ready, decision",
    [
        (SPEC, Position("preparing", 0, 0), {}, False, Wait()),
        (SPEC, Position("preparing", 0, 0), {}, True, Begin()),
        (SPEC, Position("paused", 0, 0), {}, True, Wait()),
        (SPEC, Position("running", 1, 0), GOOD, True, StartSoak()),
        (SPEC, Position("running", 1, 0, 0), GOOD, True, Advance(2)),
        (SPEC, Position("running", 3, 0, 0), GOOD, True, Complete()),
        (SPEC, Position("paused", 1, 0, 0), GOOD, True, Wait()),
        (SPEC, Position("running", 1, 0, 0), IDLE, True, Pause(IDLE_SENTENCE)),
        (SPEC, Position("running", 1, 0, 0, accepted=True), IDLE, True, Advance(2)),
        (SPEC, Position("running", 3, 0, 0, accepted=True), IDLE, True, Complete()),
        (SPEC, Position("completed", 3, 0, 0), BAD, True, Wait()),
        (SPEC, Position("running", 1, 0, 0, "gone"), GOOD, True, Abort("gone")),
        (SPEC, Position("preparing", 0, 0, None, "gone"), {}, True, Abort("gone")),
        (
            SPEC,
            Position("paused", 1, 0, 0),
            BAD,
            True,
            Abort("12 of 12 activated devices rolled back; more than 10 % aborts"),
        ),
        (
            PAUSING,
            Position("running", 1, 0, 0),
            BAD,
            True,
            Pause("12 of 12 activated devices rolled back; more than 10 % aborts"),
        ),
        (PAUSING, Position("paused", 1, 0, 0), BAD, True, Wait()),
        (DEADLINE, Position("running", 1, -2 * HOUR, 0), BUSY, True,
         Pause("not completed after 2 h")),
        (DEADLINE, Position("running", 1, -HOUR, 0), BUSY, True, Wait()),
    ],
)  # fmt: skip
def test_decisions(spec, at, counts, ready, decision):
    assert decide(spec, at, counts, now_ms=HOUR, ready=ready)[0] == decision


def test_soak_begins_when_as_many_have_tried_as_are_judged():
    assert not enough(SPEC, 1, {1: Counts(activated=9, targeted=3)})
    assert enough(SPEC, 1, {1: Counts(activated=10, targeted=2)})
    assert not enough(SPEC, 1, {1: Counts(targeted=3, unlinked=3)})
