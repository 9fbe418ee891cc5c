"""A column of numbers as the blocks of a payload: cut, tried, framed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from coding import forms
from coding.elements import Array, Element
from coding.limits import MAX_BASE_WINDOW
from coding.methods import ONE_OF, RANKS, Context
from coding.sets import ValueSet
from coding.varint import unsigned
from control_plane.encode import search
from control_plane.encode.search import FIRST_BLOCKS, Choice, Effort, Trial
from control_plane.encode.transforms import Window

AT_ONCE: Final = 16
"""Blocks that are handed out together; those of a whole file would be held in memory."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One column and what is known of it.

    `leaves` (and `base_leaves`) are given where only branch nodes are written; `features` then
    has one number per node. `base` has as many elements where `same_count`.
    """

    values: Array
    element: Element
    form: int = forms.BYTES
    tag: int = 0
    names: tuple[bytes, ...] = ()
    leaves: Flags | None = None
    base: Array | None = None
    base_leaves: Flags | None = None
    same_count: bool = False
    group: int = 0
    features: NDArray[Any] | None = None

    def cuts(self) -> Sequence[tuple[int, int]]:
        """Elements (or nodes) of each block, `[start, end)`."""
        count = forms.block_count(self.form, self.element, self.names, self.group)
        size = len(self.values)
        return [(start, min(start + count, size)) for start in range(0, size, count)]

    def part(self, start: int, end: int, values: ValueSet | None, *, lzma: bool) -> Part:
        """The elements of one block, their context and the window of the base before them."""
        x, features = self.values[start:end], None
        if self.leaves is not None:
            x = x[~self.leaves[start:end]]
        if self.features is not None and values is not None:
            features = self.features[start:end]
            features = features if self.leaves is None else features[~self.leaves[start:end]]
            features = features.astype("<u4")
        context = Context(
            self.element,
            len(x),
            lzma,
            base=self.base[start:end] if self.base is not None and self.same_count else None,
            window=self._window if self.base is not None and not self.same_count else None,
            values=values,
            features=features,
            group=self.group,
        )
        # The first trees may be the only new ones.
        of_trees = self.leaves is not None or bool(self.group)
        windows = self._windows(start, end)
        return Part(np.ascontiguousarray(x), context, windows, start, end, of_trees)

    def _window(self, first: int, count: int) -> Array:
        if self.base is None:
            raise ValueError("a window of nothing")
        some = self.base[first : first + count]
        return some if self.base_leaves is None else some[~self.base_leaves[first : first + count]]

    def _windows(self, start: int, end: int) -> tuple[Window, ...]:
        """All of the base, or as much as may be around the same share of it."""
        if self.base is None or self.same_count or not len(self.base):
            return ()
        most = MAX_BASE_WINDOW // self.element.itemsize
        if len(self.base) <= most:
            return ((0, len(self.base)),)
        middle = (start + end) * len(self.base) // (2 * len(self.values))
        first = max(0, min(middle - most // 2, len(self.base) - most))
        return ((first, most),)

    def framed(self, part: Part, data: bytes) -> bytes:
        """A block as it stands in a payload."""
        out = b""
        if self.form not in forms.FIXED:
            written = forms.to_bytes(
                self.values[part.start : part.end], self.form, self.element, self.tag, self.names
            )
            out = unsigned(len(written))
        return unsigned(len(data)) + out + data


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    x: Array
    context: Context
    windows: tuple[Window, ...]
    start: int
    end: int
    of_trees: bool


def written(
    source: Source, effort: Effort, pool: Executor, tell: Callable[[int], None] = lambda _: None
) -> Iterator[bytes]:
    """The blocks of a column. `tell` hears how many bytes of elements each had."""
    tried: Sequence[Choice] | None = None
    cuts = source.cuts()
    at = 0
    while at < len(cuts):
        some = cuts[at : at + (AT_ONCE if at else FIRST_BLOCKS)]
        parts = [source.part(*cut, None, lzma=effort.lzma) for cut in some]
        trials = list(pool.map(lambda part: _try(part, effort, tried), parts))  # noqa: B023
        if tried is None:
            first = search.choices(parts[0].context, parts[0].windows)
            tried = search.promising(trials, [_anywhere(each) for each in first])
        for part, found in zip(parts, trials, strict=True):
            yield source.framed(part, found.data)
            tell(part.x.nbytes)
        at += len(some)


def _try(part: Part, effort: Effort, tried: Sequence[Choice] | None) -> Trial:
    """Choices are compared over the blocks of a column, wherever the window of each lies."""
    every = search.choices(part.context, part.windows)
    if tried is not None:
        every = tuple(
            each
            for each in every
            if _anywhere(each) in tried or (part.of_trees and search.is_moved(each))
        )
    found = search.trial(part.x, part.context, effort, every)
    return Trial(
        found.data,
        {_anywhere(choice): size for choice, size in found.rough.items()},
        {_anywhere(choice): size for choice, size in found.fine.items()},
    )


def _anywhere(choice: Choice) -> Choice:
    return Choice(choice.method, (0, 0) if choice.window else None)


def with_set(
    source: Source, values: ValueSet, without: Sequence[bytes], effort: Effort
) -> list[bytes]:
    """The blocks of a column, each as it is `without` a value set or with it."""
    found = []
    for cut, block in zip(source.cuts(), without, strict=True):
        part = source.part(*cut, values, lzma=effort.lzma)
        methods = [Choice(RANKS)] + [Choice(ONE_OF)] * bool(source.group)
        ranked = search.trial(part.x, part.context, effort, methods).data
        framed = source.framed(part, ranked)
        found.append(framed if len(framed) < len(block) else block)
    return found
