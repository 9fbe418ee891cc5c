"""Does a candidate answer like the version before it? Two-sample tests on counts, looked at often.

Three tests, confidence bins, class counts and latency (`slowness`), each at the sample sizes 50,
100, 200, ... of the candidate. Look k (from 1) of each test spends alpha/3 · 2^-k, so that all
looks of all of them together spend at most alpha, however long a trial lasts.

Pearson's statistic needs no expected count of zero, so 0.5 is added per slot of the smaller
sample, *and in proportion* to the larger one. Adding 0.5 to both would make slots that are empty
in both look different (0.5 of 60 rows against 0.5 of 10,010): a fine model tested at n = 50
against 20,000 rows would fail every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edge_agent.watch.chisquare import log_survival

FIRST_LOOK: Final = 50
"""Rows of the candidate at the first look, and the fewest rows either side may have."""

TESTS: Final = 3
"""That share alpha."""

PSEUDO: Final = 0.5


def looks_due(rows: int) -> int:
    """Number of looks whose sample size has been reached: 1 at 50 rows, 2 at 100, 3 at 200."""
    return (rows // FIRST_LOOK).bit_length()


def log_level(look: int, alpha: float) -> float:
    """ln of what one test may spend at this look (from 1)."""
    return math.log(alpha) - math.log(TESTS) - look * math.log(2)


def differ(candidate: Sequence[int], baseline: Sequence[int], look: int, alpha: float) -> bool:
    """Whether the counts differ at the level of this look. Slots must be the same."""
    return log_p(candidate, baseline) < log_level(look, alpha)


def log_p(candidate: Sequence[int], baseline: Sequence[int]) -> float:
    """ln p of Pearson's two-sample test. Raises `ValueError` for different slots or no counts."""
    if len(candidate) != len(baseline):
        raise ValueError(f"{len(candidate)} slots against {len(baseline)}")
    if len(candidate) < 2:
        return 0.0
    rows, others = sum(candidate), sum(baseline)
    if not rows or not others:
        raise ValueError("a test needs counts on both sides")
    smaller = min(rows, others)
    mine, theirs = PSEUDO * rows / smaller, PSEUDO * others / smaller
    a = [count + mine for count in candidate]
    b = [count + theirs for count in baseline]
    total_a, total_b = sum(a), sum(b)
    share = total_a / (total_a + total_b)
    statistic = 0.0
    for x, y in zip(a, b, strict=True):
        expected = (x + y) * share
        # Both sides' terms in one: (x - e)^2 / e + (y - f)^2 / f with x - e = f - y.
        statistic += (x - expected) ** 2 / (expected * (1 - share))
    return log_survival(statistic, len(a) - 1)


def mean(bins: Sequence[int]) -> float:
    """Mean of a histogram of equal bins over [0, 1], from their middles."""
    return sum(count * (n + 0.5) for n, count in enumerate(bins)) / (sum(bins) * len(bins))


def distance(a: Sequence[int], b: Sequence[int]) -> float:
    """Total variation distance of two histograms with the same slots: 0 equal, 1 disjoint."""
    rows, others = sum(a), sum(b)
    return sum(abs(x / rows - y / others) for x, y in zip(a, b, strict=True)) / 2
