"""Columns of normal values as devices count them: ten bins between the deciles of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from protocol.histogram import Counts
from protocol.members import Feature

Values = npt.NDArray[np.float64]

EDGES = (-4.0, *(float(edge) for edge in ndtri(np.arange(1, 10) / 10)), 4.0)
SLOTS = len(EDGES) + 3
_TOP = np.array([*EDGES, np.inf, np.nan])


def counted(values: Values) -> Counts:
    """Slots of one column."""
    found = _TOP.searchsorted(values.ravel(), side="right")
    return tuple(int(n) for n in np.bincount(found, minlength=SLOTS))


def reference(rows: int = 5000, name: str = "temperature", seed: int = 1) -> Feature:
    """A sample of the standard normal distribution."""
    return Feature(name, EDGES, counted(np.random.default_rng(seed).normal(size=rows)))


def devices(
    rng: np.random.Generator,
    rows: int,
    offsets: Values | Sequence[float],
    scales: Values | Sequence[float] | float = 1.0,
) -> list[Counts]:
    """Per device the counts of one column: normal values with an offset and a scale of its own."""
    count = len(offsets)
    values = rng.normal(size=(count, rows)) * np.reshape(np.broadcast_to(scales, count), (-1, 1))
    return [counted(row) for row in values + np.reshape(offsets, (-1, 1))]
