"""What a wave can and cannot see, told before it starts."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rollout.conditions import BAD, GOOD, Condition
from control_plane.rollout.detect import (
    Aborts,
    aborts,
    detects,
    percent,
    sentences,
    too_many,
)


@pytest.mark.parametrize(
    "n, excluded, most, limit, notices, fails_from",
    [
        (1, "95 %", 0, "95 %", (0.05, 0.10, 0.30), None),
        (3, "63 %", 0, "63 %", (0.14, 0.27, 0.66), 3),
        (10, "26 %", 1, "39 %", (0.09, 0.26, 0.85), 4),
        (30, "9.5 %", 2, "20 %", (0.19, 0.59, 1), 5),
        (100, "3.0 %", 4, "8.9 %", (0.56, 0.98, 1), 9),
        (300, "1.0 %", 9, "5.2 %", (0.94, 1, 1), 17),
        (1000, "0.3 %", 26, "3.6 %", (1, 1, 1), 37),
    ],
)
def test_what_a_wave_can_and_cannot_see(n, excluded, most, limit, notices, fails_from):
    found = detects(n)
    assert percent(found.excluded) == excluded
    assert found.passable == most
    assert percent(found.limit) == limit
    assert [rate for rate, _ in found.notices] == [0.05, 0.10, 0.30]
    assert [round(chance, 2) for _, chance in found.notices] == list(notices)
    assert found.fails_from == fails_from


@pytest.mark.parametrize("limit, devices", [(0.05, 59), (0.02, 149), (0.01, 299)])
def test_how_many_clean_devices_a_limit_needs(limit, devices):
    assert detects(devices).excluded <= limit < detects(devices - 1).excluded


def test_a_wave_has_devices():
    with pytest.raises(ValueError, match="at least one"):
        detects(0)


def condition(percent, operator=">", denominator="activated", least=10):
    return Condition(BAD, operator, percent, denominator, least)


@pytest.mark.parametrize(
    "given_condition, devices, needed, expected",
    [
        (condition(10), 10, 2, (9, 46, 85)),
        (condition(10, least=30), 30, 4, (6, 68, 99)),
        (condition(10), 3, 1, (14, 39, 66)),
        (condition(10, operator=">="), 10, 1, (40, 80, 97)),
        (condition(10, denominator="targeted", least=1), 10, 2, (9, 46, 85)),
        (condition(100), 10, 11, (0, 0, 0)),
    ],
)
def test_how_often_an_error_condition_aborts_a_wave(given_condition, devices, needed, expected):
    found = aborts(given_condition, devices, (0.05, 0.15, 0.30))
    assert found.judged_from == min(given_condition.min_completed, devices)
    assert found.needed == needed
    assert [round(100 * chance) for _, chance in found.chances] == list(expected)


@settings(deadline=None)
@given(
    st.integers(1, 8),
    st.integers(0, 100),
    st.sampled_from([">", ">="]),
    st.sampled_from(["activated", "targeted"]),
    st.integers(1, 9),
    st.floats(0.01, 0.99),
)
def test_chances_are_those_of_all_ways_to_fail(devices, share, operator, over, least, rate):
    given_condition = condition(share, operator, over, least)
    chance = 0.0
    for fate in product((0, 1), repeat=devices):
        first = min(least, devices)
        held = any(
            given_condition.holds(sum(fate[:n]), n if over == "activated" else devices)
            for n in range(first, devices + 1)
        )
        chance += held * prod(rate if failed else 1 - rate for failed in fate)
    ((_, found),) = aborts(given_condition, devices, (rate,)).chances
    assert found == pytest.approx(chance)


@given(st.integers(1, 10_000), st.floats(0, 100).map(lambda p: round(p, 6)))
def test_too_many_is_the_smallest_number_that_is(whole, share):
    for operator in (">", ">="):
        each = condition(share, operator)
        part = too_many(each, whole)
        assert each.holds(part, whole)
        assert part == 0 or not each.holds(part - 1, whole)


def test_a_success_condition_is_not_about_too_many():
    with pytest.raises(ValueError, match="not about too many"):
        aborts(Condition(GOOD, "<", 95), 10)


def test_the_text_of_a_small_first_wave():
    waves = [detects(3), detects(27), detects(100)]
    found = sentences(
        waves,
        300,
        86_400,
        watched=("error rate", "latency"),
        aborting=aborts(condition(10), 3),
    )
    assert found == (
        "wave 1: 3 of 300 devices, 1 d",
        "with no failure it only excludes failure rates above 63 % (95 %)",
        "it misses a model that breaks 10 % of devices 73 times in 100",
        "it fails from 3 failures on",
        "error_condition aborts from 1 of 3: at 5 % 14 times in 100, at 10 % 27 times in 100, "
        "at 30 % 66 times in 100",
        "watched, not proven: error rate, latency",
        "wave 3 (100) is the first that can exclude 8.9 %",
    )


def test_the_text_of_a_large_first_wave():
    assert sentences([detects(1000)], 5000, 259_200, proven=("error rate",)) == (
        "wave 1: 1000 of 5000 devices, 3 d",
        "with no failure it excludes failure rates above 0.3 % (95 %)",
        "it misses a model that breaks 10 % of devices 0 times in 100",
        "it fails from 37 failures on",
        "proven within tolerance: error rate",
    )


def test_the_text_of_a_fleet_that_proves_little():
    found = sentences([detects(1), detects(2)], 5, 3600)
    assert found[-2:] == (
        "not even all of its devices failing prove that the model is to blame: it asks",
        "no wave can exclude a failure rate of 10 %",
    )
    assert sentences([], 5, 3600) == ()


def test_an_aborting_condition_is_told_as_it_is():
    assert aborts(condition(10), 1, ()) == Aborts(1, 1, 1, ())
