"""Effect sizes and tests on counts, against scipy and against formulas written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from control_plane.drift.distance import (
    adjusted,
    bad_slots_p,
    corrected_psi,
    drift_score,
    feature_p,
    merge_small,
    psi,
    psi_bias,
    two_sample,
)
from protocol.members import Feature, Profile

TEN = [500] * 10
"""Ten equal bins of 5,000 reference rows."""
OUTSIDE = (0, 11, 12, 13)
"""Slots of a feature with ten bins that its range does not have."""


def profile(inner: list[int]) -> list[int]:
    """Slots of a feature: nothing below, above, infinite or NaN."""
    return [0, *inner, 0, 0, 0]


@pytest.mark.parametrize(
    "window, reference, expected",
    [
        ([10, 10], [10, 10], 0.0),
        ([30, 10], [20, 20], (30.5 / 41 - 0.5) * np.log(30.5 / 20.5)
         + (10.5 / 41 - 0.5) * np.log(10.5 / 20.5)),
        ([0, 40], [40, 0], 2 * (40 / 41) * np.log(81)),
        ([0, 0, 40], [0, 0, 40], 0.0),
        ([0, 0], [5, 5], 0.0),
    ],
)  # fmt: skip
def test_psi_has_half_a_row_more_in_each_slot(window, reference, expected):
    assert psi(window, reference) == pytest.approx(expected)


def test_the_bias_of_the_psi_is_one_per_slot_and_row():
    assert psi_bias([5] * 10, TEN) == pytest.approx(9 * (1 / 50 + 1 / 5000))
    assert psi_bias([0] * 10, TEN) == 0.0


@pytest.mark.parametrize("n, spread", [(200, 0.006), (1000, 0.002), (5000, 0.001)])
def test_without_drift_the_corrected_psi_is_around_zero(n, spread):
    rng = np.random.default_rng(11)
    share = np.full(10, 0.1)
    sizes = [
        corrected_psi(rng.multinomial(n, share).tolist(), rng.multinomial(5000, share).tolist())
        for _ in range(400)
    ]
    assert abs(float(np.mean(sizes))) < spread


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=2, max_size=20))
def test_the_effect_size_is_symmetric_and_never_negative(slots):
    window, reference = [a for a, _ in slots], [b for _, b in slots]
    assert psi(window, reference) >= 0.0
    assert psi(window, reference) == pytest.approx(psi(reference, window))


@given(st.lists(st.tuples(st.integers(3, 99), st.integers(3, 99)), min_size=2, max_size=12))
def test_the_two_sample_test_is_scipy_s_where_no_slot_is_small(slots):
    window, reference = [a for a, _ in slots], [b for _, b in slots]
    ours = two_sample(window, reference)
    if ours.df == len(slots) - 1:
        theirs = stats.chi2_contingency([window, reference], correction=False)
        assert ours.statistic == pytest.approx(theirs.statistic)
        assert ours.p == pytest.approx(theirs.pvalue)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3000)), min_size=1, max_size=20))
def test_merging_small_slots_keeps_all_rows_and_leaves_no_small_one(slots):
    window = np.array([a for a, _ in slots], float)
    reference = np.array([b for _, b in slots], float)
    a, b = merge_small(window, reference)
    assert a.sum() == window.sum()
    assert b.sum() == reference.sum()
    if len(a) > 1:
        share = window.sum() / (window.sum() + reference.sum())
        assert ((a + b) * share >= 2 - 1e-9).all()


def test_without_drift_small_p_values_are_as_rare_as_they_say():
    rng = np.random.default_rng(7)
    share = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.04, 0.03, 0.02, 0.009, 0.001])
    p = [
        feature_p(
            profile(rng.multinomial(200, share).tolist()),
            profile(rng.multinomial(5000, share).tolist()),
            OUTSIDE,
        )
        for _ in range(2000)
    ]
    assert np.mean(np.array(p) < 0.01) < 0.018
    assert np.mean(np.array(p) < 0.1) < 0.12


def test_missing_values_are_seen_although_their_slot_is_small():
    window = [*profile([10] * 9 + [4])[:-1], 6]
    reference = profile(TEN)
    assert bad_slots_p(window, reference, OUTSIDE) < 1e-9
    assert feature_p(window, reference, OUTSIDE) < 1e-8


def test_the_test_of_what_lies_outside_is_fisher_s():
    window, reference = [*profile([9] * 10)[:-1], 7], [2, *profile([90] * 10)[1:-1], 30]
    table = [[7, 90], [32, 900]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert bad_slots_p(window, reference, OUTSIDE) == pytest.approx(expected)


def test_words_have_other_slots_outside():
    """Two words, other, missing."""
    window, reference = [20, 20, 30, 30], [400, 400, 100, 100]
    words = Feature("city", counts=tuple(reference), kind="words", words=("a", "b"))
    assert words.outside == (2, 3)
    expected = stats.hypergeom.sf(59, 1100, 260, 100)
    assert bad_slots_p(window, reference, words.outside) == pytest.approx(expected)


def test_the_score_of_a_place_is_the_mean_effect_size_without_negative_ones():
    edges = tuple(map(float, range(9)))
    a, b = (Feature(name, edges, (0, *[50] * 8, 0, 0, 0)) for name in "ab")
    same, far = (0, *[10] * 8, 0, 0, 0), (0, 80, *[0] * 7, 0, 0, 0)
    assert corrected_psi(same, a.counts) < 0
    score = drift_score(Profile(400, (a, b)), (same, far))
    assert score == pytest.approx(corrected_psi(far, b.counts) / 2)


@pytest.mark.parametrize("rows", [0, 49])
def test_few_rows_have_no_score(rows):
    feature = Feature("a", (0.0, 1.0), (0, 400, 0, 0, 0))
    assert drift_score(Profile(400, (feature,)), ((0, rows, 0, 0, 0),)) is None
    assert drift_score(Profile(400, (feature,)), ()) is None


def test_as_many_missing_values_as_in_the_reference_are_nothing_new():
    window, reference = [*profile([9] * 10)[:-1], 10], [*profile([90] * 10)[:-1], 100]
    assert bad_slots_p(window, reference, OUTSIDE) > 0.4


@given(st.lists(st.floats(0, 1), max_size=40))
def test_adjusted_p_values_are_scipy_s(p):
    expected = stats.false_discovery_control(p) if p else []
    assert adjusted(p) == pytest.approx(list(expected))


def test_other_slots_do_not_compare():
    with pytest.raises(ValueError, match="slots"):
        psi([1, 2], [1, 2, 3])
