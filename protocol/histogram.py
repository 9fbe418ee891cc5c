"""Mergeable counts over fixed bins: the only statistics that leave a device.

An empty histogram is "not kept" (zeroed for privacy or for room), the neutral element of `add`.
Histograms over the same bins are a commutative monoid; over different bins they do not merge.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from protocol.identifiers import Count

CONFIDENCE_BINS: Final = 20
"""Equal bins over [0, 1]; 1 itself falls into the last one."""

LATENCY_SLOTS: Final = 64
LATENCY_FIRST_S: Final = 50e-6
LATENCY_EDGES_S: Final = tuple(LATENCY_FIRST_S * 2 ** (k / 4) for k in range(LATENCY_SLOTS - 1))
"""Upper edges in seconds, a factor 2^(1/4) apart: 50 µs to 2.3 s, open at both ends."""

Counts = tuple[Count, ...]


def add(a: Sequence[int], b: Sequence[int]) -> Counts:
    """Sum of two histograms of the same bins. Raises `ValueError` for different lengths."""
    if not a:
        return tuple(b)
    if not b:
        return tuple(a)
    if len(a) != len(b):
        raise ValueError(f"histograms of {len(a)} and {len(b)} slots do not merge")
    return tuple(x + y for x, y in zip(a, b, strict=True))


def latency_slot(seconds: float) -> int:
    """Slot of one latency: slot k holds `edge[k-1] <= seconds < edge[k]`."""
    return bisect_right(LATENCY_EDGES_S, seconds)


def quantile_s(counts: Sequence[int], q: float) -> float | None:
    """The `q` quantile of a latency histogram in seconds, interpolated in its log bin.

    None without counts; the last, open slot answers with its lower edge.
    """
    total = sum(counts)
    if not total:
        return None
    rank = q * total
    seen = 0
    for slot, count in enumerate(counts):
        if count and seen + count >= rank:
            lower = LATENCY_EDGES_S[slot - 1] if slot else LATENCY_FIRST_S / 2 ** (1 / 4)
            if slot >= len(LATENCY_EDGES_S):
                return LATENCY_EDGES_S[-1]
            return float(lower * 2 ** ((rank - seen) / count / 4))
        seen += count
    return LATENCY_EDGES_S[-1]
