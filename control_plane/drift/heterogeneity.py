"""Whether a cohort has fallen apart: some of its devices here, the others somewhere else.

Looked for are two groups, not mere scatter: devices that differ a little each are what a fleet is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.special import chdtrc

from control_plane.drift.robust import LEAST_ROWS, Array, shifts, variance
from protocol.histogram import Counts
from protocol.members import Feature
from protocol.scores import scores

LEAST_DEVICES: Final = 12
LEAST_SIDE: Final = 0.25
"""Share of the devices on the smaller side."""
MOST_WITHIN: Final = 0.15
"""Sum of squares within the sides over that of all. The best split leaves .36 of a large normal
population and .25 of a uniform one; what is below has a gap in the middle."""
_OF_LEAST: Final = 0.043
_PER_E_FOLD: Final = 0.108
"""Few devices split well by chance. By simulation one normal population of 12 leaves less than .043
in one of 10,000 cohorts, of 16 less than .075, of 24 less than .118, of 32 less than .149."""
LEAST_GAP: Final = 0.4
"""Between the sides' means, in deviations of the reference."""
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Parts:
    """The best split of a cohort's devices by one stream."""

    index: int
    """Of the stream."""
    low: tuple[int, ...]
    high: tuple[int, ...]
    """Positions of the devices on either side, rising."""
    gap: float
    """Between the sides' mean locations, in deviations of the reference."""
    ratio: float
    """Sum of squares within the sides over that of all: 0 where each side is of one piece."""
    p: float
    """That devices of one mean scatter so; 1 wherever the sides are not clearly two."""
    drifted: Literal["low", "high"]
    """The side farther from the reference."""

    @property
    def moved(self) -> tuple[int, ...]:
        return self.low if self.drifted == "low" else self.high


def most_within(devices: int) -> float:
    """What two groups of so many devices may leave within themselves."""
    by_chance = _OF_LEAST + _PER_E_FOLD * math.log(devices / LEAST_DEVICES)
    return min(MOST_WITHIN, by_chance)


def parts(streams: Sequence[Feature], devices: Sequence[Sequence[Counts]]) -> tuple[Parts, ...]:
    """One answer per stream of numbers that `LEAST_DEVICES` devices with enough rows have.

    `devices` as for `robust.test`. p is that of Cochran's Q (1954) on mean locations; all answers
    belong into the family of tests, the clear ones and the others.
    """
    found = []
    for index, feature in enumerate(streams):
        heard = [n for n, counted in enumerate(devices) if sum(counted[index]) >= LEAST_ROWS]
        if feature.kind == "number" and len(heard) >= LEAST_DEVICES and any(feature.counts):
            table = np.asarray([devices[n][index] for n in heard], float)
            found.append(_parts(index, feature, heard, table))
    return tuple(found)


def _parts(index: int, feature: Feature, heard: Sequence[int], table: Array) -> Parts:
    location = scores(feature)[0]
    means = shifts(feature, location, table)
    order = np.argsort(means, kind="stable")
    ordered = means[order]
    cut, ratio = best_split(ordered)
    sides = float(ordered[:cut].mean()), float(ordered[cut:].mean())
    gap = sides[1] - sides[0]
    drifted: Literal["low", "high"] = "high" if abs(sides[1]) >= abs(sides[0]) else "low"
    # Where also the nearer side is far away, all of the cohort has drifted, and that is said.
    nearer = min(map(abs, sides))
    clear = ratio <= most_within(len(means)) and gap >= LEAST_GAP and nearer < gap
    weights = table.sum(axis=1) / variance(feature, location)
    middle = float(np.average(means, weights=weights))
    scatter = float((weights * (means - middle) ** 2).sum())
    p = float(chdtrc(len(means) - 1, scatter)) if clear else 1.0
    named = [sorted(heard[int(n)] for n in side) for side in (order[:cut], order[cut:])]
    return Parts(index, tuple(named[0]), tuple(named[1]), gap, ratio, p, drifted)


def best_split(ordered: Array) -> tuple[int, float]:
    """How many are on the low side of the split that leaves least within, and that share."""
    count = len(ordered)
    centred = ordered - ordered.mean()
    total = float((centred**2).sum())
    least = math.ceil(LEAST_SIDE * count)
    if total <= _ROUNDING * count:
        return count // 2, 1.0
    sizes = np.arange(least, count - least + 1)
    below = np.cumsum(centred)[sizes - 1]
    # Of centred values: the sides' sums are opposite, so this is the sum of squares between them.
    between = below**2 * (1 / sizes + 1 / (count - sizes))
    best = int(np.argmax(between))
    return int(sizes[best]), max(0.0, 1 - float(between[best]) / total)
