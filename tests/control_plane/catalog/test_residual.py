"""The basis of the residual, against numpy's own decomposition and against a device's sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from control_plane.catalog.profile import make_input_profile
from control_plane.catalog.residual import fit_basis, project
from edge_agent.watch.fold import FeatureFold
from edge_agent.watch.residual import Plane
from protocol.members import TensorSpec
from protocol.profile import Basis


def related(rows=2000, columns=12, hidden=3, noise=0.3, seed=0):
    """Columns that `hidden` things move, each with noise of its own."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, hidden)) @ rng.normal(size=(hidden, columns))
    return (mixed + noise * rng.normal(size=mixed.shape)).astype(np.float32)


def made(rows):
    spec = TensorSpec("x", "FP32", (-1, rows.shape[1]))
    return make_input_profile([spec], {"x": rows})


def test_components_are_the_right_singular_vectors_of_the_standardised_columns():
    rows = related()
    basis = fit_basis(rows)
    assert isinstance(basis, Basis)
    standard = (rows - rows.mean(axis=0, dtype=np.float64)) / rows.std(axis=0, dtype=np.float64)
    _, sizes, vectors = np.linalg.svd(standard, full_matrices=False)
    explained = np.cumsum(sizes**2) / (sizes**2).sum()
    count = int(np.searchsorted(explained, 0.9)) + 1
    components = np.array(basis.components)
    assert len(components) == count
    along = np.abs((components * vectors[:count]).sum(axis=1))
    assert along == pytest.approx(1, abs=1e-4)


@given(st.integers(3, 30), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_the_basis_is_orthonormal_and_rounded(columns, hidden, seed):
    basis = fit_basis(related(columns * 10, columns, hidden, seed=seed))
    assert isinstance(basis, Basis)
    components = np.array(basis.components)
    assert 1 <= len(components) <= min(16, columns - 1)
    assert components @ components.T == pytest.approx(np.eye(len(components)), abs=1e-4)
    for number in (*basis.scale, *components.ravel().tolist()):
        assert number == float(f"{number:.6g}")
    largest = np.abs(components).max(axis=1)
    assert (components.max(axis=1) >= 0.98 * largest).all()


def test_residual_counts_are_those_a_device_makes():
    rows = related(5000)
    profile = made(rows).profile
    assert profile.residual is not None
    assert profile.residual.basis is not None
    plane, fold = Plane(profile.residual.basis), FeatureFold([profile.residual.feature])
    # A device sees rows one by one or in batches of other sizes, and so adds in another order.
    blocks = [rows[start : start + 37] for start in range(0, len(rows), 37)]
    counted = sum(fold(plane.project(block)[1][:, None]) for block in blocks)
    moved = np.abs(counted - np.array(profile.residual.feature.counts)).sum() / 2
    assert moved <= len(rows) / 1000


def test_errors_are_those_of_the_definition_in_double_precision():
    rows = related()
    basis = fit_basis(rows)
    assert isinstance(basis, Basis)
    along, errors = project(basis, rows)
    standard = (rows.astype(np.float64) - basis.centre) / basis.scale
    components = np.array(basis.components)
    assert along == pytest.approx(standard @ components.T, abs=1e-3)
    left = standard - standard @ components.T @ components
    assert errors == pytest.approx((left**2).sum(axis=1), rel=1e-2, abs=1e-4)


def test_a_broken_relation_is_seen_where_no_column_tells():
    rows = related(4000)
    basis = fit_basis(rows)
    assert isinstance(basis, Basis)
    broken = rows[:500].copy()
    broken[:, 0] = np.random.default_rng(1).permutation(broken[:, 0])
    usual, other = project(basis, rows)[1], project(basis, broken)[1]
    assert stats.ks_2samp(usual, other).pvalue < 1e-6
    assert stats.ks_2samp(rows[:500, 0], broken[:, 0]).pvalue == pytest.approx(1)


def test_rows_with_gaps_have_a_slot_of_their_own_and_no_say_in_the_basis():
    rows = related(1000)
    gaps = rows.copy()
    gaps[::10, 3] = np.nan
    gaps[5, 0] = np.inf
    whole = np.delete(rows, [*range(0, 1000, 10), 5], axis=0)
    profile = made(gaps).profile
    assert profile.residual is not None
    assert profile.residual.basis == fit_basis(whole)
    assert profile.residual.feature.counts[-1] == 101


def test_a_constant_column_has_no_scale_and_no_say():
    rows = related(1000, 6)
    rows[:, 2] = 0.1
    basis = fit_basis(rows)
    assert isinstance(basis, Basis)
    assert basis.scale[2] == 0
    assert {row[2] for row in basis.components} == {0.0}


def test_columns_far_from_zero_keep_their_place():
    rows = related(1000, 6).astype(np.float64) + 123_456.789
    basis = fit_basis(rows.astype(np.float32))
    assert isinstance(basis, Basis)
    middle = project(basis, rows.astype(np.float32))[0].mean(axis=0)
    assert np.abs(middle).max() < 0.2


CONSTANT = np.repeat(related(500, 1), 1, axis=1)


@pytest.mark.parametrize(
    "rows,why",
    [
        (related(500, 2), "2 of 3 columns"),
        (related(100, 11), "100 rows without gaps, 110 are needed"),
        (np.hstack([related(500, 2), np.ones((500, 4), np.float32)]), "2 of 6 columns vary"),
        (np.hstack([CONSTANT] * 5), "move as one"),
        (np.zeros((10, 1025), np.float32), "1,025 columns"),
    ],
    ids=["two columns", "few rows", "constants", "copies", "too wide"],
)
def test_there_is_no_residual_for_what_has_none_and_the_lint_says_why(rows, why):
    found = made(rows)
    assert found.profile.residual is None
    assert [why in lint.text for lint in found.lints if lint.code == "no-residual"] == [True]


def test_components_leave_something_over_that_is_more_than_noise():
    # Two hidden things move six columns and nothing else does.
    basis = fit_basis(related(1000, 6, hidden=2, noise=0))
    assert isinstance(basis, Basis)
    assert len(basis.components) == 1
    assert np.median(project(basis, related(1000, 6, hidden=2, noise=0))[1]) > 1e-3
