"""Columns of trees whose numbers may be ranks in a value set: written without one and with some.

They are written before the table, because only then it is known which sets pay.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from coding import ops
from coding.elements import Array
from coding.limits import MAX_FRONT, MAX_GATHERED, MAX_SETS, MAX_VALUES
from control_plane.encode import blocks
from control_plane.encode.blocks import Source
from control_plane.encode.layout import HeldColumn, Layout, Numbers, Plain
from control_plane.encode.search import Effort
from control_plane.encode.sources import Sources, base_column
from control_plane.encode.value_sets import Known, Proposal, proposals

WITH_SETS: Final = (4, 8)
"""Sizes of elements that value sets may have."""
_SET_BYTES: Final = 8
"""What a set takes in the table."""


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """The blocks of a column, and the value set that they need."""

    blocks: list[bytes]
    proposal: Proposal | None = None
    set: ops.Set | None = None


def ranked(
    layout: Layout,
    sources: Sources,
    effort: Effort,
    pool: Executor,
    tell: Callable[[int], None],
) -> dict[int, Ready]:
    """By the place of its part each column that may have a value set, with it if that pays."""
    found: dict[int, Ready] = {}
    left, sets, kept = MAX_VALUES, 0, _kept(layout)
    for place, part in enumerate(layout.parts):
        if not isinstance(part, Numbers) or not _may_have_set(part) or sets == MAX_SETS:
            continue
        source = sources.numbers(part)
        without = list(blocks.written(source, effort, pool, tell))
        column = _Column(layout, sources, part, source)
        one = column.smallest(without, effort, left, MAX_FRONT - kept)
        if one.set is not None:
            left, sets = left - _count(one.set), sets + 1
            kept += column.kept(one.set)
        found[place] = one
    return found


def _may_have_set(part: Numbers) -> bool:
    element = part.read.element
    return part.ensemble is not None and bool(element.mantissa) and element.itemsize in WITH_SETS


def _kept(layout: Layout) -> int:
    """Bytes that a device keeps without value sets."""
    literals = sum(part.end - part.start for part in layout.parts if isinstance(part, Plain))
    every = (*layout.ensembles, *layout.base_ensembles)
    flags = sum(len(each.leaves) // 8 + 1 for each in every)
    held = sum(
        2 * len(layout.ensembles[part.ensemble].leaves)
        for part in layout.parts
        if isinstance(part, HeldColumn)
    )
    return literals + held + MAX_GATHERED + flags


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    layout: Layout
    sources: Sources
    part: Numbers
    source: Source

    def smallest(self, without: list[bytes], effort: Effort, values: int, room: int) -> Ready:
        """With at most so many `values`, which take no more than `room` on a device."""
        own, base, space = self._known()
        best = Ready(without)
        smallest = sum(map(len, without))
        element, packer = self.part.read.element, effort.packer
        tried = list(proposals(own, None, element, space, packer))
        if base is not None:
            tried = [*proposals(own, base, element, space, packer), *tried]
        for each in tried:
            told = self._set(each)
            if _count(told) > values or self.kept(told) > room:
                continue
            found = blocks.with_set(self.source, each.values, without, effort)
            size = sum(map(len, found)) + len(each.front) + _SET_BYTES
            if size < smallest:
                smallest = size
                best = Ready(found, each, told)
        return best

    def kept(self, told: ops.Set) -> int:
        """Bytes that a device keeps of a set."""
        space = self.sources.space(self.part.ensemble or 0)
        return _count(told) * self.part.read.element.itemsize + 4 * (space + 2)

    def _known(self) -> tuple[Known, Known | None, int]:
        """Values of the column and of its base, and how many features there are."""
        part, source = self.part, self.source
        own = _branches(source.values, source.leaves, source.features)
        space = self.sources.space(part.ensemble or 0)
        if part.base is None or len(part.base.values) > MAX_VALUES:
            return own, None, space
        if source.features is None:
            # A set that is not per feature has the zeros of the base's leaves as well.
            return own, Known(part.base.values), space
        if part.base_ensemble is None:
            return own, None, space
        features = self.layout.base_ensembles[part.base_ensemble].base_features
        if features is None:
            return own, None, space
        return own, _branches(part.base.values, source.base_leaves, features.values), space

    def _set(self, proposal: Proposal) -> ops.Set:
        part = self.part
        base = part.base if proposal.with_base else None
        per_feature = self.source.features is not None
        return ops.Set(
            part.read.segment.element,
            proposal.new,
            part.ensemble if per_feature else None,
            base_column(base) if base is not None else None,
            part.base_ensemble if per_feature and base is not None else None,
        )


def _count(told: ops.Set) -> int:
    """Values, those of the base's leaves and what is there twice included."""
    return told.new + (told.base.count if told.base else 0)


def _branches(values: Array, leaves: blocks.Flags | None, features: NDArray[Any] | None) -> Known:
    if leaves is None:
        return Known(values, features)
    return Known(values[~leaves], features[~leaves] if features is not None else None)
