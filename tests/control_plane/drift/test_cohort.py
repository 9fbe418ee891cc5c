"""The plain cohort rule: significant, large enough, and with enough rows."""

import numpy as np
import pytest

from control_plane.drift.cohort import judge
from protocol.members import Feature, Profile

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


@pytest.mark.parametrize("n, verdict", [(0, "too few"), (49, "too few"), (50, "cohort drifted")])
def test_fewer_than_50_rows_are_too_few_whatever_they_show(profile, n, verdict):
    table = np.full((n, FEATURES), 1.9)
    judged = judge(profile, counts(table))
    assert (judged.verdict, judged.rows) == (verdict, n)
    assert (judged.psi is None) is (verdict == "too few")


def test_windows_without_histograms_are_too_few(profile):
    assert judge(profile, ()).verdict == "too few"


def test_a_model_without_monitored_features_is_never_called_drifted():
    assert judge(Profile(0), ()).verdict == "too few"


def test_a_value_that_a_constant_feature_never_had_is_drift():
    constant = Profile(1000, (Feature("c", (1.0, 1.5), (0, 1000, 0, 0, 0)),))
    assert judge(constant, [(0, 500, 0, 0, 0)]).verdict == "no drift"
    assert judge(constant, [(0, 450, 50, 0, 0)]).verdict == "cohort drifted"


def test_counts_of_another_profile_do_not_compare(profile):
    with pytest.raises(ValueError, match="another profile"):
        judge(profile, [(1, 2, 3)])
