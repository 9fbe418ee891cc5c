"""Cohorts that fell apart, and cohorts whose devices just differ."""

import itertools

import numpy as np
import pytest
from scipy import stats

from control_plane.drift import heterogeneity
from control_plane.drift.robust import shifts, variance
from protocol.members import Feature
from protocol.scores import scores
from tests.fakes.columns import devices, reference

TEMPERATURE = reference()


def parts(columns, feature=TEMPERATURE):
    (found,) = heterogeneity.parts((feature,), [(counts,) for counts in columns])
    return found


def test_half_of_24_devices_at_six_tenths_is_named():
    rng = np.random.default_rng(1)
    moved = {0, 1, 4, 5, 7, 9, 12, 15, 16, 19, 22, 23}
    found = parts(devices(rng, 1200, [0.6 * (n in moved) for n in range(24)]))
    assert set(found.moved) == set(found.high) == moved
    assert sorted((*found.low, *found.high)) == list(range(24))
    assert found.drifted == "high"
    assert found.gap == pytest.approx(0.6, abs=0.1)
    assert (found.ratio < 0.1, found.p < 1e-9) == (True, True)


def test_the_side_that_is_farther_from_the_reference_has_drifted():
    rng = np.random.default_rng(2)
    found = parts(devices(rng, 1200, [0.1] * 14 + [-0.7] * 7))
    assert (found.drifted, found.moved) == ("low", tuple(range(14, 21)))


def test_sides_that_went_apart_are_two_although_their_mean_did_not_move():
    rng = np.random.default_rng(3)
    assert parts(devices(rng, 1200, [-0.5] * 12 + [0.5] * 12)).p < 1e-9


def test_where_the_nearer_side_is_far_away_too_it_is_not_half_a_cohort():
    rng = np.random.default_rng(4)
    found = parts(devices(rng, 1200, [0.9] * 12 + [1.5] * 12))
    assert found.ratio < 0.15
    assert found.p == 1.0


@pytest.mark.parametrize("size", [12, 24, 100])
def test_one_normal_population_of_offsets_is_not_split(size):
    rng = np.random.default_rng(5)
    found = [parts(devices(rng, 500, offsets)) for offsets in rng.normal(size=(60, size)) * 0.3]
    assert [each for each in found if each.p < 1e-3] == []


@pytest.mark.parametrize("size", [12, 16, 24])
def test_normal_populations_split_as_well_by_chance_as_in_one_of_10_000_cohorts(size):
    rng = np.random.default_rng(6)
    ordered = np.sort(rng.normal(size=(4000, size)), axis=1)
    clear = sum(
        heterogeneity.best_split(each)[1] <= heterogeneity.most_within(size) for each in ordered
    )
    assert clear <= stats.binom.isf(1e-6, 4000, 1e-4)


def test_a_small_gap_matters_to_nobody():
    rng = np.random.default_rng(6)
    found = parts(devices(rng, 5_000, [0.0] * 12 + [0.2] * 12))
    assert (found.ratio < 0.15, found.p) == (True, 1.0)


def test_a_few_odd_devices_are_no_half():
    rng = np.random.default_rng(7)
    found = parts(devices(rng, 1200, [0.0] * 22 + [3.0] * 2))
    assert min(len(found.low), len(found.high)) == 6
    assert found.p == 1.0


def test_the_split_is_the_best_of_all():
    rng = np.random.default_rng(8)
    columns = devices(rng, 100, rng.normal(size=13) * 0.3)
    means = np.sort(shifts(TEMPERATURE, scores(TEMPERATURE)[0], np.array(columns, float)))

    def within(cut):
        return sum(((side - side.mean()) ** 2).sum() for side in (means[:cut], means[cut:]))

    found = parts(columns)
    best = min(range(4, 10), key=within)
    assert len(found.low) == best
    assert found.ratio == pytest.approx(within(best) / ((means - means.mean()) ** 2).sum())


def test_p_is_that_of_cochran_s_q():
    rng = np.random.default_rng(9)
    rows = [100, 400] * 8
    columns = [devices(rng, n, [0.45 * (k % 4 > 1)])[0] for k, n in enumerate(rows)]
    location = scores(TEMPERATURE)[0]
    means = shifts(TEMPERATURE, location, np.array(columns, float))
    weights = np.array(rows) / variance(TEMPERATURE, location)
    q = (weights * (means - np.average(means, weights=weights)) ** 2).sum()
    found = parts(columns)
    expected = stats.chi2.sf(q, 15)
    assert found.p in (1.0, pytest.approx(expected))
    assert expected < 1e-3


def test_eleven_devices_words_and_unknown_references_are_not_looked_at():
    rng = np.random.default_rng(10)
    columns = devices(rng, 60, [0.0] * 12)
    words = Feature("city", counts=(50, 50, 0, 0), kind="words", words=("a", "b"))
    empty = Feature("none", (0.0, 1.0), (0, 0, 0, 0, 0))
    tables = [(c, (30, 30, 0, 0), (0, 60, 0, 0, 0)) for c in columns]
    found = heterogeneity.parts((TEMPERATURE, words, empty), tables)
    assert [each.index for each in found] == [0]
    small = [((0, 0, 0, 49, *c[4:4]),) for c in columns[:1]]
    assert heterogeneity.parts((TEMPERATURE,), [*small, *[(c,) for c in columns[1:]]]) == ()


def test_positions_are_those_of_the_devices_given():
    """A device without enough rows is on neither side."""
    rng = np.random.default_rng(11)
    columns = devices(rng, 1200, [0.0] * 8 + [0.6] * 8)
    tables = [((),) if n in (0, 9) else (counts,) for n, counts in enumerate(columns)]
    (found,) = heterogeneity.parts((TEMPERATURE,), tables)
    assert found.low == (1, 2, 3, 4, 5, 6, 7)
    assert found.high == (8, 10, 11, 12, 13, 14, 15)


def test_devices_that_are_all_alike_have_no_sides():
    same = devices(np.random.default_rng(12), 100, [0.0]) * 12
    found = parts(same)
    assert (found.ratio, found.p) == (1.0, 1.0)
    assert len(list(itertools.chain(found.low, found.high))) == 12
