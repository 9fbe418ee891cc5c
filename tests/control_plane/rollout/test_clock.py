"""Clocks of both arms start in the same hours, whatever devices say of theirs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.clock import Span, Timing, candidate_clock, fetch_ms

H = 3_600_000
DAY = Timing.of((6 * 3600, 24 * 3600), 24 * 3600)


def test_a_day_has_hours_of_an_hour_and_a_short_season_has_short_ones():
    assert DAY.hour_ms == H
    assert Timing.of((4,), 8).hour_ms == 8000 // 24


@pytest.mark.parametrize(
    "exposure_ms, season_s, grace_ms",
    [(6 * H, 86400, 2 * H), (24 * H, 86400, 2 * H), (48 * H, 86400, 4 * H), (4000, 8, 10_000)],
    ids=["two hours of a day", "also for a day", "a twelfth of longer ones", "never too short"],
)
def test_records_have_some_time_to_arrive(exposure_ms, season_s, grace_ms):
    assert Timing((exposure_ms,), season_s * 1000).grace_ms(exposure_ms) == grace_ms


@pytest.mark.parametrize(
    "exposure_ms, steps",
    [(6 * H, (24 * H, 48 * H)), (24 * H, (24 * H, 48 * H)), (36 * H, (48 * H, 96 * H))],
    ids=["part of a day", "a day", "more than a day"],
)
def test_before_is_the_same_time_of_whole_seasons_earlier(exposure_ms, steps):
    span = Span(100 * H, 100 * H + exposure_ms)
    assert DAY.past(span) == tuple(Span(span.from_ms - s, span.to_ms - s) for s in steps)


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_spans_that_are_compared_never_overlap(exposure_ms, season_ms):
    timing = Timing((exposure_ms,), season_ms)
    span = Span(10**13, 10**13 + exposure_ms)
    nearer, farther = timing.past(span)
    assert farther.to_ms <= nearer.from_ms
    assert nearer.to_ms <= span.from_ms
    assert (span.from_ms - nearer.from_ms) % season_ms == 0


def test_what_is_rehearsed_is_over_when_the_rollout_starts():
    for exposure_ms in (6 * H, 24 * H, 60 * H):
        assert DAY.rehearsal(100 * H, exposure_ms).to_ms <= 100 * H


def test_an_hour_ends_where_the_next_one_begins():
    assert DAY.hour(DAY.hour_ends(7) - 1) == 7
    assert DAY.hour(DAY.hour_ends(7)) == 8


@pytest.mark.parametrize(
    "since_ms, clock_ms",
    [(150, 150), (100, 100), (200, 200), (99, 180), (201, 180), (None, 180)],
    ids=["in between", "at the begin", "now", "before the wave", "in the future", "not said"],
)
def test_a_clock_is_what_the_device_says_where_that_can_be(since_ms, clock_ms):
    assert candidate_clock(100, since_ms, 180, 200) == clock_ms


def test_a_clock_never_starts_outside_of_the_wave():
    assert candidate_clock(100, None, 50, 200) == 100
    assert candidate_clock(100, None, 250, 200) == 200


@pytest.mark.parametrize(
    "clocks, candidates, now_ms, found",
    [
        ([], 4, 100 * H, None),
        ([5 * H], 4, 5 * H, None),
        ([5 * H, 2 * H], 4, 5 * H, 2 * H),
        ([5 * H], 4, 6 * H, 5 * H),
        ([3 * H, 1 * H, 2 * H], 3, 3 * H, 2 * H),
        ([3 * H], 0, 3 * H, 3 * H),
    ],
    ids=[
        "nobody has started",
        "fewer than half have",
        "half have",
        "the shortest exposure is over",
        "the median",
        "nobody is expected",
    ],
)
def test_the_time_that_candidates_need_is_known_once_half_have_started(
    clocks, candidates, now_ms, found
):
    assert fetch_ms(0, clocks, candidates, DAY, now_ms) == found
