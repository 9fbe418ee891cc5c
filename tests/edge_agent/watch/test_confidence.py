"""The level that the looks spend, false alarms of a fine model, and what a bad one shows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge_agent.watch.confidence import FIRST_LOOK, differ, log_level, log_p, looks_due, mean

SURE = np.array([0.0] * 6 + [0.002, 0.002, 0.004, 0.006, 0.008, 0.01, 0.01, 0.02] + [0.03] * 3)
SURE = np.append(SURE, [0.1, 0.2, 1 - SURE.sum() - 0.3])
UNSURE = np.array([0.0, 0.0, 0.05, 0.1, 0.2, 0.25, 0.2, 0.1, 0.05, 0.05] + [0.0] * 10)
PEAKED = np.array([0.0003] * 19 + [1 - 19 * 0.0003])

counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=30)


@pytest.mark.parametrize(
    "rows, looks", [(0, 0), (49, 0), (50, 1), (99, 1), (100, 2), (200, 3), (399, 3), (400, 4)]
)
def test_looks_come_at_doubling_sample_sizes(rows, looks):
    assert looks_due(rows) == looks


def test_all_looks_of_all_three_tests_spend_alpha_together():
    spent = 3 * sum(math.exp(log_level(look, 1e-4)) for look in range(1, 60))
    assert spent == pytest.approx(1e-4)


def test_the_first_look_of_each_test_spends_a_sixth():
    assert math.exp(log_level(1, 1e-4)) == pytest.approx(1e-4 / 6)


@given(counts, st.data())
def test_equal_sizes_give_pearsons_test_on_counts_plus_one_half(candidate, data):
    baseline = data.draw(st.permutations(candidate))
    if sum(candidate) == 0:
        return
    table = np.array([candidate, baseline]) + 0.5
    expected = stats.chi2_contingency(table, correction=False)
    log_tail = stats.chi2.logsf(expected.statistic, expected.dof)
    if log_tail > -600:  # below, scipy's own logarithm loses its digits
        assert log_p(candidate, baseline) == pytest.approx(log_tail, rel=1e-6, abs=1e-9)


@given(counts, counts)
def test_it_does_not_matter_which_side_is_called_the_candidate(a, b):
    b = (b * 15)[: len(a)]
    if sum(a) and sum(b):
        assert log_p(a, b) == pytest.approx(log_p(b, a), rel=1e-9, abs=1e-12)


@given(st.integers(50, 10**6))
def test_slots_that_are_empty_on_both_sides_never_speak_against_a_model(rows):
    assert log_p([0] * 19 + [50], [0] * 19 + [rows]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name, shape", [("sure", SURE), ("peaked", PEAKED)])
@pytest.mark.parametrize("before", [50, 400, 20_000])
def test_a_fine_model_is_hardly_ever_taken_back(name, shape, before):
    """Six looks of each trial at a hundred times the real alpha, so that there is a rate to see."""
    rng = np.random.default_rng(20261120)
    alpha, trials = 1e-2, 1500
    alarms = 0
    for _ in range(trials):
        baseline = rng.multinomial(before, shape)
        rows, alarm = np.zeros(len(shape), int), False
        for look in range(1, 7):
            rows = rows + rng.multinomial(FIRST_LOOK * 2 ** (look - 1) - rows.sum(), shape)
            alarm = alarm or differ(rows.tolist(), baseline.tolist(), look, alpha)
        alarms += alarm
    # One of the two tests may spend alpha/2; sparse slots make Pearson's tail a little heavy.
    assert alarms / trials <= alpha


def test_at_the_real_alpha_not_one_of_two_thousand_fine_models_is_taken_back():
    rng = np.random.default_rng(7)
    baseline = rng.multinomial(3000, SURE).tolist()
    looks = ((rng.multinomial(50 * 2**k, SURE).tolist(), k + 1) for k in range(4))
    pairs = [pair for _ in range(500) for pair in looks]
    assert not any(differ(rows, baseline, look, 1e-4) for rows, look in pairs)


def test_a_model_that_lost_its_confidence_is_seen_at_the_first_look():
    rng = np.random.default_rng(3)
    seen = [
        differ(rng.multinomial(50, UNSURE).tolist(), rng.multinomial(50, SURE).tolist(), 1, 1e-4)
        for _ in range(200)
    ]
    assert all(seen)


def test_a_class_that_takes_over_is_seen_within_two_looks():
    rng = np.random.default_rng(4)
    even, tilted = np.full(10, 0.1), np.array([0.46] + [0.06] * 9)
    seen = [
        differ(rng.multinomial(100, tilted).tolist(), rng.multinomial(500, even).tolist(), 2, 1e-4)
        for _ in range(200)
    ]
    assert np.mean(seen) > 0.95


def test_mean_confidence_is_that_of_the_middles():
    assert mean([0] * 19 + [10]) == pytest.approx(0.975)
    assert mean([5] + [0] * 18 + [5]) == pytest.approx(0.5)


def test_different_slots_are_refused():
    with pytest.raises(ValueError):
        log_p([1, 2], [1, 2, 3])
