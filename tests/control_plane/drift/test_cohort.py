"""Cohorts: significant, large enough, and with enough of what is counted as independent."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from control_plane.drift.cohort import judge
from protocol.members import Basis, Feature, Profile, Residual

EDGES = tuple(float(edge) for edge in np.linspace(-2.0, 2.0, 11))
FEATURES = 20


def slots(values: np.ndarray) -> tuple[int, ...]:
    edges = np.array([*EDGES, np.inf, np.nan], np.float32)
    found = edges.searchsorted(values.astype(np.float32), side="right")
    return tuple(int(n) for n in np.bincount(found, minlength=len(EDGES) + 3))


def rows(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.clip(rng.normal(size=(n, FEATURES)), -1.99, 1.99)


@pytest.fixture(scope="module")
def profile() -> Profile:
    reference = rows(np.random.default_rng(1), 5000)
    features = tuple(Feature(f"f{i}", EDGES, slots(reference[:, i])) for i in range(FEATURES))
    return Profile(5000, features)


def counts(table: np.ndarray) -> list[tuple[int, ...]]:
    return [slots(table[:, i]) for i in range(table.shape[1])]


@pytest.mark.parametrize("n", [50, 200, 1000, 20_000])
def test_the_same_inputs_are_no_drift(profile, n):
    verdicts = [
        judge(profile, counts(rows(np.random.default_rng(seed), n))).verdict
        for seed in range(2, 27)
    ]
    assert verdicts == ["no drift"] * 25


def test_a_shifted_and_a_missing_feature_are_named_largest_first(profile):
    table = rows(np.random.default_rng(5), 1000)
    table[:, 3] += 0.5
    table[:150, 7] = np.nan
    verdict = judge(profile, counts(table))
    assert verdict.verdict == "cohort drifted"
    assert {feature.name for feature in verdict.drifted} == {"f3", "f7"}
    assert [feature.psi for feature in verdict.features] == sorted(
        (feature.psi for feature in verdict.features), reverse=True
    )
    assert verdict.psi == verdict.features[0].psi > 0.2
    assert verdict.rows == 1000


def test_a_certain_difference_that_is_too_small_to_matter_is_no_drift(profile):
    table = rows(np.random.default_rng(5), 200_000)
    table[:, 3] = np.clip(table[:, 3] + 0.11, -1.99, 1.99)
    verdict = judge(profile, counts(table))
    shifted = next(feature for feature in verdict.features if feature.name == "f3")
    assert shifted.p < 1e-4
    assert 0.0 < shifted.psi < 0.02
    assert verdict.verdict == "no drift"


@pytest.mark.parametrize(
    "n, verdict", [(0, "not enough data"), (49, "not enough data"), (50, "cohort drifted")]
)
def test_fewer_than_50_rows_are_too_few_whatever_they_show(profile, n, verdict):
    table = np.full((n, FEATURES), 1.9)
    judged = judge(profile, counts(table))
    assert (judged.verdict, judged.rows) == (verdict, n)
    assert (judged.psi is None) is (verdict == "not enough data")


def test_windows_without_histograms_are_too_few(profile):
    assert judge(profile, ()).verdict == "not enough data"


def test_a_model_without_monitored_features_is_never_called_drifted():
    assert judge(Profile(0), ()).verdict == "not enough data"


def test_a_value_that_a_constant_feature_never_had_is_drift():
    constant = Profile(1000, (Feature("c", (1.0, 1.5), (0, 1000, 0, 0, 0)),))
    assert judge(constant, [(0, 500, 0, 0, 0)]).verdict == "no drift"
    assert judge(constant, [(0, 450, 50, 0, 0)]).verdict == "cohort drifted"


def test_counts_of_another_profile_do_not_compare(profile):
    with pytest.raises(ValueError, match="another profile"):
        judge(profile, [(1, 2, 3)])


# --- the device as the unit ----------------------------------------------------------------------


def tables(device_rows: list[np.ndarray]) -> list[tuple[tuple[int, ...], ...]]:
    """Per device the counts of each feature."""
    return [tuple(counts(table)) for table in device_rows]


def merged(devices: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    return [
        tuple(int(n) for n in np.sum([device[index] for device in devices], axis=0))
        for index in range(len(devices[0]))
    ]


def by_device(profile: Profile, device_rows: list[np.ndarray]):
    devices = tables(device_rows)
    return judge(profile, merged(devices), devices=devices)


def fleet(rng: np.random.Generator, size: int, n: int = 200) -> list[np.ndarray]:
    return [rows(rng, n) for _ in range(size)]


def test_one_device_that_repeats_itself_calls_rows_but_no_cohort(profile):
    tables_here = fleet(np.random.default_rng(1), 8)
    tables_here[0] = np.repeat(tables_here[0][:1], 4000, axis=0)
    assert judge(profile, merged(tables(tables_here))).verdict == "cohort drifted"
    found = by_device(profile, tables_here)
    assert (found.verdict, found.unit, found.devices) == ("no drift", "devices", 8)
    assert found.rows == 5400


@pytest.mark.parametrize("size, unit", [(4, "rows"), (5, "devices"), (30, "devices")])
def test_five_devices_are_enough_to_be_the_unit(profile, size, unit):
    tables_here = fleet(np.random.default_rng(2), size, n=1000)
    for table in tables_here:
        table[:, 3] = np.clip(table[:, 3] + 0.8, -1.99, 1.99)
    found = by_device(profile, tables_here)
    assert (found.verdict, found.unit) == ("cohort drifted", unit)
    assert [each.name for each in found.drifted] == ["f3"]
    assert found.drifted[0].index == 3


def test_devices_with_few_rows_do_not_make_it_five(profile):
    rng = np.random.default_rng(3)
    found = by_device(profile, [*fleet(rng, 4), *fleet(rng, 3, n=49)])
    assert (found.unit, found.devices, found.verdict) == ("rows", 0, "no drift")


@pytest.mark.parametrize("size", [5, 12, 40])
def test_offsets_that_devices_have_for_good_are_no_drift(profile, size):
    rng = np.random.default_rng(4)
    for _ in range(10):
        tables_here = [
            np.clip(table + rng.normal(size=FEATURES) * 0.15, -1.99, 1.99)
            for table in fleet(rng, size)
        ]
        assert by_device(profile, tables_here).verdict == "no drift"


def test_half_of_a_cohort_is_called_half_and_its_devices_are_named(profile):
    tables_here = fleet(np.random.default_rng(5), 24, n=600)
    for table in tables_here[::2]:
        table[:, 3] = np.clip(table[:, 3] + 0.7, -1.99, 1.99)
    found = by_device(profile, tables_here)
    assert found.verdict == "half of the cohort drifted"
    assert found.part is not None
    assert (found.part.index, found.part.moved) == (3, tuple(range(0, 24, 2)))


def test_a_season_is_no_drift_when_days_are_merged_and_is_one_in_an_hour():
    """Normal values with a daily course of .7 deviations, which the reference has seen as well."""
    rng = np.random.default_rng(6)
    hours = np.arange(24)
    course = 0.7 * np.sqrt(2) * np.sin(2 * np.pi * hours / 24)
    reference = np.concatenate([rng.normal(size=400) + level for level in course])
    edges = tuple(float(edge) for edge in np.quantile(reference, np.linspace(0, 1, 11)))
    top = np.array([*edges, np.inf, np.nan])

    def counted(values: np.ndarray) -> tuple[int, ...]:
        found = top.searchsorted(values, side="right")
        return tuple(int(n) for n in np.bincount(found, minlength=len(top) + 1))

    profile = Profile(len(reference), (Feature("light", edges, counted(reference)),))
    hourly = [[(counted(rng.normal(size=50) + level),) for level in course] for _ in range(12)]
    days = [(merged(device)[0],) for device in hourly]
    assert judge(profile, merged(days), devices=days).verdict == "no drift"
    for hour in (6, 18):
        then = [device[hour] for device in hourly]
        assert judge(profile, merged(then), devices=then).verdict == "cohort drifted"


def test_the_residual_is_judged_like_a_feature_and_is_not_among_them(profile):
    """What goes together otherwise is seen there alone."""
    rng = np.random.default_rng(7)
    feature = Feature("residual", EDGES, slots(rows(rng, 5000)[:, 0]))
    basis = Basis((0.0,) * FEATURES, (1.0,) * FEATURES, ((1.0, *[0.0] * (FEATURES - 1)),))
    whole = replace(profile, residual=Residual(feature, basis))
    tables_here = [counts(table) for table in fleet(rng, 6)]
    moved = slots(np.clip(rng.normal(size=1200) + 1, -1.99, 1.99))
    found = judge(whole, merged(tables_here), moved)
    assert [(each.name, each.index) for each in found.drifted] == [("residual", FEATURES)]
    each_moved = slots(np.clip(rng.normal(size=200) + 1, -1.99, 1.99))
    found = judge(whole, merged(tables_here), moved, [(*each, each_moved) for each in tables_here])
    assert found.unit == "devices"
    assert [each.name for each in found.drifted] == ["residual"]
    without = judge(whole, merged(tables_here), (), [(*each, ()) for each in tables_here])
    assert (without.verdict, len(without.features)) == ("no drift", FEATURES)


def test_a_residual_of_another_profile_does_not_compare(profile):
    table = counts(rows(np.random.default_rng(8), 100))
    with pytest.raises(ValueError, match="another profile"):
        judge(profile, table, (1, 2, 3))
