"""Squared prediction errors are those of the definition, whatever the rows are like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.watch.residual import Plane, Residuals
from protocol.members import Basis


def basis(columns: int, components: int, seed: int = 0, *, constant: int | None = None) -> Basis:
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.normal(size=(columns, components)))[0].T
    scale = rng.uniform(0.5, 2, columns)
    if constant is not None:
        scale[constant] = 0
    return Basis(
        tuple(rng.normal(size=columns).tolist()),
        tuple(scale.tolist()),
        tuple(tuple(row) for row in rows.tolist()),
    )


def by_definition(of: Basis, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In double precision, with the residual written out."""
    scale = np.array(of.scale)
    z = np.where(scale > 0, (rows - np.array(of.centre)) / np.where(scale > 0, scale, 1), 0)
    p = np.array(of.components)
    along = z @ p.T
    return along, ((z - along @ p) ** 2).sum(axis=1)


@given(st.integers(2, 40), st.integers(1, 16), st.integers(0, 40), st.integers(0, 1000))
def test_residual_and_coordinates_equal_the_definition_in_double_precision(d, k, rows, seed):
    of = basis(d, min(k, d), seed, constant=seed % d if seed % 2 else None)
    table = np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32) * 3
    along, errors = Plane(of).project(table)
    wanted_along, wanted = by_definition(of, table.astype(np.float64))
    assert {along.dtype, errors.dtype} == {np.dtype(np.float32)}
    assert np.allclose(along, wanted_along, rtol=1e-4, atol=1e-4)
    assert np.allclose(errors, wanted, rtol=1e-3, atol=1e-3)


def test_many_rows_are_worked_out_in_blocks_and_come_out_the_same(monkeypatch):
    of = basis(6, 2)
    table = np.random.default_rng(1).normal(size=(100, 6)).astype(np.float32)
    along, errors = Plane(of).project(table)
    monkeypatch.setattr("edge_agent.watch.residual.MOST_PRODUCTS", 12 * 7)
    again, in_blocks = Plane(of).project(table)
    assert np.allclose(again, along, rtol=1e-5, atol=1e-6)
    assert np.allclose(in_blocks, errors, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_error_and_leaves_its_neighbours_alone(value):
    of = basis(5, 2)
    table = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    wanted = Plane(of).project(table)[1].tolist()
    table[1, 3] = value
    first, second, third = Plane(of).project(table)[1].tolist()
    assert np.isnan(second)
    assert [first, third] == pytest.approx([wanted[0], wanted[2]], rel=1e-5)


def test_rows_are_only_read():
    table = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    before = table.copy()
    Plane(basis(5, 2)).project(table)
    Residuals(basis(5, 2), range(5)).behind(table)
    assert np.array_equal(table, before)


def test_rows_of_another_length_are_refused():
    for columns in (1, 4, 6):
        with pytest.raises(ValueError, match="the basis has 5"):
            Plane(basis(5, 2)).project(np.zeros((2, columns), np.float32))


def test_errors_stand_behind_the_rows_also_where_some_columns_are_no_numbers():
    table = np.random.default_rng(2).normal(size=(7, 5)).astype(np.float32)
    of = basis(3, 1)
    found = Residuals(of, [0, 2, 4]).behind(table)
    assert found.shape == (7, 6)
    assert np.array_equal(found[:, :5], table)
    assert np.allclose(found[:, 5], by_definition(of, table[:, [0, 2, 4]])[1], rtol=1e-3)
