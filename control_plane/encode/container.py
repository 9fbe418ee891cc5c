"""A layout becomes the body of a payload: table, front, blocks.

The order of everything here: docs/reference/payload-format.md. Long because the table says what
the front and the blocks hold, so all three are planned together.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

import numpy as np

from coding import forms, ops, table
from coding.base import BaseColumn
from coding.elements import ELEMENTS, U16, Array
from coding.limits import (
    FLAGS_BLOCK,
    MAX_BASE_WINDOW,
    MAX_FRONT,
    MAX_GATHERED,
    MAX_GATHERED_OP,
    MAX_OPS,
    MAX_POOLS,
    MAX_SETS,
    MAX_VALUES,
    PREFIX,
    PREFIX_RUN,
)
from coding.varint import Buffer, unsigned
from control_plane.encode import blocks
from control_plane.encode.blocks import Source
from control_plane.encode.columns import Read
from control_plane.encode.ensembles import Ensemble
from control_plane.encode.layout import (
    DerivedColumn,
    HeldColumn,
    Layout,
    Numbers,
    Plain,
    Same,
)
from control_plane.encode.search import Effort
from control_plane.encode.value_sets import Known, Proposal, proposals

WITH_SETS: Final = (4, 8)
"""Sizes of elements that value sets may have."""


def write(
    target: Buffer,
    base: Buffer | None,
    layout: Layout,
    sink: BinaryIO,
    effort: Effort,
    tell: Callable[[int], None],
    workers: int | None = None,
) -> int:
    """Write what stands behind the header; how many bytes of it a decoder keeps.

    `tell` hears how many bytes of the target are done. Raises `ValueError` for a layout that is
    too large for a table; `OSError`.
    """
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return _Writer(target, base, layout, effort, tell, pool).write(sink)


@dataclass(slots=True, eq=False)
class _Pool:
    """Small columns of one kind of element, coded together."""

    element: int
    has_base: bool
    reads: list[Read] = field(default_factory=list)
    bases: list[Read] = field(default_factory=list)

    def source(self) -> Source:
        return Source(
            np.concatenate([read.values for read in self.reads]),
            ELEMENTS[self.element],
            base=np.concatenate([read.values for read in self.bases]) if self.has_base else None,
            same_count=self.has_base,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A column whose blocks had to be written before the table: it may have a value set."""

    blocks: list[bytes]
    proposal: Proposal | None = None
    set: ops.Set | None = None


class _Writer:
    def __init__(
        self,
        target: Buffer,
        base: Buffer | None,
        layout: Layout,
        effort: Effort,
        tell: Callable[[int], None],
        pool: Executor,
    ) -> None:
        self._target = memoryview(target)
        self._base = memoryview(base if base is not None else b"")
        self._layout = layout
        self._effort = effort
        self._tell = tell
        self._executor = pool
        self._pools: list[_Pool] = []
        self._held = {part.ensemble: part for part in layout.parts if isinstance(part, HeldColumn)}
        self._done = 0

    def write(self, sink: BinaryIO) -> int:
        gathered = self._gather()
        ready = self._ready(gathered)
        told = self._table(gathered, ready)
        packed = table.pack(told)
        # What a decoder would refuse is not written.
        table.unpack(packed, len(self._target), len(self._base))
        sink.write(self._effort.packer.open(packed))
        sink.write(self._literals(told))
        for number in range(len(told.ensembles)):
            sink.write(self._ensemble(number))
        for one in ready.values():
            sink.write(one.proposal.front if one.proposal else b"")
        for pool in self._pools:
            for block in blocks.written(pool.source(), self._effort, self._executor, self._moved):
                sink.write(block)
        self._columns(sink, gathered, ready)
        return told.kept_bytes

    # Which column goes where ------------------------------------------------------------------

    def _gather(self) -> dict[int, int]:
        """The pool of each small column, by the place of its part."""
        found: dict[int, int] = {}
        left = MAX_GATHERED
        for place, part in enumerate(self._layout.parts):
            if not isinstance(part, Numbers) or part.ensemble is not None:
                continue
            size = part.end - part.start
            alone = part.base is None or part.base_same_count
            if part.read.segment.form != forms.BYTES or not alone:
                continue
            if size > min(left, MAX_GATHERED_OP):
                continue
            number = self._pool(part.read.segment.element, part.base is not None)
            if number is None:
                continue
            self._pools[number].reads.append(part.read)
            if part.base is not None:
                self._pools[number].bases.append(part.base)
            left -= size
            found[place] = number
        return found

    def _pool(self, element: int, has_base: bool) -> int | None:
        for number, pool in enumerate(self._pools):
            if (pool.element, pool.has_base) == (element, has_base):
                return number
        if len(self._pools) == MAX_POOLS:
            return None
        self._pools.append(_Pool(element, has_base))
        return len(self._pools) - 1

    def _ready(self, gathered: dict[int, int]) -> dict[int, _Ready]:
        """Columns of trees that may have a value set, with it if that pays."""
        found: dict[int, _Ready] = {}
        left, sets, kept = MAX_VALUES, 0, self._kept()
        for place, part in enumerate(self._layout.parts):
            if (
                not isinstance(part, Numbers)
                or place in gathered
                or part.ensemble is None
                or not part.read.element.mantissa
                or part.read.element.itemsize not in WITH_SETS
                or sets == MAX_SETS
            ):
                continue
            source = self._source(part)
            without = list(blocks.written(source, self._effort, self._executor, self._moved))
            one = self._with_set(part, source, without)
            if one.set is not None:
                count = one.set.new + (one.set.base.count if one.set.base else 0)
                space = self._space(part.ensemble) or 0
                more = count * part.read.element.itemsize + 4 * (space + 2)
                if count > left or kept + more > MAX_FRONT:
                    one = _Ready(without)
                else:
                    left, sets, kept = left - count, sets + 1, kept + more
            found[place] = one
        return found

    def _kept(self) -> int:
        """Bytes of the front without value sets."""
        parts = self._layout.parts
        literals = sum(part.end - part.start for part in parts if isinstance(part, Plain))
        every = (*self._layout.ensembles, *self._layout.base_ensembles)
        held = sum(2 * len(self._layout.ensembles[number].leaves) for number in self._held)
        return literals + held + MAX_GATHERED + sum(len(each.leaves) // 8 + 1 for each in every)

    def _with_set(self, part: Numbers, source: Source, without: list[bytes]) -> _Ready:
        own, base, space = self._known(part, source)
        best = _Ready(without)
        smallest = sum(map(len, without))
        for each in self._proposals(own, base, part, space):
            found = blocks.with_set(source, each.values, without, self._effort)
            size = sum(map(len, found)) + len(each.front) + 8
            if size < smallest:
                smallest = size
                best = _Ready(found, each, self._set(part, each, source))
        return best

    def _proposals(
        self, own: Known, base: Known | None, part: Numbers, space: int
    ) -> list[Proposal]:
        element, packer = part.read.element, self._effort.packer
        return [
            *(proposals(own, base, element, space, packer) if base is not None else ()),
            *proposals(own, None, element, space, packer),
        ]

    def _known(self, part: Numbers, source: Source) -> tuple[Known, Known | None, int]:
        """Values of the column and of its base, and how many features there are."""
        per_feature = source.features is not None
        own = _branches(source.values, source.leaves, source.features)
        space = self._space(part.ensemble or 0) or 0
        if part.base is None or len(part.base.values) > MAX_VALUES:
            return own, None, space
        features = None
        if per_feature:
            other = self._layout.base_ensembles[part.base_ensemble or 0]
            if part.base_ensemble is None or other.features is None:
                return own, None, space
            features = other.features.values
        return own, _branches(part.base.values, source.base_leaves, features), space

    def _set(self, part: Numbers, proposal: Proposal, source: Source) -> ops.Set:
        base = part.base if proposal.with_base else None
        per_feature = source.features is not None
        return ops.Set(
            part.read.segment.element,
            proposal.new,
            part.ensemble if per_feature else None,
            _base_column(base) if base is not None else None,
            part.base_ensemble if per_feature and base is not None else None,
        )

    def _space(self, number: int) -> int | None:
        """Size of the space of the features that are held of an ensemble."""
        held = self._held.get(number)
        return None if held is None else int(held.read.values.max()) + 1

    # What stands before the blocks ------------------------------------------------------------

    def _table(self, gathered: dict[int, int], ready: dict[int, _Ready]) -> ops.Table:
        literal = literals = 0
        told: list[ops.Op] = []
        sets = [one.set for one in ready.values() if one.set is not None]
        for place, part in enumerate(self._layout.parts):
            size = part.end - part.start
            if isinstance(part, Plain):
                literal += size
                literals += size
                continue
            told.append(self._op(place, part, literal, gathered, ready, sets))
            literal = 0
        if len(told) > MAX_OPS:
            raise ValueError(f"{len(told):,} parts")
        return ops.Table(
            literals,
            tuple(
                ops.Ensemble(len(each.leaves), each.group, self._space(number) or 0)
                for number, each in enumerate(self._layout.ensembles)
            ),
            tuple(_base_ensemble(each) for each in self._layout.base_ensembles),
            tuple(sets),
            tuple(
                ops.Pool(pool.element, sum(len(read.values) for read in pool.reads), pool.has_base)
                for pool in self._pools
            ),
            tuple(told),
            literal,
        )

    def _op(
        self,
        place: int,
        part: Same | Numbers | DerivedColumn | HeldColumn,
        literal: int,
        gathered: dict[int, int],
        ready: dict[int, _Ready],
        sets: list[ops.Set],
    ) -> ops.Op:
        size = part.end - part.start
        if isinstance(part, Same):
            return ops.Copy(literal, size, part.base_start)
        segment, count = part.read.segment, len(part.read.values)
        if isinstance(part, HeldColumn):
            return ops.Held(literal, part.ensemble, segment.form, segment.tag, size)
        if isinstance(part, DerivedColumn):
            return ops.Derived(
                literal,
                part.column,
                part.ensemble,
                segment.form,
                segment.tag,
                count,
                size,
                part.first,
                part.read.names,
            )
        if place in gathered:
            start = part.base.start if part.base is not None else None
            return ops.Gathered(literal, gathered[place], count, size, start)
        grouped = part.role == "leaf value"
        found = ready[place].set if place in ready else None
        return ops.Column(
            literal,
            segment.form,
            segment.element,
            segment.tag,
            count,
            size,
            part.read.names,
            masked=part.ensemble is not None and not grouped,
            grouped=grouped,
            ensemble=part.ensemble,
            value_set=None if found is None else [each is found for each in sets].index(True),
            base=_base_column(part.base) if part.base is not None else None,
            base_ensemble=part.base_ensemble,
        )

    def _literals(self, told: ops.Table) -> bytes:
        """The literal pool, packed with the base's graph before it."""
        pool = b"".join(
            bytes(self._target[part.start : part.end])
            for part in self._layout.parts
            if isinstance(part, Plain)
        )
        before = b"".join(
            bytes(self._base[start : start + min(length, PREFIX_RUN)])
            for start, length in ops.uncovered(told, len(self._base))
        )
        self._moved(len(pool))
        return self._effort.packer.stream(pool, before[:PREFIX])

    def _ensemble(self, number: int) -> bytes:
        """Leaf flags, and the features if they are held."""
        ensemble = self._layout.ensembles[number]
        flags = ensemble.leaves.astype(np.uint8)
        old = np.zeros(0, np.uint8)
        if self._layout.base_ensembles:
            old = self._layout.base_ensembles[0].leaves.astype(np.uint8)
        written = [
            self._flags(flags[start : start + FLAGS_BLOCK], old, start)
            for start in range(0, len(flags), FLAGS_BLOCK)
        ]
        if number in self._held:
            written += blocks.written(self._features(number), self._effort, self._executor)
            self._moved(self._held[number].end - self._held[number].start)
        return b"".join(written)

    def _flags(self, flags: Array, old: Array, start: int) -> bytes:
        first = max(0, min(start - MAX_BASE_WINDOW // 2, len(old) - MAX_BASE_WINDOW))
        before = old[first : first + MAX_BASE_WINDOW].tobytes()
        told = unsigned(first) + unsigned(len(before))
        return self._effort.packer.stream(flags.tobytes(), before, told)

    def _features(self, number: int) -> Source:
        """The features of the branches."""
        ensemble = self._layout.ensembles[number]
        old = next(iter(self._layout.base_ensembles), None)
        base = None
        if old is not None and old.features is not None:
            base = old.features.values[~old.leaves].astype("<u2")
        return Source(
            self._held[number].read.values[~ensemble.leaves].astype("<u2"),
            ELEMENTS[U16],
            base=base,
        )

    # Blocks -----------------------------------------------------------------------------------

    def _columns(self, sink: BinaryIO, gathered: dict[int, int], ready: dict[int, _Ready]) -> None:
        for place, part in enumerate(self._layout.parts):
            if not isinstance(part, Numbers):
                if not isinstance(part, Plain | HeldColumn):
                    self._moved(part.end - part.start)
            elif place in ready:
                sink.writelines(ready[place].blocks)
            elif place not in gathered:
                source = self._source(part)
                sink.writelines(blocks.written(source, self._effort, self._executor, self._moved))

    def _source(self, part: Numbers) -> Source:
        read, base = part.read, part.base
        plain = Source(
            read.values,
            read.element,
            read.segment.form,
            read.segment.tag,
            read.names,
            base=base.values if base is not None else None,
            same_count=part.base_same_count,
        )
        if part.ensemble is None:
            return plain
        ensemble = self._layout.ensembles[part.ensemble]
        if part.role == "leaf value":
            return replace(plain, group=ensemble.group)
        old = (
            None if part.base_ensemble is None else self._layout.base_ensembles[part.base_ensemble]
        )
        held = self._held.get(part.ensemble)
        return replace(
            plain,
            leaves=ensemble.leaves,
            base_leaves=old.leaves if old is not None else None,
            same_count=False,
            features=held.read.values if held is not None else None,
        )

    def _moved(self, count: int) -> None:
        self._done = min(len(self._target), self._done + count)
        self._tell(self._done)


def _branches(values: Array, leaves: blocks.Flags | None, features: Array | None) -> Known:
    if leaves is None:
        return Known(values, features)
    return Known(values[~leaves], features[~leaves] if features is not None else None)


def _base_column(read: Read) -> BaseColumn:
    segment = read.segment
    return BaseColumn(
        read.start,
        segment.form,
        segment.element,
        segment.tag,
        len(read.values),
        read.end - read.start,
        read.names,
    )


def _base_ensemble(ensemble: Ensemble) -> ops.BaseEnsemble:
    features = ensemble.features
    return ops.BaseEnsemble(
        replace(_base_column(ensemble.modes), names=(ensemble.leaf_name,)),
        _base_column(features) if features is not None else None,
    )
