"""Where bytes change their kind: a frame that begins new blocks there has a code for each.

The planes of numbers, and tokens that are sorted by what they go with, are as different as
languages; one code for all of them, or matches between them, cost up to a tenth more.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LEAST: Final = 2_048
"""Bytes that are not worth a second block."""
PIECES: Final = 64
_LEAST_PIECE: Final = 256
_BLOCK_BYTES: Final = 50
"""Estimate of what a block of zstd takes for itself: its head, and its code."""

Counts = NDArray[np.int64]


def cuts(data: bytes, pieces: int = PIECES) -> list[int]:
    """Places `[0 < place < len(data)]` in order.

    `data` begins as up to `pieces` equal pieces. Of all neighbours those are joined, again and
    again, that lose least by one code, as long as they lose less than a block takes.
    """
    size = len(data)
    piece = max(_LEAST_PIECE, -(-size // pieces))
    count = -(-size // piece)
    if size < LEAST:
        return []
    keys = np.arange(size) // piece * 256 + np.frombuffer(data, np.uint8)
    counts: list[Counts] = list(np.bincount(keys, minlength=count * 256).reshape(count, 256))
    ends = [min((place + 1) * piece, size) for place in range(count)]
    alone = _bytes(np.array(counts)).tolist()
    joined = _bytes(np.array(counts[:-1]) + np.array(counts[1:])).tolist()
    gains = [_gain(alone, joined, place) for place in range(count - 1)]
    while gains:
        place = max(range(len(gains)), key=gains.__getitem__)
        if gains[place] <= 0:
            break
        counts[place] = counts[place] + counts.pop(place + 1)
        alone[place] = joined.pop(place)
        del alone[place + 1], ends[place], gains[place]
        for near in range(max(0, place - 1), min(place + 1, len(gains))):
            joined[near] = float(_bytes(counts[near] + counts[near + 1]))
            gains[near] = _gain(alone, joined, near)
    return ends[:-1]


def _gain(alone: list[float], joined: list[float], place: int) -> float:
    return alone[place] + alone[place + 1] + _BLOCK_BYTES - joined[place]


def _bytes(counts: Counts) -> NDArray[Any]:
    """Entropy of bytes that come that often, in bytes; over the last axis."""
    total = counts.sum(-1)
    each = (counts * np.log2(np.maximum(counts, 1))).sum(-1)
    found: NDArray[Any] = (total * np.log2(np.maximum(total, 1)) - each) / 8
    return found
