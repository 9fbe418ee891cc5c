"""Has a bundle become slower than the one before it? A test on latency histograms.

The measure is the 95th percentile: slower by a factor that matters, by an amount that matters, and
not by chance. Chance is judged by the quantile test, the median test of Mood and Westenberg at
another quantile (Conover, Practical Nonparametric Statistics, 3rd ed., section 4.3): requests above
and below the percentile of the one before, on both sides, and Pearson's statistic of that 2 x 2
table, at the same looks and with the same spending as the other tests (`confidence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.watch import confidence
from protocol.histogram import latency_slot, quantile_s
from protocol.members import Limits

QUANTILE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Slower:
    """95th percentiles in seconds."""

    now_s: float
    was_s: float


def slower(mine: Sequence[int], before: Sequence[int], look: int, limits: Limits) -> Slower | None:
    """None for latencies that are no worse, or that chance explains. Empty histograms say nothing.

    The histogram ends at 2.3 s: what took a third of that before cannot be seen to slow down.
    """
    now_s, was_s = quantile_s(mine, QUANTILE), quantile_s(before, QUANTILE)
    if now_s is None or was_s is None or sum(before) < confidence.FIRST_LOOK:
        return None
    if now_s < was_s * limits.latency_ratio or now_s - was_s < limits.latency_floor_s:
        return None
    slot = latency_slot(was_s)
    if not confidence.differ(_split(mine, slot), _split(before, slot), look, limits.alpha):
        return None
    return Slower(now_s, was_s)


def _split(counts: Sequence[int], slot: int) -> tuple[int, int]:
    above = sum(counts[slot + 1 :])
    return sum(counts) - above, above
