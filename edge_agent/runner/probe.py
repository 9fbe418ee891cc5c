"""Whether a model gives on this device what it gave where it was built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.members import Contract

Array = NDArray[Any]


def difference(
    contract: Contract, wanted: Mapping[str, Array], got: Mapping[str, Array]
) -> str | None:
    """What differs, for people ("3 of 32 differ by up to 0.21"); None if nothing does.

    Floats of outputs may differ by `absolute_tolerance + relative_tolerance * |wanted|`, where
    both are NaN they are equal; everything else must be equal.
    """
    differing: NDArray[np.bool_] | None = None
    largest = 0.0
    for spec in contract.outputs:
        a, b = wanted[spec.name], got[spec.name]
        if a.shape != b.shape:
            return f"{spec.name} has shape {_shape(b)}, wanted {_shape(a)}"
        if a.dtype != b.dtype:
            return f"{spec.name} has type {b.dtype}, wanted {a.dtype}"
        differs = outside(contract, a, b)
        if a.dtype.kind == "f" and differs.any():
            gaps = np.abs(a.astype(np.float64) - b.astype(np.float64))[differs]
            largest = max(largest, float(np.nan_to_num(gaps, nan=np.inf).max()))
        table = differs.reshape(len(a) if a.ndim else 1, -1)
        rows: NDArray[np.bool_] = np.logical_or.reduce(table, axis=1)
        if differing is None:
            differing = rows
        elif len(differing) == len(rows):
            differing = differing | rows
        else:
            # Outputs of different lengths have no common rows: each row counts for itself.
            differing = np.concatenate([differing, rows])
    if differing is None or not differing.any():
        return None
    by = f" by up to {largest:.3g}" if largest else ""
    return f"{int(differing.sum())} of {len(differing)} differ{by}"


def outside(contract: Contract, wanted: Array, got: Array) -> NDArray[np.bool_]:
    """Per element, whether it differs by more than the contract's tolerance; NaN equals NaN."""
    if wanted.dtype.kind != "f":
        return np.asarray(wanted != got, np.bool_)
    return ~np.isclose(
        got.astype(np.float64),
        wanted.astype(np.float64),
        rtol=contract.relative_tolerance,
        atol=contract.absolute_tolerance,
        equal_nan=True,
    )


def _shape(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"
