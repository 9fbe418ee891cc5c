"""How often a model is right: estimated without labels, measured with them.

The estimate averages what the calibration of the reference rows says of each confidence
(confidence-based performance estimation). It sees a model that knows it has become unsure. It does
not see a model that is surely wrong: whoever shows it first looks whether the inputs have drifted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import sqrt
from typing import Final

LEAST_ROWS: Final = 50
"""Rows with a confidence; fewer say nothing worth showing."""


def estimated_accuracy(
    calibration: Sequence[tuple[float, float]], confidence: Sequence[int]
) -> float | None:
    """Share of rows that are right, by their confidences alone.

    `calibration`: knots (confidence, share right), both rising, between which lies a straight line
    and beyond which nothing changes. `confidence`: rows in equal bins of [0, 1], of which each
    stands for its middle. None without knots or below `LEAST_ROWS` rows.
    """
    rows = sum(confidence)
    if not calibration or rows < LEAST_ROWS:
        return None
    width = 1 / len(confidence)
    right = sum(
        count * _between(calibration, (slot + 0.5) * width)
        for slot, count in enumerate(confidence)
        if count
    )
    return right / rows


def measured_accuracy(labelled: int, correct: int) -> tuple[float, float] | None:
    """Share of labelled rows that were right and its standard deviation, sqrt(a (1 - a) / n).

    None without labels.
    """
    if labelled <= 0:
        return None
    share = correct / labelled
    return share, sqrt(share * (1 - share) / labelled)


def _between(knots: Sequence[tuple[float, float]], at: float) -> float:
    after = bisect_right(knots, at, key=lambda knot: knot[0])
    if after == 0:
        return knots[0][1]
    if after == len(knots):
        return knots[-1][1]
    (x0, y0), (x1, y1) = knots[after - 1], knots[after]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
