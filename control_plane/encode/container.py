"""A layout becomes the body of a payload: table, front, blocks.

The order of everything here: docs/reference/payload-format.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from coding import ops, table
from coding.elements import Array
from coding.limits import FLAGS_BLOCK, MAX_BASE_WINDOW, MAX_OPS, PREFIX, PREFIX_RUN
from coding.varint import Buffer, unsigned
from control_plane.encode import blocks
from control_plane.encode.layout import DerivedColumn, HeldColumn, Layout, Numbers, Plain, Same
from control_plane.encode.magnitudes import smaller
from control_plane.encode.pools import gathered
from control_plane.encode.ranked import Ready, ranked
from control_plane.encode.search import Effort
from control_plane.encode.sources import Sources, base_column, base_ensemble


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
        parts = tuple(smaller(part, effort) for part in layout.parts)
        self._layout = replace(layout, parts=parts)
        self._effort = effort
        self._tell = tell
        self._executor = pool
        self._done = 0
        self._sources = Sources(self._layout)
        self._pools, self._gathered = gathered(parts)
        self._ready: dict[int, Ready] = {}

    def write(self, sink: BinaryIO) -> int:
        self._ready = ranked(self._layout, self._sources, self._effort, self._executor, self._moved)
        told = self._table()
        packed = table.pack(told)
        # What a decoder would refuse is not written.
        table.unpack(packed, len(self._target), len(self._base))
        sink.write(self._effort.packer.open(packed))
        sink.write(self._literals(told))
        for number in range(len(told.ensembles)):
            sink.write(self._ensemble(number))
        for one in self._ready.values():
            sink.write(one.proposal.front if one.proposal else b"")
        for pool in self._pools:
            sink.writelines(self._blocks(pool.source()))
        self._columns(sink)
        return told.kept_bytes

    # What stands before the blocks ------------------------------------------------------------

    def _table(self) -> ops.Table:
        literal = literals = 0
        told: list[ops.Op] = []
        sets = [one.set for one in self._ready.values() if one.set is not None]
        for place, part in enumerate(self._layout.parts):
            size = part.end - part.start
            if isinstance(part, Plain):
                literal += size
                literals += size
                continue
            told.append(self._op(place, part, literal, sets))
            literal = 0
        if len(told) > MAX_OPS:
            raise ValueError(f"{len(told):,} parts")
        return ops.Table(
            literals,
            tuple(
                ops.Ensemble(len(each.leaves), each.group, self._sources.space(number))
                for number, each in enumerate(self._layout.ensembles)
            ),
            tuple(base_ensemble(each) for each in self._layout.base_ensembles),
            tuple(sets),
            tuple(ops.Pool(pool.element, pool.elements, pool.has_base) for pool in self._pools),
            tuple(told),
            literal,
        )

    def _op(
        self,
        place: int,
        part: Same | Numbers | DerivedColumn | HeldColumn,
        literal: int,
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
        if place in self._gathered:
            start = part.base.start if part.base is not None else None
            return ops.Gathered(literal, self._gathered[place], count, size, start)
        return self._column(place, part, literal, sets)

    def _column(self, place: int, part: Numbers, literal: int, sets: list[ops.Set]) -> ops.Column:
        segment, grouped = part.read.segment, part.role == "leaf value"
        found = self._ready[place].set if place in self._ready else None
        return ops.Column(
            literal,
            segment.form,
            segment.element,
            segment.tag,
            len(part.read.values),
            part.end - part.start,
            part.read.names,
            masked=part.ensemble is not None and not grouped,
            grouped=grouped,
            ensemble=part.ensemble,
            value_set=None if found is None else [each is found for each in sets].index(True),
            base=base_column(part.base) if part.base is not None else None,
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
        held = self._sources.held(number)
        if held is not None:
            source = self._sources.features(held)
            written += blocks.written(source, self._effort, self._executor)
            self._moved(held.end - held.start)
        return b"".join(written)

    def _flags(self, flags: Array, old: Array, start: int) -> bytes:
        first = max(0, min(start - MAX_BASE_WINDOW // 2, len(old) - MAX_BASE_WINDOW))
        before = old[first : first + MAX_BASE_WINDOW].tobytes()
        told = unsigned(first) + unsigned(len(before))
        return self._effort.packer.stream(flags.tobytes(), before, told)

    # Blocks -----------------------------------------------------------------------------------

    def _columns(self, sink: BinaryIO) -> None:
        for place, part in enumerate(self._layout.parts):
            if not isinstance(part, Numbers):
                if not isinstance(part, Plain | HeldColumn):
                    self._moved(part.end - part.start)
            elif place in self._ready:
                sink.writelines(self._ready[place].blocks)
            elif place not in self._gathered:
                sink.writelines(self._blocks(self._sources.numbers(part)))

    def _blocks(self, source: blocks.Source) -> Iterator[bytes]:
        return blocks.written(source, self._effort, self._executor, self._moved)

    def _moved(self, count: int) -> None:
        self._done = min(len(self._target), self._done + count)
        self._tell(self._done)
