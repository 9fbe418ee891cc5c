"""Whether a cohort differs from its reference, with the device as the sampling unit.

Rows of one device resemble each other, so a test that counts rows is sure of what is one device's
doing. Here each device gives one number per score, and what a few of them do is trimmed away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, stdtr

from control_plane.drift.distance import corrected_psi
from protocol.histogram import Counts
from protocol.members import Feature
from protocol.scores import Score, scores, shares

Array = npt.NDArray[np.float64]

LEAST_DEVICES: Final = 5
LEAST_ROWS: Final = 50
"""Of a device, to have a say."""
TRIMMED_FROM: Final = 10
TRIM: Final = 0.2
"""Share that is left out at each end, from `TRIMMED_FROM` devices on."""


@dataclass(frozen=True, slots=True)
class CohortTest:
    """One stream of a cohort against its reference."""

    index: int
    """Of the stream: a feature, or the residual after them."""
    p: float
    """Two-sided, times the number of scores looked at; 1 where too few devices have a say."""
    psi: float
    """Bias-corrected, of the merged counts of these devices."""
    score: str
    """The one that shows most: location, scale, outside, word; empty where none could be tested."""
    shift: float
    """Mean of it less that of the reference, trimmed if that is nearer to zero. Location and scale:
    in reference deviations; outside and word: in shares."""
    devices: int
    rows: int


def test(streams: Sequence[Feature], devices: Sequence[Sequence[Counts]]) -> tuple[CohortTest, ...]:
    """One test per stream. `devices`: per device the counts of each stream, () where it has none.

    Yuen's trimmed t (1974) of the devices' mean scores against the reference's, whose own sampling
    error is added. Raises `ValueError` for counts of other slots than the stream's.
    """
    return tuple(
        _stream(index, feature, table_of(feature, [device[index] for device in devices]))
        for index, feature in enumerate(streams)
    )


def table_of(feature: Feature, counts: Sequence[Counts]) -> Array:
    """Counts of the devices that have `LEAST_ROWS`, shape (devices, slots)."""
    if any(each and len(each) != len(feature.counts) for each in counts):
        raise ValueError(f"{feature.name}: the counts are of another profile")
    heard = [each for each in counts if sum(each) >= LEAST_ROWS]
    return np.asarray(heard, float).reshape(len(heard), len(feature.counts))


def shifts(feature: Feature, score: Score, table: Array) -> Array:
    """Per device the mean score less the reference's.

    The reference's is of its counts as they are: with half a row in each slot, rare slots would
    always seem to have become rarer. But the range of N numbers leaves out 2 / (N + 1) of what they
    are drawn from, on average; half a row in each of the four slots outside is just that.
    """
    values = np.asarray(score.values)
    known = np.asarray(feature.counts, float)
    means: Array = table @ values / table.sum(axis=1)
    if _of_range(feature, score):
        return means - float(np.asarray(shares(feature)) @ values)
    return means - float(known @ values / known.sum())


def variance(feature: Feature, score: Score) -> float:
    """Of one row's score in the reference, with half a row in each slot: never 0 by luck."""
    p, values = np.asarray(shares(feature)), np.asarray(score.values)
    return float(p @ values**2 - (p @ values) ** 2)


def trimmed(values: Array) -> tuple[float, float, int]:
    """Trimmed mean, its squared standard error by the winsorised variance, degrees of freedom.

    A plain mean below `TRIMMED_FROM` values. At least 2 values.
    """
    count = len(values)
    cut = math.floor(TRIM * count) if count >= TRIMMED_FROM else 0
    kept = count - 2 * cut
    ordered = np.sort(values)
    winsorised = np.clip(ordered, ordered[cut], ordered[count - 1 - cut])
    error = (count - 1) * float(winsorised.var(ddof=1)) / (kept * (kept - 1))
    return float(ordered[cut : count - cut].mean()), error, kept - 1


def _stream(index: int, feature: Feature, table: Array) -> CohortTest:
    devices, rows = len(table), int(table.sum())
    reference = sum(feature.counts)
    if devices < LEAST_DEVICES or not reference:
        return CohortTest(index, 1.0, 0.0, "", 0.0, devices, rows)
    psi = corrected_psi(table.sum(axis=0).tolist(), feature.counts)
    looked_at = [(*_tested(feature, score, table), score.name) for score in scores(feature)]
    p, shift, name = min(looked_at, key=lambda each: each[0])
    return CohortTest(index, min(1.0, len(looked_at) * p), psi, name, shift, devices, rows)


def _tested(feature: Feature, score: Score, table: Array) -> tuple[float, float]:
    """`(two-sided p, shift)` of one score."""
    values = shifts(feature, score, table)
    middle, error, df = trimmed(values)
    # Of skewed values, as rare slots have, the trimmed mean is another one than the plain mean
    # without any drift: what both show counts, so the nearer to zero of them.
    mean = _nearer(middle, float(values.mean()))
    spread = variance(feature, score)
    # Devices cannot agree more closely than their rows let them.
    error = max(error, spread / float(table.sum()))
    whole = error + spread / sum(feature.counts)
    if whole <= 0:
        return 1.0, mean
    # The reference's part of the error is known, not estimated from these few (Welch 1947).
    freedom = df * (whole / error) ** 2
    deviations = mean / math.sqrt(whole)
    p = float(2 * stdtr(freedom, -abs(deviations)))
    if deviations > 0 and _of_range(feature, score):
        # What N rows leave out is about gamma distributed: with r of them outside, of shape r + 2.
        # So is its sum with the devices' error, by its first three moments (Pearson's type III).
        shape = whole**3 * sum(feature.counts) ** 4 / spread**2
        p = max(p, float(2 * gammaincc(shape, shape + deviations * math.sqrt(shape))))
    return p, mean


def _of_range(feature: Feature, score: Score) -> bool:
    """Whether the score says what is outside of a range that a sample happened to have."""
    return feature.kind == "number" and score.name == "outside"


def _nearer(first: float, second: float) -> float:
    """To zero; 0 between two of different signs."""
    return min(first, second, key=abs) if first * second > 0 else 0.0
