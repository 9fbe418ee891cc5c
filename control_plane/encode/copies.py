"""Equal bytes of two files, found by comparing them at places that are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Run = tuple[int, int]

_FIRST: Final = 256
_CHUNK: Final = 1024 * 1024


def equal_ahead(a: Bytes, at: int, b: Bytes, other: int, most: int) -> int:
    """How many bytes from `a[at]` and `b[other]` on are equal, up to `most`."""
    if not 0 <= other <= len(b):
        return 0
    most = min(most, len(a) - at, len(b) - other)
    length, size = 0, _FIRST
    while length < most:
        step = min(size, most - length)
        first, second = at + length, other + length
        same = a[first : first + step] == b[second : second + step]
        if not same.all():
            return length + int(np.argmin(same))
        length += step
        size = min(2 * size, _CHUNK)
    return length


def equal_behind(a: Bytes, at: int, b: Bytes, other: int, most: int) -> int:
    """How many bytes that end before `a[at]` and `b[other]` are equal, up to `most`."""
    if not 0 <= other <= len(b):
        return 0
    return equal_ahead(a[:at][::-1], 0, b[:other][::-1], 0, most)


def equal_runs(a: Bytes, b: Bytes, least: int, most: int) -> list[Run]:
    """Runs `[start, end)` of at least `least` places at which both are equal, in order.

    The `most` longest, if there are more of them.
    """
    length = min(len(a), len(b))
    runs = [(start, end) for start, end in _true(a[:length] == b[:length]) if end - start >= least]
    longest = sorted(runs, key=lambda run: run[0] - run[1])[:most]
    return sorted(longest)


def different_blocks(a: NDArray[np.generic], b: NDArray[np.generic], block: int) -> list[Run]:
    """Runs `[first, last)` of elements, in whole blocks, outside of which both are equal."""
    different = a != b
    padded = np.zeros(-(-len(different) // block) * block, np.bool_)
    padded[: len(different)] = different
    blocks: NDArray[np.bool_] = np.logical_or.reduce(padded.reshape(-1, block), axis=1)
    return [(first * block, min(last * block, len(different))) for first, last in _true(blocks)]


def _true(flags: NDArray[np.bool_]) -> Iterator[Run]:
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return zip(edges[0::2].tolist(), edges[1::2].tolist(), strict=True)
