"""The measurement of gates measures what it says, on the control plane's own code."""

import numpy as np
import pytest

from tests.bench.gates_rivals import Stop, aws, flagger, hawkbit, mann_whitney
from tests.bench.gates_world import START, Totals, failures, make, worse
from tests.bench.rollout_gates import (
    LEVELS,
    at_most,
    below,
    both_ways,
    failure_stops,
    gate_rows,
    score_stop,
    terms_of,
)


@pytest.fixture(scope="module")
def world():
    return make(10, np.random.default_rng(7))


def test_a_fleet_has_ten_devices_per_canary_and_half_of_them_are_never_asked(world):
    sizes = [int((world.wave == number).sum()) for number in (1, 2, 3, 9)]
    assert sizes == [10, 15, 25, 50]


def test_sums_over_a_span_are_those_of_its_hours(world):
    start = np.full(world.devices, START)
    after, before = Totals.of(world).over(start, 6)
    hours = slice(START, START + 6)
    assert after.errors == pytest.approx(world.errors[:, hours].sum(axis=1))
    earlier = world.errors[:, START - 48 : START - 42] + world.errors[:, START - 24 : START - 18]
    assert before.errors == pytest.approx(earlier.sum(axis=1))
    rows = world.requests[:, hours].sum(axis=1)
    assert after.confidence.sum(axis=1) == pytest.approx(rows, rel=1e-5)
    middles = (np.arange(20) + 0.5) / 20
    mean = (world.confidence * world.requests)[:, hours].sum(axis=1)
    inside = mean < 0.975 * rows
    assert (after.confidence @ middles)[inside] == pytest.approx(mean[inside], rel=1e-4)


def test_a_worse_candidate_is_worse_only_where_and_when_it_runs(world):
    rng = np.random.default_rng(8)
    changed = worse(world, rng, errors=5, confidence=0.1, accuracy=0.05)
    runs = np.zeros(world.errors.shape, bool)
    for number in (1, 2, 3):
        those = world.wave == number
        runs[those] = np.arange(runs.shape[1]) >= world.start[number - 1][those][:, None]
    for name in ("errors", "confidence", "correct"):
        assert (getattr(changed, name) == getattr(world, name))[~runs].all(), name
    assert changed.errors[runs].sum() > 3 * world.errors[runs].sum()


def test_everybody_stops_a_disaster_in_the_canary_wave(world):
    rng = np.random.default_rng(9)
    disaster = failures(world, rng, 0.9)
    stops = [*failure_stops(world, disaster), hawkbit(world, disaster), aws(world, disaster)]
    changed = worse(world, rng, errors=20, confidence=0.3)
    stops += [score_stop(changed, terms_of(world), metric) for metric in list(LEVELS)[:2]]
    stops += [flagger(changed), mann_whitney(changed, "error_rate")]
    assert [stop.wave if stop else None for stop in stops] == [1] * len(stops)


def test_judge_stops_the_same_rollouts_at_the_same_hours(world):
    found = list(both_ways(world, terms_of(world), np.random.default_rng(10)))
    assert len(found) == 3
    for hourly, judged in found:
        assert hourly == judged
    assert found[0] == (None, None)
    assert isinstance(found[1][0], Stop)


@pytest.mark.parametrize(
    "caught, repeats, expected, expected_repeats, p",
    [(100, 200, 0.5, 200, 0.5), (0, 20, 0.0, 20, 1.0), (80, 200, 0.5, 200, 0.0222)],
)
def test_two_proportions(caught, repeats, expected, expected_repeats, p):
    assert below(caught, repeats, expected, expected_repeats) == pytest.approx(p, abs=1e-3)


def test_upper_bounds_of_shares():
    assert at_most(0, 200) == pytest.approx(0.015, abs=1e-3)
    assert at_most(5, 5) == 1.0


def test_every_row_has_its_own_name_and_peer():
    rows = gate_rows({1: 1})
    names = [(row.what, row.against) for row in rows]
    assert len(set(names)) == len(names)
    # One rollout proves nothing about power; wrong aborts and agreement are asked all the same.
    assert {row.ok for row in rows if row.against == "the study"} == {None}
    assert all(row.ok for row in rows if row.goal and row.against != "the study")
