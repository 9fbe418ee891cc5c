"""Which windows to merge when room runs short: a plan over the keys of rows, and their sum.

Only a complete aligned block of closed windows of one epoch and stream is ever merged. Whatever
history an epoch has, two ranges that it can emit are then nested or disjoint, and the store never
has to guess. What does not fill a block is left alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Final

from protocol.telemetry import (
    BLOCKS,
    FINAL,
    Body,
    EventWindow,
    merge_bodies,
)

Key = tuple[int, str, int, int, int, int]
"""`(epoch, stream, lo, hi, part, t0)` of a row."""

COUNTS: Final = ("inference", "drift")
EVENTS: Final = ("events",)
MOST_EVENT_CODES: Final = 64
"""In one record: more of them no control plane takes."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that together are one aligned block, to be replaced by their sum."""

    epoch: int
    stream: str
    lo: int
    hi: int
    oldest_ms: int


def plan(
    rows: Callable[[], Iterable[Key]],
    kinds: Collection[str],
    most: int,
    unfit: Collection[Block] = (),
) -> tuple[Block, ...]:
    """At most `most` blocks of the finest level at which any is complete, the oldest first.

    `rows` gives all keys, ordered by epoch, stream and `lo`, and is called once per level. Blocks
    that are `unfit` are passed over. Those of one plan have no row in common.
    """
    for size in BLOCKS[1:]:
        blocks = (each for each in complete(rows(), kinds, size) if each not in unfit)
        found = heapq.nsmallest(most, blocks, key=_by_age)
        if found:
            return tuple(found)
    return ()


def complete(rows: Iterable[Key], kinds: Collection[str], size: int) -> Iterator[Block]:
    """Blocks of `size` windows that are all present in smaller rows, and all closed."""
    finer = (
        row
        for row in rows
        if row[4] == FINAL and row[3] - row[2] + 1 < size and row[1].split("/", 1)[0] in kinds
    )
    for (epoch, stream, k), members in groupby(finer, lambda row: (row[0], row[1], row[2] // size)):
        windows, oldest = 0, None
        for _, _, lo, hi, _, t0 in members:
            windows += hi - lo + 1
            oldest = t0 if oldest is None else min(oldest, t0)
        if windows == size and oldest is not None:
            yield Block(epoch, stream, k * size, k * size + size - 1, oldest)


def merged(bodies: Iterable[Body]) -> Body:
    """The exact sum of a block's bodies, the oldest first. Raises `ValueError` where none can be
    sent: of other models or bins, or with more kinds of events than a record may hold."""
    total = reduce(merge_bodies, bodies)
    if isinstance(total, EventWindow) and len(total.counts) > MOST_EVENT_CODES:
        raise ValueError(f"{len(total.counts)} kinds of events do not fit one record")
    return total


def _by_age(block: Block) -> tuple[int, int, str, int]:
    return (block.oldest_ms, block.epoch, block.stream, block.lo)
