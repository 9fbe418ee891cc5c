"""Trees in pre-order: their shape follows from which nodes are leaves, and so do their columns.

Nodes have two children, the true one next. Whole trees are looked at together, up to 65,536 nodes;
no step per node, no recursion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coding.elements import Array
from coding.limits import BLOCK_NUMBERS, MAX_TREE

(
    NODE_TREES,
    NODE_IDS,
    TRUE_IDS,
    FALSE_IDS,
    LEAF_TREES,
    LEAF_NODES,
    LEAF_IDS,
    MODES,
) = range(8)


class Flags:
    """Which nodes are leaves: one bit for each, in pre-order of all trees."""

    def __init__(self, leaves: Array | NDArray[np.bool_]) -> None:
        self._packed = np.packbits(leaves.astype(np.bool_, copy=False))
        self.nodes = len(leaves)

    @classmethod
    def joined(cls, parts: Iterator[Array | NDArray[np.bool_]], nodes: int) -> Flags:
        """Of parts, all but the last of which are whole bytes. Raises `ValueError` unless they
        are `nodes` together."""
        flags = cls(np.zeros(0, np.bool_))
        packed: list[NDArray[np.uint8]] = []
        for part in parts:
            if flags.nodes % 8:
                raise ValueError("a part that is not whole bytes")
            packed.append(np.packbits(part.astype(np.bool_, copy=False)))
            flags.nodes += len(part)
        if flags.nodes != nodes:
            raise ValueError("another number of nodes")
        flags._packed = np.concatenate(packed) if packed else flags._packed
        return flags

    def leaves(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Of the nodes from `start` to before `stop`."""
        first = start // 8
        some = np.unpackbits(self._packed[first : -(-stop // 8)])
        return some[start - 8 * first : stop - 8 * first].astype(np.bool_)

    def leaf_count(self) -> int:
        step = 8 * BLOCK_NUMBERS
        return sum(
            int(np.count_nonzero(self.leaves(at, min(at + step, self.nodes))))
            for at in range(0, self.nodes, step)
        )


@dataclass(frozen=True, slots=True)
class Trees:
    """Some whole trees. `first`: how many trees are before them; `starts`: where each begins and,
    last, where they end, counted from their own first node."""

    first: int
    leaf: NDArray[np.bool_]
    starts: NDArray[np.int64]

    def tree_of(self) -> NDArray[np.int64]:
        """Number of each node's tree, from `first` on."""
        return np.repeat(np.arange(len(self.starts) - 1) + self.first, np.diff(self.starts))

    def ids(self) -> NDArray[np.int64]:
        """Number of each node within its tree."""
        return np.arange(len(self.leaf)) - np.repeat(self.starts[:-1], np.diff(self.starts))

    def true_ids(self) -> NDArray[np.int64]:
        return np.where(self.leaf, 0, self.ids() + 1)

    def false_ids(self) -> NDArray[np.int64]:
        """Behind the first node at which as many subtrees are open as before the branch."""
        count = len(self.leaf)
        height = _heights(self.leaf)
        keys = (height - height.min()) * (count + 1) + np.arange(count)
        wanted = keys[~self.leaf] - (count + 1)
        keys.sort()
        found = keys[np.searchsorted(keys, wanted)] % (count + 1) + 1
        ids = self.ids()
        ids[~self.leaf] += found - np.flatnonzero(~self.leaf)
        ids[self.leaf] = 0
        return ids


class Shape:
    """The columns that follow from the leaves of an ensemble with `group` values at each."""

    def __init__(self, flags: Flags, group: int = 0) -> None:
        self._flags = flags
        self._group = group

    def trees(self) -> Iterator[Trees]:
        """All trees, some at a time. Raises `ValueError` for one that is too large, and for one
        that does not end."""
        start, number = 0, 0
        nodes = self._flags.nodes
        while start < nodes:
            leaf = self._flags.leaves(start, min(start + MAX_TREE, nodes))
            height = _heights(leaf)
            lowest = np.minimum.accumulate(np.concatenate([[0], height[:-1]]))
            ends = np.flatnonzero(height < lowest) + 1
            if not len(ends):
                raise ValueError("a tree is too large, or does not end")
            yield Trees(number, leaf[: ends[-1]], np.concatenate([[0], ends]))
            start += int(ends[-1])
            number += len(ends)

    def derived(self, column: int, first: int = 0, most: int = BLOCK_NUMBERS) -> Iterator[Array]:
        """The column in parts of up to `most` elements, `<u8` (MODES: 0 branch, 1 leaf). `first`:
        the id of the first tree. Raises `ValueError` like `trees`."""
        at_leaves = column in (LEAF_TREES, LEAF_NODES, LEAF_IDS)
        group = self._group if at_leaves else 1
        step = max(1, most // group)
        for trees in self.trees():
            values = _column(trees, column, first)
            for at in range(0, len(values), step):
                some = values[at : at + step]
                if column == LEAF_IDS:
                    part = np.tile(np.arange(group), len(some))
                else:
                    part = np.repeat(some, group) if at_leaves else some
                yield part.astype("<i8").view("<u8")


def _column(trees: Trees, column: int, first: int) -> NDArray[Any]:
    if column in (NODE_TREES, LEAF_TREES):
        values = trees.tree_of() + first
    elif column in (NODE_IDS, LEAF_NODES, LEAF_IDS):
        values = trees.ids()
    elif column == TRUE_IDS:
        values = trees.true_ids()
    elif column == FALSE_IDS:
        values = trees.false_ids()
    else:
        return trees.leaf
    return values[trees.leaf] if column in (LEAF_TREES, LEAF_NODES, LEAF_IDS) else values


def _heights(leaf: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Branches less leaves, up to each node: open subtrees."""
    return np.cumsum(np.where(leaf, -1, 1))
