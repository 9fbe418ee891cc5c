"""The basis of the residual: principal components of the samples, and what they leave of a row.

Columns that no longer go together are seen in the squared prediction error although each of them
looks as it always did: Jackson and Mudholkar, "Control procedures for residuals associated with
principal component analysis", Technometrics 21 (1979). Components are eigenvectors of the
correlation matrix, which are the right singular vectors of the standardised columns and need no
second copy of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocol.profile import MAX_BASIS_COLUMNS, MAX_COMPONENTS, Basis

Rows = NDArray[np.float32]
Numbers = NDArray[np.float64]

EXPLAINED: Final = 0.9
"""Share of the variance that the components carry, if so many are allowed."""
LEAST_COLUMNS: Final = 3
ROWS_PER_COLUMN: Final = 10

_LEFT: Final = 1e-4
"""Share of the variance that components leave at least: less is the noise of float32 sums, which
another processor adds up in another order."""
_NOTHING: Final = 1e-6
_DIGITS: Final = 6
_BLOCK: Final = 8192


def fit_basis(rows: Rows, most: int = MAX_COMPONENTS) -> Basis | str:
    """The smallest number of components, at most `most`, that carry 90 % of the variance.

    `rows` are [n, columns]; those with NaN or infinity are left out. All numbers are rounded to
    six digits. Why there is no basis, in words, if there is none.
    """
    columns = rows.shape[1]
    if columns < LEAST_COLUMNS:
        return f"{columns} of {LEAST_COLUMNS} columns of numbers that it takes"
    if columns > MAX_BASIS_COLUMNS:
        return f"{columns:,} columns, at most {MAX_BASIS_COLUMNS:,} are taken together"
    finite = np.isfinite(rows).all(axis=1)
    n = int(finite.sum())
    if n < ROWS_PER_COLUMN * columns:
        return f"{n:,} rows without gaps, {ROWS_PER_COLUMN * columns:,} are needed"
    rows = rows[finite]
    centre, scale = _standard(rows)
    varying = int((scale > 0).sum())
    if varying < LEAST_COLUMNS:
        return f"{varying} of {columns:,} columns vary, {LEAST_COLUMNS} are needed"
    values, vectors = np.linalg.eigh(_correlation(rows, centre, scale))
    shares = np.clip(values[::-1], 0, None) / varying
    count = _enough(np.cumsum(shares), min(most, varying - 1))
    if not count:
        return "the columns move as one"
    return Basis(
        tuple(centre.tolist()),
        tuple(scale.tolist()),
        tuple(tuple(row) for row in _upright(vectors.T[::-1][:count]).tolist()),
    )


def project(basis: Basis, rows: Rows) -> tuple[Rows, NDArray[np.float32]]:
    """`(coordinates [n, components], squared prediction errors [n])` in float32, as on a device.

    Rows with NaN or infinity have neither: they are NaN or infinite themselves.
    """
    centre = np.array(basis.centre, np.float32)
    scale = np.array(basis.scale, np.float64)
    weight = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    components = np.array(basis.components, np.float32)
    places: list[Rows] = []
    errors: list[NDArray[np.float32]] = []
    for block in _blocks(rows):
        with np.errstate(over="ignore", invalid="ignore"):
            left: Rows = (block - centre) * weight
            along: Rows = left @ components.T
            left -= along @ components
            places.append(along)
            errors.append(np.square(left).sum(axis=1))
    return np.concatenate(places), np.concatenate(errors)


def _standard(rows: Rows) -> tuple[Numbers, Numbers]:
    """`(mean, standard deviation)` per column, rounded; 0 for a column of one value."""
    mean = rows.mean(axis=0, dtype=np.float64)
    square = sum(
        (((block.astype(np.float64) - mean) ** 2).sum(axis=0) for block in _blocks(rows)),
        np.zeros(rows.shape[1]),
    )
    deviation = np.sqrt(square / len(rows))
    # Sums of equal numbers do not cancel out to 0.
    deviation[rows.min(axis=0) == rows.max(axis=0)] = 0
    scale = _rounded(deviation)
    # Far from 0, six digits of the mean may be more than the column ever moves.
    far = np.where(scale > 0, np.abs(mean) / np.where(scale > 0, scale, 1), 0) > 10**3
    return np.where(far, mean.astype(np.float32).astype(np.float64), _rounded(mean)), scale


def _correlation(rows: Rows, centre: Numbers, scale: Numbers) -> Numbers:
    weight = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0)
    summed = np.zeros((rows.shape[1], rows.shape[1]))
    for block in _blocks(rows):
        standard = (block - centre) * weight
        summed += standard.T @ standard
    return summed / len(rows)


def _enough(explained: Numbers, most: int) -> int:
    """How many components; 0 if they cannot leave enough for a residual."""
    reached = np.flatnonzero(explained >= EXPLAINED)
    count = min(int(reached[0]) + 1 if len(reached) else most, most)
    while count and 1 - explained[count - 1] < _LEFT:
        count -= 1
    return count


def _upright(vectors: Numbers) -> Numbers:
    """Rounded, the first of the largest parts of each positive: a sign of its own it has not.

    Parts that are the noise of sums of doubles are 0, so that equal samples give equal bytes.
    """
    size = np.abs(vectors)
    vectors = np.where(size < _NOTHING, 0, vectors)
    first = (size >= 0.99 * size.max(axis=1, keepdims=True)).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), first])
    return _rounded(vectors * signs[:, None])


def _rounded(numbers: Numbers) -> Numbers:
    """To six significant digits: what the file says is what was counted with."""
    flat = [float(f"{number:.{_DIGITS}g}") for number in numbers.ravel().tolist()]
    return np.array(flat, np.float64).reshape(numbers.shape)


def _blocks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
