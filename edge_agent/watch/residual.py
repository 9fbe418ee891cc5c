"""What is left of a row when its place along the principal components is taken away.

Columns that no longer go together are seen here although each of them looks as it always did:
the squared prediction error of Jackson and Mudholkar, "Control procedures for residuals associated
with principal component analysis", Technometrics 21 (1979). All in float32: two matrix products
for a block of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.watch.fold import Rows
from protocol.members import Basis

MOST_PRODUCTS: Final = 2**18
"""Of one matrix product. For more, OpenBLAS wakes threads, which then wait for each other busily:
an application has better uses for its processors."""


class Plane:
    """A basis as arrays. Its tuples, an object for every number, are not kept."""

    def __init__(self, basis: Basis) -> None:
        scale = np.array(basis.scale, np.float64)[:, None]
        self._centre = np.array(basis.centre, np.float32)[:, None]
        # A column that never moved in the reference has no say.
        self._weight = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
        self._components = np.array(basis.components, np.float32)
        self._at_once = max(1, MOST_PRODUCTS // self._components.size)

    @property
    def columns(self) -> int:
        return len(self._centre)

    def project(self, rows: Rows) -> tuple[Rows, NDArray[np.float32]]:
        """Coordinates [n, components] and squared errors [n] of rows [n, columns].

        A row with NaN or infinity in a column has the error NaN. Raises `ValueError` for rows of
        another length.
        """
        if rows.shape[1] != self.columns:
            raise ValueError(f"rows of {rows.shape[1]} columns, the basis has {self.columns}")
        along = np.empty((len(rows), len(self._components)), np.float32)
        errors = np.empty(len(rows), np.float32)
        # What is not finite, or too large for float32, comes out as NaN or infinity. Columns lie
        # in one piece each, as for counting: along short rows numpy takes longer.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(rows), self._at_once):
                block = slice(start, start + self._at_once)
                left = np.subtract(rows[block].T, self._centre, order="C")
                left *= self._weight
                place = self._components @ left
                left -= self._components.T @ place
                left *= left
                along[block] = place.T
                np.add.reduce(left, axis=0, out=errors[block])
        return along, errors


class Residuals:
    """Puts the squared error of every row behind it, as one more column."""

    def __init__(self, basis: Basis, columns: Sequence[int]) -> None:
        """`columns`: which of a row the basis is over, in its order."""
        self._plane = Plane(basis)
        self._columns = list(columns)

    def behind(self, rows: Rows) -> Rows:
        """[n, columns + 1]: the rows, and behind each its error."""
        table = np.empty((rows.shape[1] + 1, len(rows)), np.float32)
        table[:-1] = rows.T
        every = len(self._columns) == rows.shape[1]
        table[-1] = self._plane.project(table[:-1].T if every else rows[:, self._columns])[1]
        # Each column is in one piece.
        return table.T
