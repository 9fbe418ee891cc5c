"""Cohorts against their reference with the device as the unit: against scipy and brute force."""

import itertools

import numpy as np
import pytest
from scipy import stats

from control_plane.drift import robust
from protocol.members import Feature
from protocol.scores import scores
from tests.fakes.columns import counted, devices, reference

TEMPERATURE = reference(rows=200_000)
"""So large that its own error does not count."""


def asked(columns, feature=TEMPERATURE):
    (found,) = robust.test((feature,), [(counts,) for counts in columns])
    return found


def shifts(columns, feature=TEMPERATURE):
    return robust.shifts(feature, scores(feature)[0], np.array(columns, float))


@pytest.mark.parametrize("size", [10, 11, 12, 40])
def test_yuen_s_statistic_equals_scipy_s_trimmed_t(size):
    """scipy has it for two samples: of the second, one of no spread around zero is nothing."""
    values = np.random.default_rng(size).standard_t(3, size=size) + 0.3
    mean, error, df = robust.trimmed(values)
    cut = int(0.2 * size)
    assert mean == pytest.approx(stats.trim_mean(values, 0.2))
    assert df == size - 2 * cut - 1
    expected = stats.ttest_ind(values, np.zeros(size), equal_var=False, trim=0.2).statistic
    assert mean / error**0.5 == pytest.approx(expected)


@pytest.mark.parametrize("size", [5, 9])
def test_few_devices_are_not_trimmed(size):
    values = np.random.default_rng(size).normal(size=size) + 0.3
    mean, error, df = robust.trimmed(values)
    expected = stats.ttest_1samp(values, 0.0)
    assert mean / error**0.5 == pytest.approx(expected.statistic)
    assert df == expected.df


def test_p_of_location_is_uniform_without_drift():
    rng = np.random.default_rng(1)
    p = []
    for offsets in rng.normal(size=(400, 20)) * 0.3:
        mean, error, df = robust.trimmed(shifts(devices(rng, 100, offsets)))
        p.append(2 * stats.t.sf(abs(mean) / error**0.5, df))
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_p_of_eight_devices_is_about_that_of_all_changes_of_sign():
    rng = np.random.default_rng(2)
    signs = np.array(list(itertools.product((-1, 1), repeat=8)))
    for shift in (0.0, 0.15, 0.3):
        values = shifts(devices(rng, 100, rng.normal(size=8) * 0.2 + shift))
        exact = float((np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean())
        mean, error, df = robust.trimmed(values)
        assert 2 * stats.t.sf(abs(mean) / error**0.5, df) == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("rows", [60, 1000])
@pytest.mark.parametrize("size", [5, 9, 10, 24])
def test_without_drift_small_p_are_at_most_as_frequent_as_they_say(size, rows):
    rng = np.random.default_rng(3)
    fleets = 300
    p = [
        asked(devices(rng, rows, offsets), reference(seed=number)).p
        for number, offsets in enumerate(rng.normal(size=(fleets, size)) * 0.05)
    ]
    for level in (0.05, 0.01):
        assert sum(each < level for each in p) <= stats.binom.isf(1e-4, fleets, level)


def test_a_tenth_of_a_deviation_in_100_devices_is_called():
    rng = np.random.default_rng(4)
    found = asked(devices(rng, 200, [0.1] * 100))
    assert found.p < 1e-6
    assert (found.score, found.devices, found.rows) == ("location", 100, 20_000)
    assert found.shift == pytest.approx(0.1, abs=0.03)


def test_offsets_of_a_third_of_a_deviation_around_zero_are_not_called():
    rng = np.random.default_rng(5)
    found = [asked(devices(rng, 500, offsets)) for offsets in rng.normal(size=(20, 100)) * 0.3]
    # Taken together they scatter more, which is certain after a while and too little to matter.
    assert [each for each in found if each.p < 1e-3 and each.psi > 0.02] == []
    assert all(each.score == "scale" for each in found if each.p < 1e-3)


@pytest.mark.parametrize("size", [5, 10, 30])
def test_one_device_cannot_call_a_cohort(size):
    rng = np.random.default_rng(6)
    columns = devices(rng, 500, rng.normal(size=size) * 0.05)
    columns[0] = counted(np.full(500_000, 3.5))
    found = asked(columns)
    assert found.p > 0.01
    assert found.psi > 1


def test_a_change_of_spread_and_missing_values_are_told_by_their_scores():
    rng = np.random.default_rng(7)
    spread = asked(devices(rng, 200, rng.normal(size=20) * 0.05, 1.4))
    assert (spread.score, spread.p < 1e-4, spread.shift > 0.1) == ("scale", True, True)
    values = rng.normal(size=(20, 500))
    values[:, :10] = np.nan
    missing = asked([counted(row) for row in values])
    assert missing.score == "outside"
    assert missing.shift == pytest.approx(0.02, abs=0.002)


def test_reference_counts_that_are_few_widen_the_error():
    rng = np.random.default_rng(8)
    columns = devices(rng, 2000, [0.2] * 30)
    many, few = asked(columns), asked(columns, reference(rows=50, seed=2))
    assert many.p < 1e-9
    assert few.p > 1e-4


def test_a_slot_that_the_reference_never_had_does_not_seem_rarer():
    """With half a row in each slot, shares of the reference would all be a little too large."""
    words = Feature("city", (), (30, 20, 0, 0), "words", ("a", "b"))
    outside = scores(words)[-1]
    assert robust.shifts(words, outside, np.array([(3000, 2000, 0, 0)] * 30, float)).max() == 0
    # A range is expected to leave something out, but that it does not is no finding either.
    number = Feature("x", (0.0, 1.0), (0, 50, 0, 0, 0))
    assert asked([(0, 5000, 0, 0, 0)] * 30, number).p > 0.3


def of_samples(days, rows, size, heard):
    """References of `rows` numbers with their extremes and deciles as edges, and per day `size`
    devices of `heard` rows of the same distribution: the reference's counts, and a table
    [days, size, slots]. Ranks are uniform, whatever the distribution is."""
    rng = np.random.default_rng(14)
    sample = np.sort(rng.random((days, rows)), axis=1)
    ranks = [0, *(rows * np.arange(1, 10) // 10)]
    reached = np.concatenate([np.zeros((days, 1)), sample[:, ranks], sample[:, -1:]], axis=1)
    shares = np.diff(reached, append=1.0, axis=1)
    known = (0, *map(int, np.diff([*ranks, rows])), 0, 0, 0)
    tables = rng.multinomial(heard, shares[:, None], (days, size))
    return known, np.concatenate([tables, np.zeros((days, size, 2), int)], axis=2)


def test_a_range_that_a_sample_happened_to_have_calls_no_day():
    """At the level of a day, 6.8e-4: twenty times as many were beyond it when the range passed for
    that of the distribution."""
    days, level = 1000, 6.8e-4
    known, tables = of_samples(days, 5000, 100, 1200)
    feature = Feature("x", tuple(map(float, range(11))), known)
    found = [asked(list(map(tuple, table.tolist())), feature) for table in tables]
    assert sum(each.p < level for each in found) <= stats.binom.isf(1e-3, days, level)
    # A hundredth of the rows outside is seen, though.
    moved = tables.copy()
    moved[:3, :, -2], moved[:3, :, 5] = 12, moved[:3, :, 5] - 12
    for table in moved[:3]:
        called = asked(list(map(tuple, table.tolist())), feature)
        assert (called.score, called.p < 1e-9) == ("outside", True)


def test_p_of_what_is_outside_is_that_of_a_range_where_devices_are_many():
    """Then nothing but the reference is uncertain: p is twice the chance of a gamma variable."""
    number = Feature("x", tuple(map(float, range(11))), (0, *(500,) * 10, 0, 0, 0))
    for beyond in (6, 10, 14):
        columns = [(0, *(1_000_000 - 200 * beyond,) * 10, 2000 * beyond, 0, 0)] * 100
        p = asked(columns, number).p / len(scores(number))
        assert p == pytest.approx(2 * stats.gamma.sf(beyond, 2), rel=0.05)


def test_a_rare_slot_does_not_seem_rarer_over_many_devices():
    """Most devices have not a single such row: a mean without the upper fifth is too low."""
    rng = np.random.default_rng(13)
    feature = Feature("x", (0.0, 1.0), (0, 199_800, 0, 0, 200))
    columns = [(0, 1000 - int(n), 0, 0, int(n)) for n in rng.binomial(1000, 0.001, size=1000)]
    values = robust.shifts(feature, scores(feature)[2], np.array(columns, float))
    mean, error, df = robust.trimmed(values)
    assert 2 * stats.t.sf(abs(mean) / error**0.5, df) < 1e-3
    assert asked(columns, feature).p > 0.01


@pytest.mark.parametrize("rows, devices_heard", [(49, 0), (50, 6)])
def test_devices_with_few_rows_have_no_say(rows, devices_heard):
    found = asked(devices(np.random.default_rng(11), rows, [2.0] * 6))
    assert found.devices == devices_heard
    assert (found.p < 1) is bool(devices_heard)


def test_every_stream_has_a_test_also_those_that_nobody_counted():
    rng = np.random.default_rng(12)
    words = Feature("city", counts=(4000, 900, 100, 0), kind="words", words=("a", "b"))
    empty = Feature("none", (0.0, 1.0), (0, 0, 0, 0, 0))
    columns = devices(rng, 100, [0.0] * 8)
    cities = [(20, 60, 20, 0)] * 8
    tables = [(c, city, (0, 100, 0, 0, 0), ()) for c, city in zip(columns, cities, strict=True)]
    found = robust.test((TEMPERATURE, words, empty, TEMPERATURE), tables)
    assert [each.index for each in found] == [0, 1, 2, 3]
    assert [each.p == 1 for each in found[2:]] == [True, True]
    assert (found[1].score, found[1].p < 1e-4) == ("word", True)
    assert found[0].p > 1e-3


def test_a_constant_that_stays_is_not_called_and_one_that_changes_is():
    flat = Feature("flat", (1.0, 1.5), (0, 5000, 0, 0, 0))
    assert asked([(0, 100, 0, 0, 0)] * 8, flat).p > 0.1
    assert asked([(0, 0, 100, 0, 0)] * 8, flat).p < 1e-9


def test_counts_of_other_slots_are_refused():
    with pytest.raises(ValueError, match="another profile"):
        asked([(60, 60)] * 6)
