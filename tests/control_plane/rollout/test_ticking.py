"""An hour of changes becomes slots; what the day before the start was like becomes terms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout import score
from control_plane.rollout.evidence import Watched
from control_plane.rollout.score import Series
from control_plane.rollout.ticking import (
    SCORES_ALPHA,
    Change,
    Rehearsed,
    needs_earlier,
    scatter,
    series_in,
    tick_of,
    watched_of,
)

KEY = "error_rate/21600"


def watched(key=KEY, scale=0.5, margin=0.2, **more):
    return Watched(key, "error_rate", 21600.0, margin, scale, 0.01, **more)


def change(side, value, records=(0, 0), key=KEY):
    return Change(side, {} if value is None else {key: value}, records)


def test_the_tolerance_is_taken_off_candidates_only_and_before_the_centre_is_found():
    now = [change("a", 0.2) for _ in range(10)] + [change("b", 0.0) for _ in range(10)]
    slots = tick_of(7, now, [], [watched()]).slots[KEY]
    assert slots.centre == 0
    assert slots.a == slots.b
    assert sum(slots.a) == 10


def test_a_change_of_one_scale_more_is_two_slots_higher():
    now = [change("b", 0.0) for _ in range(30)] + [change("a", 0.2 + 0.5)]
    slots = tick_of(7, now, [], [watched()]).slots[KEY]
    assert slots.a.index(1) == slots.b.index(30) + 2


def test_few_changes_are_measured_from_the_centre_of_all_so_far():
    earlier = [change("b", 1.0) for _ in range(30)]
    now = [change("b", 3.0)]
    assert tick_of(7, now, earlier, [watched()]).slots[KEY].centre == 1.0
    assert tick_of(7, now * 20, earlier, [watched()]).slots[KEY].centre == 3.0
    assert needs_earlier(now, [watched()])
    assert not needs_earlier(now * 20, [watched()])


def test_what_was_earlier_is_in_the_slots_of_no_later_hour():
    earlier = [change("b", 1.0) for _ in range(30)]
    slots = tick_of(7, [change("b", 3.0)], earlier, [watched()]).slots[KEY]
    assert (sum(slots.a), sum(slots.b)) == (0, 1)


@pytest.mark.parametrize(
    "now, of",
    [
        ([], watched()),
        ([change("a", None)], watched()),
        ([change("a", 1.0)], watched(scale=None)),
        ([change("a", 1.0, key="latency/21600")], watched()),
    ],
    ids=["nobody", "too little traffic", "no scale", "another series"],
)
def test_a_series_without_changes_is_not_in_the_hour(now, of):
    assert tick_of(7, now, [], [of]).slots == {}
    assert not needs_earlier(now, [of])


def test_an_hour_says_which_records_were_looked_at():
    now = [change("a", 1.0, (5, 9)), change("b", 1.0, (3, 4)), change("b", None, (0, 0))]
    assert tick_of(7, now, [], [watched()]).records == (3, 9)
    assert tick_of(7, [change("b", None)], [], [watched()]).records == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(-5, 5)), max_size=60), st.randoms())
def test_the_order_of_devices_does_not_matter(values, rng):
    now = [change(side, value) for side, value in values]
    wanted = tick_of(7, now, [], [watched()])
    rng.shuffle(now)
    assert tick_of(7, now, [], [watched()]) == wanted


# --- terms ----------------------------------------------------------------------------------------


def test_series_share_what_may_go_wrong_and_those_without_scale_have_no_part():
    series = [
        Series(KEY, "error_rate", 21600.0, 0.1),
        Series("latency/21600", "latency", 21600.0, 0.1),
        Series("latency/86400", "latency", 86400.0, 0.1),
        Series("confidence+/21600", "confidence", 21600.0, 0.1),
    ]
    many = {each.key: 0.01 * n for n, each in enumerate(series[:3])}
    found = watched_of(series, scatter([Rehearsed(many) for _ in range(40)]))
    assert [each.scale is None for each in found] == [False, False, False, True]
    assert sum(each.alpha for each in found) == pytest.approx(SCORES_ALPHA)
    assert found[3].alpha == 0
    assert [each.key for each in series_in(found, 21600.0)] == [KEY, "latency/21600"]


def test_scatter_is_that_of_the_changes_and_of_all_rows():
    bins = [0] * 20
    bins[4], bins[14] = 3, 3
    rehearsed = [Rehearsed({KEY: n / 10}, 0, tuple(bins)) for n in range(40)]
    found = scatter(rehearsed)
    assert found.by_key == {KEY: [n / 10 for n in range(40)]}
    assert found.row_sd == score.row_sd([each * 40 for each in bins])
    assert found.row_sd == pytest.approx(0.25)


def test_mixes_of_the_classes_that_most_devices_have_are_compared():
    rehearsed = [Rehearsed({"class_mix.0+/21600": 1.0, KEY: 1.0}, 3)] * 3
    rehearsed += [Rehearsed({"class_mix.0+/21600": 9.0, KEY: 2.0}, 5)] * 2
    found = scatter(rehearsed)
    assert found.classes == 3
    assert found.by_key["class_mix.0+/21600"] == [1.0] * 3
    assert found.by_key[KEY] == [1.0] * 3 + [2.0] * 2


def test_a_fleet_without_a_past_has_no_scatter():
    found = scatter([Rehearsed({}), Rehearsed({})])
    assert (found.by_key, found.classes, found.row_sd) == ({}, 0, None)
