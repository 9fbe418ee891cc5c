"""What the slots of a feature say: numbers per slot whose means tell one kind of change each.

Device and control plane use the same ones, so that what they say of a window can be compared.
Shares of the reference are smoothed by half a row per slot: no slot is impossible.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

from protocol.members import Feature

_HALF: Final = 0.5
COMMON_SHARE: Final = 0.05
"""A word with a smaller share of the reference has no score of its own."""
MOST_WORDS: Final = 8


@dataclass(frozen=True, slots=True)
class Score:
    """One value per slot of a feature."""

    name: Literal["location", "scale", "outside", "word"]
    values: tuple[float, ...]
    part: int | None = None
    """Slot of the word (`word` only)."""


def shares(feature: Feature) -> tuple[float, ...]:
    """Share of the reference per slot, (count + 1/2) / (rows + slots / 2): positive, sum 1."""
    total = sum(feature.counts) + _HALF * len(feature.counts)
    return tuple((count + _HALF) / total for count in feature.counts)


def scores(feature: Feature) -> tuple[Score, ...]:
    """Location and scale of a number, or its most common words; then what lies outside.

    Location and scale are those of midranks (Ansari and Bradley 1960 for the scale), so neither
    depends on units nor on how the values are spread; over a continuous reference both have mean 0
    and variance 1. `outside` counts rows in slots that the range of the reference does not have.
    """
    own = _words(feature) if feature.kind == "words" else _ranks(feature)
    outside = _indicator(len(feature.counts), feature.outside)
    return (*own, Score("outside", outside))


def _ranks(feature: Feature) -> Iterator[Score]:
    p = shares(feature)
    offsets = [total - share / 2 - 0.5 for total, share in zip(accumulate(p), p, strict=True)]
    yield Score("location", tuple(x * math.sqrt(12) for x in offsets))
    yield Score("scale", tuple((abs(x) - 0.25) * 4 * math.sqrt(3) for x in offsets))


def _words(feature: Feature) -> Iterator[Score]:
    p = shares(feature)
    common = [slot for slot in range(len(feature.words)) if p[slot] >= COMMON_SHARE]
    for slot in sorted(common, key=lambda slot: (-p[slot], slot))[:MOST_WORDS]:
        yield Score("word", _indicator(len(p), (slot,)), slot)


def _indicator(slots: int, of: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(float(slot in of) for slot in range(slots))
