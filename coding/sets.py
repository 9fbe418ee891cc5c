"""Value sets: which values a column of trees has, for each feature or at all.

A set is ordered, so a value is its rank in it: a few bits, where the float itself is noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coding.bits import bit_lengths
from coding.elements import Array, Element, ordered, unordered
from coding.limits import MAX_VALUES


class ValueSet:
    """Different values, ascending as ordered integers within each feature."""

    def __init__(
        self, element: Element, values: Array, features: Array | None = None, space: int = 0
    ) -> None:
        """Of `values` as they lie in files, in any order and any number of times; `features`: that
        of each, where a set is per feature, of which there are `space`. What belongs to no such
        feature is left out. Raises `ValueError` for more different ones than a set may have."""
        self.element = element
        self.space = space
        sortable = ordered(values, element)
        if features is None:
            self._values: Array = np.unique(sortable)
            self._starts = np.array([0, len(self._values)], "<u4")
        else:
            inside = features < space
            sortable, features = sortable[inside], features[inside]
            order = np.lexsort((sortable, features))
            sortable, features = sortable[order], features[order]
            new = np.ones(len(sortable), np.bool_)
            new[1:] = (sortable[1:] != sortable[:-1]) | (features[1:] != features[:-1])
            self._values = sortable[new]
            self._starts = np.searchsorted(features[new], np.arange(space + 1)).astype("<u4")
        if len(self._values) > MAX_VALUES:
            raise ValueError("too many different values")

    def __len__(self) -> int:
        return len(self._values)

    def widths(self, features: Array | None, count: int) -> Array:
        """Bits of a rank among the values of each feature, `<u1`, `count` of them. Raises
        `ValueError` for a feature without values."""
        sizes = self._sizes(features, count)
        if len(sizes) and not int(sizes.min()):
            raise ValueError("a feature without values")
        return bit_lengths(sizes - np.uint32(1))

    def values_at(self, ranks: Array, features: Array | None) -> Array:
        """The values of these ranks. Raises `ValueError` beyond the last."""
        if (ranks >= self._sizes(features, len(ranks))).any():
            raise ValueError("a rank behind the last")
        first = self._starts[0] if features is None else self._starts[features]
        return unordered(self._values[first + ranks], self.element)

    def ranks_of(self, values: Array, features: Array | None) -> tuple[Array, NDArray[np.bool_]]:
        """`(ranks, whether the set has the value)`: `<u4` and bool of each value."""
        sortable = ordered(values, self.element)
        if features is None:
            low = np.zeros(len(values), np.int64)
            first, end = low, np.full(len(values), len(self._values))
        else:
            known = features < self.space
            at = np.where(known, features, 0).astype(np.int64)
            first = self._starts[at].astype(np.int64)
            end = np.where(known, self._starts[at + 1], first).astype(np.int64)
            low = first
        high = end
        # All at once, each within the values of its feature.
        for _ in range(MAX_VALUES.bit_length() + 1):
            middle = (low + high) // 2
            below = (low < high) & (
                self._values[np.minimum(middle, len(self._values) - 1)] < sortable
                if len(self._values)
                else False
            )
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        hits = low < end
        hits[hits] = self._values[low[hits]] == sortable[hits]
        return (low - first).astype("<u4"), hits

    def _sizes(self, features: Array | None, count: int) -> Array:
        if features is None:
            return np.repeat(self._starts[1:2], count)
        sizes: Array = self._starts[features.astype(np.int64) + 1] - self._starts[features]
        return sizes


def pack_steps(ascending: Array, counts: Array) -> Array:
    """First differences of ordered integers, ascending within each feature; `counts` of them each,
    and the first of each feature as it is."""
    steps = ascending.copy()
    steps[1:] -= ascending[:-1]
    first = _first(counts)
    steps[first] = ascending[first]
    return steps


def unpack_steps(steps: Array, counts: Array) -> Array:
    """The inverse of `pack_steps`."""
    summed = np.cumsum(steps, dtype=steps.dtype)
    first = _first(counts)
    before = summed[first] - steps[first]
    return summed - np.repeat(before, counts[counts > 0])


def _first(counts: Array) -> Array:
    """Where each feature that has values begins."""
    starts = np.cumsum(counts.astype(np.int64)) - counts
    return starts[counts > 0].astype("<u4")
