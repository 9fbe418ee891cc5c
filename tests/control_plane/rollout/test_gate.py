"""Verdicts by their sentence: what fails, what passes, and what only waits or asks.

Long because every verdict rule and every sentence has its own cases.
"""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rollout.evidence import (
    Evidence,
    Exposed,
    Silence,
    Slots,
    Tick,
    WaveEvidence,
    from_json,
    to_json,
)
from control_plane.rollout.figures import Figures, course
from control_plane.rollout.gate import GATE, Judgement, enough, judge, replay
from control_plane.rollout.phase import PHASES, Counts
from control_plane.rollout.spec import read_spec
from protocol.errors import PeerError
from tests.control_plane.rollout.bets import (
    CONFIDENCE,
    ERRORS,
    HOUR,
    LATENCY,
    compared,
    evidence,
    terms,
)

PLAIN = {"version": "digits/v2", "waves": ["12", "25%", "100%"], "soak": "1h"}
SPEC = read_spec(PLAIN)
CAREFUL = read_spec(
    {
        **PLAIN,
        "error_condition": {"bad": "> 10 %", "denominator": "activated", "min_completed": 10},
        "success_condition": {
            "healthy": ">= 95 %", "denominator": "activated", "min_completed": 10,
        },
    }
)  # fmt: skip
SOAKED = 30 * HOUR


def verdict(found, wave=1, spec=SPEC, now_ms=SOAKED, soak_ms=HOUR):
    if isinstance(found, Counts | dict):
        found = evidence(found)
    judgement = judge(spec, found, wave, now_ms=now_ms, soak_ms=soak_ms)
    recorded = json.loads(json.dumps(judgement.inputs))
    assert replay(recorded) == judgement, "every verdict in this file replays"
    return judgement.verdict, judgement.id, judgement.sentence


def figures_of(judgement: Judgement) -> Figures:
    assert judgement.figures is not None
    return judgement.figures


# --- failures, waves, time ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts, expected",
    [
        (
            Counts(targeted=12),
            ("insufficient", "no_data",
             "No device has activated. 0 of 12 judged: 12 not reached, 0 without traffic, 0 silent"
             " since activation. Waiting until 8 Jan 01:00 UTC."),
        ),
        (
            Counts(targeted=12, unlinked=12),
            ("insufficient", "no_data",
             "No device has activated. 0 of 12 judged: 12 not reached, 0 without traffic, 0 silent"
             " since activation. 12 not linked. Waiting until 8 Jan 01:00 UTC."),
        ),
        (
            Counts(targeted=1, reached=1, downloading=1, staged=1, activated=2, healthy=6),
            ("insufficient", "under_way",
             "6 of 12 judged: 1 not reached, 5 under way, 0 without traffic, 0 silent since"
             " activation. Waiting until 8 Jan 01:00 UTC."),
        ),
        (
            Counts(healthy=10, unexercised=2),
            ("insufficient", "no_traffic",
             "10 of 12 judged: 0 not reached, 2 without traffic, 0 silent since activation."
             " Waiting until 8 Jan 01:00 UTC."),
        ),
        (
            Counts(refused=12),
            ("insufficient", "no_data",
             "No device has activated. 0 of 12 judged: 0 not reached, 0 without traffic, 12 refused"
             " it, 0 silent since activation. Waiting until 8 Jan 01:00 UTC."),
        ),
        (
            Counts(healthy=12),
            ("pass", "pass", "0 of 12 devices failed; rates above 22 % are excluded (95 %)."),
        ),
        (
            Counts(healthy=11, targeted=1, unlinked=1),
            ("pass", "pass",
             "0 of 11 devices failed; rates above 24 % are excluded (95 %). 1 not linked."),
        ),
        (
            Counts(healthy=11, rolled_back=1),
            ("pass", "pass", "1 of 12 devices failed; rates above 34 % are excluded (95 %)."),
        ),
        (
            Counts(healthy=10, rolled_back=1, failed=1),
            ("inconclusive", "failures",
             "12 devices judged: neither harm nor safety shown; 2 of 12 failed, which allows rates"
             " up to 44 %, wanted 34 %. About 5 more would settle it."),
        ),
        (
            Counts(activated=1, healthy=7, rolled_back=4),
            ("fail", "failed",
             "4 of 12 devices rolled back: more than the limit of 2 % explains. A fine model gets"
             " this verdict with chance below 2.5 %. 8 devices return to what they ran before."),
        ),
        (
            Counts(targeted=6, activated=1, failed=1, rolled_back=4),
            ("fail", "failed",
             "5 of 6 devices went wrong (1 failed, 4 rolled back): more than the limit of 2 %"
             " explains. A fine model gets this verdict with chance below 2.5 %. 1 device returns"
             " to what it ran before."),
        ),
    ],
)  # fmt: skip
def test_one_wave(counts, expected):
    assert verdict(counts) == expected


@pytest.mark.parametrize(
    "devices, needed", [(3, 3), (10, 4), (30, 5), (100, 9), (300, 17), (1000, 37)]
)
def test_so_many_failures_make_a_fail_and_one_less_does_not(devices, needed):
    for failures in {0, needed - 1, needed, devices}:
        counts = Counts(healthy=devices - failures, rolled_back=failures)
        assert (verdict(counts)[0] == "fail") == (failures >= needed)


def test_a_single_device_never_condemns_a_model():
    assert verdict(Counts(failed=1))[:2] == ("inconclusive", "failures")
    assert verdict(Counts(healthy=1))[0] == "pass"


def test_the_limit_is_the_operators_choice():
    tolerant = read_spec({**PLAIN, "failure_limit": "30 %"})
    counts = Counts(healthy=8, rolled_back=4)
    assert verdict(evidence(counts, limit=0.3), spec=tolerant)[0] == "inconclusive"
    assert verdict(Evidence(None, (WaveEvidence(1, HOUR, counts),)), spec=tolerant)[1] == "failures"
    assert verdict(counts)[0] == "fail"


def test_what_a_wave_excludes_is_never_asked_to_be_better_than_the_limit():
    # 2 of 300: rates above 2.1 % are excluded, more than enough for a limit of 5 %.
    counts = Counts(healthy=288, rolled_back=12)
    assert verdict(evidence(counts, limit=0.02))[0] == "inconclusive"
    assert verdict(evidence(counts, limit=0.08))[0] == "pass"


def test_a_bad_second_wave_is_not_hidden_by_a_large_good_first():
    counts = {1: Counts(healthy=200), 2: Counts(healthy=6, rolled_back=6)}
    assert verdict(counts, wave=2)[:2] == ("fail", "failed")


def test_a_first_wave_that_gets_bad_later_fails_the_second():
    counts = {1: Counts(healthy=6, rolled_back=6), 2: Counts(healthy=200)}
    assert verdict(counts, wave=2)[:2] == ("fail", "failed")


def test_later_waves_are_not_looked_at():
    counts = {1: Counts(healthy=12), 2: Counts(rolled_back=60)}
    assert verdict(counts, wave=1)[0] == "pass"


def test_a_wave_that_nobody_has_reached_does_not_pass_on_the_merit_of_the_first():
    counts = {1: Counts(healthy=12), 2: Counts(targeted=65)}
    assert verdict(counts, wave=2)[:2] == ("insufficient", "no_data")


def test_a_last_wave_whose_devices_are_all_away_neither_waits_for_them_nor_soaks():
    away = Counts(targeted=8, unlinked=8)
    counts = {1: Counts(healthy=12), 2: Counts(healthy=60), 3: away}
    assert verdict(counts, wave=3, soak_ms=None) == (
        "pass", "pass",
        "0 of 72 devices failed; rates above 4.1 % are excluded (95 %). 8 not linked.",
    )  # fmt: skip
    assert verdict({1: counts[1], 2: away}, wave=2)[0] == "insufficient"


@pytest.mark.parametrize(
    "now_ms, soak_ms, expected",
    [
        (2 * HOUR, HOUR, "pass"),
        (2 * HOUR - 1, HOUR, "insufficient"),
        (2 * HOUR, None, "insufficient"),
        (2 * HOUR, HOUR + 1000, "insufficient"),
    ],
)
def test_soak_counts_from_when_enough_had_tried(now_ms, soak_ms, expected):
    found = verdict(Counts(healthy=12), now_ms=now_ms, soak_ms=soak_ms)
    assert found[0] == expected
    if expected == "insufficient":
        assert found[1] == "soaking"
        assert found[2].startswith("pass so far; soak ends in")


def test_while_it_soaks_a_wave_says_whether_it_would_pass():
    counts = Counts(healthy=10, rolled_back=2)
    assert verdict(counts, soak_ms=SOAKED - HOUR // 2) == (
        "insufficient", "soaking", "2 of 12 failed, not proven so far; soak ends in 30 min",
    )  # fmt: skip


def test_a_failure_does_not_wait_for_the_soak():
    assert verdict(Counts(healthy=8, rolled_back=4), soak_ms=None)[0] == "fail"


def test_soak_begins_when_as_many_have_tried_as_are_judged():
    assert not enough(CAREFUL, 1, {1: Counts(activated=9, targeted=3)})
    assert enough(CAREFUL, 1, {1: Counts(activated=10, targeted=2)})
    assert not enough(CAREFUL, 1, {1: Counts(targeted=3, unlinked=3)})
    assert enough(SPEC, 1, {1: Counts(activated=1, targeted=11)})


@pytest.mark.parametrize(
    "on_failure, ending",
    [
        ("abort rollback", "8 devices return to what they ran before."),
        ("abort keep", "8 devices keep it."),
        ("pause", "8 devices run it."),
    ],
)
def test_a_fail_says_what_becomes_of_the_devices(on_failure, ending):
    spec = read_spec({**PLAIN, "on_failure": on_failure})
    assert verdict(Counts(healthy=8, rolled_back=4), spec=spec)[2].endswith(ending)


# --- silence --------------------------------------------------------------------------------------


def test_devices_that_fall_silent_count_as_failed_where_control_is_fine():
    silences = [Silence(30, 270, "aabaaa", 2 * HOUR)]
    found = verdict(evidence(Counts(healthy=25, silent=5), silences=silences))
    assert found[:2] == ("fail", "failed")
    assert found[2].startswith("5 of 30 devices fell silent: more than the limit of 2 % explains.")


@pytest.mark.parametrize(
    "fell, controls, explained",
    [
        ("aaaaa", 270, 0.0),
        ("aaaaa", 30, 0.0),
        ("aaaaabbbbb", 270, 0.0),
        ("aaaaa" + "b" * 27, 270, 5.0),
        ("aaaaa", 29, 5.0),
        ("aaaaa", 0, 5.0),
    ],
    ids=["nobody else", "as many controls", "as the limit allows", "an outage", "too few", "none"],
)
def test_silence_counts_where_enough_controls_are_not_silent(fell, controls, explained):
    silences = [Silence(30, controls, fell, 2 * HOUR)]
    found = evidence(Counts(healthy=25, silent=5), silences=silences)
    judgement = judge(SPEC, found, 1, now_ms=SOAKED, soak_ms=HOUR)
    assert figures_of(judgement).explained == explained


@pytest.mark.parametrize(
    "fell",
    ["a" * 6 + "b" * 54, "ab" * 6 + "b" * 48, "a" * 15 + "b" * 135, "a" * 27 + "b" * 243],
)
def test_an_outage_that_control_has_too_is_not_held_against_the_model(fell):
    silent = fell.count("a")
    counts = Counts(healthy=30 - silent, silent=silent)
    found = verdict(evidence(counts, silences=[Silence(30, 270, fell, 2 * HOUR)]))
    assert found[0] == "inconclusive"


def test_more_silence_than_in_control_fails_even_during_an_outage():
    counts = Counts(healthy=79, silent=21)
    silences = [Silence(100, 900, "a" * 21 + "b" * 60, 2 * HOUR)]
    assert verdict(evidence(counts, silences=silences)) == (
        "fail", "silent",
        "21 of 100 devices fell silent: more than the limit of 2 % explains, and 21 of 100 new"
        " against 60 of 900 old devices. A fine model gets this verdict with chance below 0.5 %."
        " 79 devices return to what they ran before.",
    )  # fmt: skip


def test_a_fail_during_an_outage_says_what_the_outage_explains():
    counts = Counts(healthy=20, silent=80)
    silences = [Silence(100, 900, "a" * 80 + "b" * 90, 2 * HOUR)]
    assert verdict(evidence(counts, silences=silences))[2].startswith(
        "80 of 100 devices fell silent: more than the limit of 2 % and silence among old devices"
        " (up to 18) explain."
    )


def test_without_control_silence_alone_asks_and_never_aborts():
    counts = Counts(healthy=20, silent=10)
    for silences in ([], [Silence(30, 0, "a" * 10, 2 * HOUR)]):
        assert verdict(evidence(counts, silences=silences))[:2] == ("inconclusive", "failures")


def test_a_small_control_cohort_does_not_speak_for_a_large_wave():
    # 1 of 20 held back is silent: nobody knows whether that is 1 % or 20 % of a fleet.
    counts = Counts(healthy=920, silent=80)
    silences = [Silence(1000, 20, "a" * 80 + "b", 2 * HOUR)]
    assert verdict(evidence(counts, silences=silences))[0] == "inconclusive"


# --- scores ---------------------------------------------------------------------------------------

HEALTHY = Counts(healthy=30)
BETTING = (30, 270)


def scored(watched, change, n=30, m=270, counts=HEALTHY):
    found = compared(watched, n, m, change)
    return evidence(counts, found, watched=[watched], eligible=(n, m))


@pytest.mark.parametrize(
    "watched, change, expected",
    [
        (ERRORS, 0.0, ("pass", "pass")),
        (ERRORS, ERRORS.margin, ("pass", "pass")),
        (ERRORS, ERRORS.margin + 0.48, ("fail", "error_rate")),
        (LATENCY, 0.0, ("pass", "pass")),
        (LATENCY, LATENCY.margin, ("inconclusive", "scores")),
        (LATENCY, LATENCY.margin + 0.1, ("fail", "latency")),
        (CONFIDENCE, 0.0, ("pass", "pass")),
        (CONFIDENCE, CONFIDENCE.margin, ("pass", "pass")),
        (CONFIDENCE, CONFIDENCE.margin + 0.04, ("fail", "confidence")),
    ],
)
def test_a_score_fails_beyond_its_margin_and_a_guard_has_to_prove_itself(watched, change, expected):
    assert verdict(scored(watched, change))[:2] == expected


@pytest.mark.parametrize(
    "found, sentence",
    [
        (
            scored(ERRORS, ERRORS.margin + 0.48),
            "Error rate after 1 d is worse than tolerated: 25 of 30 new against 43 of 270 old"
            " devices above 1.28 times the usual (beyond the 1.2 times that new ones may). A fine"
            " model gets this verdict with chance below 0.4 %. 30 devices return to what they ran"
            " before.",
        ),
        (
            scored(LATENCY, 0.0),
            "0 of 30 devices failed; rates above 9.5 % are excluded (95 %). Latency is within"
            " tolerance.",
        ),
        (
            scored(CONFIDENCE, CONFIDENCE.margin),
            "0 of 30 devices failed; rates above 9.5 % are excluded (95 %). Not proven:"
            " confidence.",
        ),
        (
            scored(LATENCY, LATENCY.margin),
            "30 devices judged: neither harm nor safety shown; latency is not shown to be within"
            " tolerance. More devices like these would not settle it.",
        ),
        (
            evidence(HEALTHY, watched=[ERRORS, LATENCY], eligible=(30, 0)),
            "0 of 30 devices failed; rates above 9.5 % are excluded (95 %). Not judged, no control"
            " left: error rate and latency.",
        ),
        (
            evidence(HEALTHY, watched=[ERRORS, LATENCY], eligible=BETTING),
            "Latency after 1 d: 0 of 30 new and 0 of 270 old devices. 30 of 30 judged: 0 not"
            " reached, 0 without traffic, 0 silent since activation. Waiting until 8 Jan 01:00"
            " UTC.",
        ),
    ],
)
def test_sentences_of_scores(found, sentence):
    assert verdict(found)[2] == sentence


def test_a_guard_that_is_nearly_there_says_how_many_more_would_settle_it():
    watched = dataclasses.replace(LATENCY, scale=0.08)
    found = scored(watched, LATENCY.margin - 0.02)
    assert verdict(found)[1] == "scores"
    assert "more would settle it" in verdict(found)[2]


@pytest.mark.parametrize("arms", [(0, 270), (30, 0)])
def test_a_guard_without_data_in_one_arm_is_insufficient(arms):
    found = compared(LATENCY, arms[0], arms[1], 0.0)
    asked = evidence(HEALTHY, found, watched=[LATENCY], eligible=BETTING)
    assert verdict(asked)[:2] == ("insufficient", "guard")


def test_an_open_guard_waits_for_devices_that_have_not_been_judged_yet():
    found = compared(LATENCY, 10, 270, LATENCY.margin)
    asked = evidence(HEALTHY, found, watched=[LATENCY], eligible=BETTING)
    assert verdict(asked)[:2] == ("insufficient", "guard")


def test_devices_that_failed_are_not_waited_for_by_a_guard():
    found = compared(LATENCY, 29, 270, LATENCY.margin)
    counts = Counts(healthy=29, rolled_back=1)
    asked = evidence(counts, found, watched=[LATENCY], eligible=BETTING)
    assert verdict(asked)[:2] == ("inconclusive", "scores")


def test_a_watch_never_holds_a_wave_back():
    asked = evidence(HEALTHY, watched=[ERRORS], eligible=BETTING)
    assert verdict(asked)[0] == "pass"


def test_only_the_longest_exposure_of_a_score_is_a_guard():
    early = dataclasses.replace(LATENCY, key="latency/21600", exposure_s=21_600.0)
    both = evidence(
        HEALTHY, compared(LATENCY, 30, 270, 0.0), watched=[early, LATENCY], eligible=BETTING
    )
    judgement = judge(SPEC, both, 1, now_ms=SOAKED, soak_ms=HOUR)
    roles = {each.watched.key: each.role for each in figures_of(judgement).scores}
    assert roles == {"latency/21600": "watch", "latency/86400": "guard"}
    assert judgement.verdict == "pass"


def test_a_shorter_exposure_may_fail_a_wave():
    early = dataclasses.replace(LATENCY, key="latency/21600", exposure_s=21_600.0)
    found = evidence(
        HEALTHY, compared(early, 30, 270, 0.5), watched=[early, LATENCY], eligible=BETTING
    )
    assert verdict(found, soak_ms=SOAKED)[:2] == ("fail", "latency")


def test_a_series_whose_scatter_is_unknown_is_not_judged():
    unknown = dataclasses.replace(LATENCY, scale=None, alpha=0.0)
    judgement = judge(
        SPEC,
        evidence(HEALTHY, watched=[unknown], eligible=BETTING),
        1,
        now_ms=SOAKED,
        soak_ms=HOUR,
    )
    assert judgement.verdict == "pass"
    assert [each.state for each in figures_of(judgement).scores] == ["no scale"]
    assert "Not proven: latency" in judgement.sentence


def test_late_joiners_count_in_failures_and_not_in_scores():
    # 12 devices, of which 2 came after the wave began: 10 bet, 12 are judged by failures.
    found = compared(LATENCY, 10, 90, 0.0)
    asked = evidence(Counts(healthy=12), found, watched=[LATENCY], eligible=(10, 90))
    assert verdict(asked)[2].startswith("0 of 12 devices failed")
    assert verdict(asked)[0] == "pass"


def test_harm_that_began_in_the_first_wave_adds_up_in_the_second():
    mild = compared(ERRORS, 30, 270, ERRORS.margin + 0.17)
    first = WaveEvidence(1, HOUR, HEALTHY, BETTING, (mild,))
    alone = Evidence(terms(ERRORS), (first,))
    assert verdict(alone)[0] == "pass"
    second = WaveEvidence(2, 2 * HOUR, Counts(healthy=60), (60, 210), ())
    again = compared(ERRORS, 30, 270, ERRORS.margin + 0.17)
    both = Evidence(
        terms(ERRORS), (first, dataclasses.replace(second, ticks=(again,), eligible=BETTING))
    )
    assert verdict(both, wave=2)[:2] == ("fail", "error_rate")


def test_a_wave_without_control_keeps_what_earlier_waves_showed():
    bad = compared(ERRORS, 30, 270, ERRORS.margin + 0.48)
    found = Evidence(
        terms(ERRORS),
        (
            WaveEvidence(1, HOUR, HEALTHY, BETTING, (bad,)),
            WaveEvidence(2, HOUR, Counts(healthy=270), (270, 0)),
        ),
    )
    said = verdict(found, wave=2)
    assert said[:2] == ("fail", "error_rate")
    assert "25 of 30 new against 43 of 270 old" in said[2]


def test_a_held_back_cohort_is_control_like_any_other():
    found = evidence(
        Counts(healthy=980),
        compared(LATENCY, 980, 20, LATENCY.margin + 0.1),
        watched=[LATENCY],
        eligible=(980, 20),
    )
    assert verdict(found)[:2] == ("fail", "latency")


# --- traffic --------------------------------------------------------------------------------------


def test_missing_traffic_that_control_has_not_asks():
    judged = {"86400": Exposed(300, 2700, 275, 2690), "21600": Exposed(300, 2700, 300, 2700)}
    assert verdict(evidence(Counts(healthy=300), judged=judged)) == (
        "inconclusive", "traffic",
        "300 devices judged: neither harm nor safety shown; 25 of 300 new against 10 of 2700 old"
        " devices without traffic. More devices like these would not settle it.",
    )  # fmt: skip


@pytest.mark.parametrize(
    "exposed",
    [Exposed(300, 2700, 275, 2475), Exposed(300, 0, 200, 0), Exposed(0, 2700, 0, 2700)],
)
def test_missing_traffic_that_control_has_too_does_not(exposed):
    asked = evidence(Counts(healthy=300), judged={"86400": exposed})
    assert verdict(asked)[0] == "pass"


# --- operators' conditions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts, expected",
    [
        (
            Counts(healthy=12),
            ("pass", "pass", "0 of 12 devices failed; rates above 22 % are excluded (95 %)."),
        ),
        (
            Counts(targeted=1, reached=3, staged=2, activated=2, healthy=4),
            ("insufficient", "too_few",
             "6 activated, judged from 10. 4 of 12 judged: 1 not reached, 7 under way, 0 without"
             " traffic, 0 silent since activation. Waiting until 8 Jan 01:00 UTC."),
        ),
        (
            Counts(healthy=11, rolled_back=1),
            ("inconclusive", "success_condition",
             "11 of 12 activated devices healthy; wanted >= 95 %"),
        ),
        (
            Counts(healthy=11, unexercised=1),
            ("inconclusive", "success_condition",
             "11 of 12 activated devices healthy, 1 had too little traffic; wanted >= 95 %"),
        ),
        (
            Counts(activated=8, rolled_back=3, targeted=1),
            ("fail", "error_condition",
             "3 of 11 activated devices rolled back; more than 10 % aborts"),
        ),
        (
            Counts(healthy=10, silent=2),
            ("fail", "error_condition",
             "2 of 12 activated devices fell silent; more than 10 % aborts"),
        ),
        (
            Counts(healthy=9, failed=1, rolled_back=1, silent=1),
            ("fail", "error_condition",
             "3 of 12 activated devices went wrong (1 failed, 1 rolled back, 1 fell silent); "
             "more than 10 % aborts"),
        ),
    ],
)  # fmt: skip
def test_conditions_of_an_operator(counts, expected):
    assert verdict(counts, spec=CAREFUL) == expected


def test_an_early_failure_counts_those_who_have_not_tried_as_fine():
    assert verdict(Counts(rolled_back=1, targeted=11), spec=CAREFUL)[0] == "insufficient"
    assert verdict(Counts(rolled_back=2, targeted=10), spec=CAREFUL) == (
        "fail", "error_condition",
        "2 of the 10 that are judged: rolled back; more than 10 % aborts",
    )  # fmt: skip


def test_a_small_wave_is_judged_from_all_of_it():
    assert verdict(Counts(healthy=1), spec=CAREFUL)[0] == "pass"
    assert verdict(Counts(healthy=2, activated=1), spec=CAREFUL)[0] == "insufficient"
    assert verdict(Counts(healthy=2, rolled_back=1), spec=CAREFUL)[0] == "fail"


def test_conditions_judge_a_wave_alone_and_together_with_those_before():
    alone = {1: Counts(healthy=200), 2: Counts(healthy=8, rolled_back=2)}
    assert verdict(alone, wave=2, spec=CAREFUL)[1] == "error_condition"
    together = {1: Counts(healthy=8, rolled_back=4), 2: Counts(healthy=20)}
    assert verdict(together, wave=2, spec=CAREFUL)[1] == "error_condition"


def test_refused_devices_can_be_counted_as_bad_and_are_then_in_the_denominator():
    condition = {
        "bad": "> 50 %", "denominator": "activated", "min_completed": 10,
        "phases": ["refused", "rolled back"],
    }  # fmt: skip
    spec = read_spec({**PLAIN, "error_condition": condition})
    assert verdict(Counts(refused=12), spec=spec)[0] == "fail"
    assert verdict(Counts(refused=12))[0] == "insufficient"


@pytest.mark.parametrize("denominator, fails", [("activated", True), ("targeted", False)])
def test_the_denominator_is_the_operators_choice(denominator, fails):
    condition = {"bad": "> 10 %", "denominator": denominator, "min_completed": 10}
    spec = read_spec({**PLAIN, "error_condition": condition})
    counts = Counts(targeted=60, activated=7, rolled_back=3)
    assert (verdict(counts, spec=spec)[1] == "error_condition") == fails


def test_a_success_condition_never_makes_up_for_what_the_gates_miss():
    counts = Counts(healthy=288, rolled_back=12)
    assert verdict(counts, spec=CAREFUL)[:2] == ("inconclusive", "failures")


# --- replay ---------------------------------------------------------------------------------------


def test_inputs_name_the_version_of_the_rules():
    judgement = judge(SPEC, evidence(HEALTHY), 1, now_ms=SOAKED, soak_ms=HOUR)
    assert judgement.inputs["gate"] == GATE


@pytest.mark.parametrize("inputs", [{}, {"rules": {}}, {"wave": "one"}])
def test_what_is_no_verdict_is_not_replayed(inputs):
    with pytest.raises(PeerError):
        replay(inputs)


# --- properties -----------------------------------------------------------------------------------

counts_of = st.builds(
    lambda numbers, away: Counts(
        **dict(zip(PHASES, numbers, strict=True)), unlinked=min(away, numbers[0])
    ),
    st.lists(st.integers(0, 30), min_size=len(PHASES), max_size=len(PHASES)),
    st.integers(0, 30),
)
slots_of = st.lists(st.integers(0, 9), min_size=12, max_size=12).map(tuple)
ticks_of = st.lists(
    st.tuples(slots_of, slots_of, st.floats(-1, 1)), min_size=1, max_size=5
).map(
    lambda them: [
        Tick(500 + n, {LATENCY.key: Slots(centre, a, b)}, (n, n))
        for n, (a, b, centre) in enumerate(them)
    ]
)  # fmt: skip


@given(counts_of, st.sampled_from([SPEC, CAREFUL]))
def test_no_data_never_passes_and_a_pass_has_what_it_promises(counts, spec):
    found = judge(spec, evidence(counts), 1, now_ms=SOAKED, soak_ms=HOUR)
    if found.verdict == "pass":
        assert counts.healthy > 0
        ended = counts.healthy + counts.failed + counts.rolled_back + counts.silent + counts.refused
        assert ended * 10 >= counts.waited_for * 9
        assert figures_of(found).upper <= figures_of(found).bound
        if spec is CAREFUL:
            assert counts.healthy * 100 >= 95 * counts.tried


@given(counts_of, counts_of, st.sampled_from(["failed", "rolled_back"]), st.integers(1, 40))
def test_more_failures_never_mend_a_fail_and_never_make_a_pass(first, second, phase, more):
    """Devices that were fine fail as well: the wave is the same, worse."""
    fine = [name for name in ("healthy", "activated") if getattr(second, name)]
    if not fine:
        return
    moved = min(more, getattr(second, fine[0]))
    worse = dataclasses.replace(
        second,
        **{fine[0]: getattr(second, fine[0]) - moved, phase: getattr(second, phase) + moved},
    )
    for spec in (SPEC, CAREFUL):
        before = judge(
            spec, evidence({1: first, 2: second}), 2, now_ms=SOAKED, soak_ms=HOUR
        ).verdict
        after = judge(spec, evidence({1: first, 2: worse}), 2, now_ms=SOAKED, soak_ms=HOUR).verdict
        assert not (before == "fail" and after != "fail")
        # Who was under way has come to an end now: only then may a wave begin to pass.
        if fine[0] == "healthy":
            assert not (before != "pass" and after == "pass")


@given(ticks_of, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_and_repetition_of_ticks_do_not_matter(ticks, chance: random.Random):
    def said(them):
        return verdict(evidence(HEALTHY, *them, watched=[LATENCY], eligible=(540, 540)))

    shuffled = [*ticks, *chance.choices(ticks, k=3)]
    chance.shuffle(shuffled)
    assert said(shuffled) == said(ticks)


@given(ticks_of, st.data())
@settings(max_examples=50)
def test_a_verdict_is_the_same_however_its_ticks_are_split(ticks, data):
    split = []
    for each in ticks:
        slots = each.slots[LATENCY.key]
        one = tuple(data.draw(st.integers(0, number)) for number in slots.a)
        other = tuple(data.draw(st.integers(0, number)) for number in slots.b)
        rest = Slots(
            slots.centre,
            tuple(x - y for x, y in zip(slots.a, one, strict=True)),
            tuple(x - y for x, y in zip(slots.b, other, strict=True)),
        )
        first = Slots(slots.centre, one, other)
        split.append(dataclasses.replace(each, slots={LATENCY.key: first}, records=(1, 2)))
        split.append(dataclasses.replace(each, slots={LATENCY.key: rest}, records=(3, 4)))

    def said(them):
        return verdict(evidence(HEALTHY, *them, watched=[LATENCY], eligible=(540, 540)))

    assert said(split) == said(ticks)


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=4), st.randoms())
def test_order_and_repetition_of_sweeps_do_not_matter(sweeps, chance):
    silences, a, b = [], 30, 270
    for n, labels in enumerate(sweeps):
        silences.append(Silence(a, b, labels, (n + 2) * HOUR))
        a, b = a - labels.count("a"), b - labels.count("b")
    counts = Counts(healthy=a, silent=30 - a)
    shuffled = [*silences, *silences]
    chance.shuffle(shuffled)
    assert verdict(evidence(counts, silences=silences)) == verdict(
        evidence(counts, silences=shuffled)
    )


@given(ticks_of)
@settings(max_examples=30)
def test_the_course_of_the_evidence_ends_at_what_the_verdict_is_from(ticks):
    found = evidence(HEALTHY, *ticks, watched=[LATENCY], eligible=(540, 540))
    went = course(found, LATENCY)
    judgement = judge(SPEC, found, 1, now_ms=SOAKED, soak_ms=HOUR)
    if went:
        assert went[-1][2] == pytest.approx(figures_of(judgement).scores[0].ln_m)


@given(ticks_of, counts_of)
@settings(max_examples=30)
def test_evidence_is_the_same_after_a_trip_through_json(ticks, counts):
    found = evidence(
        counts,
        *ticks,
        watched=[LATENCY, ERRORS],
        eligible=(3, 9),
        silences=[Silence(3, 9, "ab", 7)],
        judged={"86400": Exposed(3, 9, 2, 8)},
    )
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
