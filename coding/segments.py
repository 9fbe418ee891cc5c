"""The body of a payload of segments: parts of known size, in output order.

A part is decoded or skipped. Whoever goes on after an interruption skips what is there already,
and no more than the source's and the base's cursors move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from coding import columns, forms, front, methods, streams, table
from coding.base import Base
from coding.elements import ELEMENTS, I64, U8, Array
from coding.forms import Forward
from coding.limits import BLOCK, BLOCK_NUMBERS, MAX_STORED, MAX_TABLE
from coding.methods import Context
from coding.ops import Column, Copy, Derived, Gathered, Held, Op
from coding.source import Source
from coding.trees import Shape


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes of the target: either `decode` or `skip` is called, once."""

    size: int
    decode: Callable[[], bytes]
    skip: Callable[[], None]


class Segments:
    """Reads table and front at once. Raises `ValueError`, `IndexError` and errors of unpacking."""

    def __init__(self, source: Source, target_size: int, base: Base | None, lzma: bool) -> None:
        self._source = source
        self._base: Base = base if base is not None else _Nothing()
        self._lzma = lzma
        packed = streams.read_open(source, MAX_TABLE, lzma=lzma)
        self._table = table.unpack(packed, target_size, self._base.size)
        self._front = front.read(source, self._table, base, lzma)
        self._literal = 0
        self._pooled = [0] * len(self._table.pools)

    def parts(self) -> Iterator[Part]:
        """The whole target. Raises like the constructor, also for bytes behind the last part."""
        for op in self._table.ops:
            yield from self._literals(op.literal)
            yield from self._of(op)
        yield from self._literals(self._table.tail)
        self._source.end()

    def _of(self, op: Op) -> Iterator[Part]:
        match op:
            case Copy():
                return self._copied(op)
            case Column():
                return _Blocks(self, op).parts()
            case Gathered():
                return self._gathered(op)
            case Derived():
                return _whole(op.size, self._derived(op))
            case Held():
                return _whole(op.size, self._held(op))

    @property
    def source(self) -> Source:
        return self._source

    @property
    def base(self) -> Base:
        return self._base

    @property
    def front(self) -> front.Front:
        return self._front

    @property
    def lzma(self) -> bool:
        return self._lzma

    def group(self, ensemble: int) -> int:
        return self._table.ensembles[ensemble].group

    def per_feature(self, value_set: int) -> bool:
        return self._table.sets[value_set].ensemble is not None

    def _literals(self, length: int) -> Iterator[Part]:
        start = self._literal
        self._literal += length
        for at in range(start, start + length, BLOCK):
            data = self._front.literals[at : min(at + BLOCK, start + length)]
            yield _known(data)

    def _copied(self, op: Copy) -> Iterator[Part]:
        for at in range(0, op.length, BLOCK):
            size = min(BLOCK, op.length - at)

            def decode(start: int = op.base_start + at, size: int = size) -> bytes:
                return self._base.read(start, size)

            yield Part(size, decode, _nothing)

    def _gathered(self, op: Gathered) -> Iterator[Part]:
        first = self._pooled[op.pool]
        self._pooled[op.pool] += op.elements
        yield _known(self._front.pools[op.pool][first : first + op.elements].tobytes())

    def _derived(self, op: Derived) -> Iterator[bytes]:
        ensemble = self._table.ensembles[op.ensemble]
        shape = Shape(self._front.flags[op.ensemble], ensemble.group)
        element = ELEMENTS[U8 if op.form == forms.STRINGS else I64]
        most = forms.block_count(op.form, element, op.names)
        count = 0
        for values in shape.derived(op.column, op.first, most):
            count += len(values)
            yield forms.to_bytes(values, op.form, element, op.tag, op.names)
        if count != op.count:
            raise ValueError("a derived column of another length")

    def _held(self, op: Held) -> Iterator[bytes]:
        flags, features = self._front.flags[op.ensemble], self._front.features[op.ensemble]
        if features is None:
            raise ValueError("features that are not kept")
        taken = 0
        for at in range(0, flags.nodes, BLOCK_NUMBERS):
            leaves = flags.leaves(at, min(at + BLOCK_NUMBERS, flags.nodes))
            values = np.zeros(len(leaves), "<u8")
            count = len(leaves) - int(np.count_nonzero(leaves))
            values[~leaves] = features[taken : taken + count]
            taken += count
            yield forms.to_bytes(values, op.form, ELEMENTS[I64], op.tag)


class _Blocks:
    """The blocks of one column."""

    def __init__(self, body: Segments, column: Column) -> None:
        self._body = body
        self._column = column
        self._element = ELEMENTS[column.element]
        group = body.group(column.ensemble) if column.grouped and column.ensemble is not None else 0
        self._group = group
        self._step = forms.block_count(column.form, self._element, column.names, group)
        self._branches = 0
        self._left = column.size
        self._loaded: Array | None = None
        self._forward: Forward | None = None
        if column.base is not None and column.form not in forms.FIXED:
            forward = Forward(body.base, column.base)
            if column.same_count:
                self._forward = forward
            else:
                self._loaded = forward.take(column.base.count)

    def parts(self) -> Iterator[Part]:
        for start in range(0, self._column.count, self._step):
            yield self._part(start, min(start + self._step, self._column.count))
        if self._left:
            raise ValueError("a column of another length")

    def _part(self, start: int, stop: int) -> Part:
        column, source = self._column, self._body.source
        stored = source.unsigned(MAX_STORED)
        if column.form in forms.FIXED:
            size = (stop - start) * forms.width_of(column.form, self._element)
        else:
            size = source.unsigned(min(BLOCK, self._left))
        self._left -= size
        leaves = None
        if column.masked and column.ensemble is not None:
            leaves = self._body.front.flags[column.ensemble].leaves(start, stop)
        many = stop - start - (0 if leaves is None else int(np.count_nonzero(leaves)))
        first = self._branches
        self._branches += many

        def decode() -> bytes:
            context = self._context(start, first, many)
            values = methods.decode(source.take(stored), context)
            if leaves is not None:
                spread = np.zeros(stop - start, self._element.dtype)
                spread[~leaves] = values
                values = spread
            data = forms.to_bytes(values, column.form, self._element, column.tag, column.names)
            if len(data) != size:
                raise ValueError("a block of another length")
            return data

        def skip() -> None:
            source.skip(stored)
            if self._forward is not None:
                self._forward.skip(many)

        return Part(size, decode, skip)

    def _context(self, start: int, first: int, count: int) -> Context:
        """Of the elements from `start` on; `first`: how many branches are before them."""
        column, body = self._column, self._body
        values, features = None, None
        if column.value_set is not None:
            values = body.front.sets[column.value_set]
            if body.per_feature(column.value_set) and column.ensemble is not None:
                held = body.front.features[column.ensemble]
                features = None if held is None else held[first : first + count]
        base = self._same(start, count)
        window = self._window if column.base is not None and base is None else None
        return Context(self._element, count, body.lzma, base, window, values, features, self._group)

    def _same(self, start: int, count: int) -> Array | None:
        column = self._column
        if column.base is None or not column.same_count:
            return None
        if self._forward is not None:
            return self._forward.take(count)
        return columns.fixed(self._body.base, column.base, start, count)

    def _window(self, first: int, count: int) -> Array:
        column = self._column
        if column.base is None or first + count > column.base.count:
            raise ValueError("behind the end of a column of the base")
        if self._loaded is not None:
            found = self._loaded[first : first + count]
        else:
            found = columns.fixed(self._body.base, column.base, first, count)
        if column.base_ensemble is None:
            return found
        flags = self._body.front.base_flags[column.base_ensemble]
        return found[~flags.leaves(first, first + count)]


class _Nothing:
    """The base of a payload that has none."""

    size: Final = 0

    def read(self, offset: int, length: int) -> bytes:
        raise ValueError(f"there is no base with {length:,} bytes at {offset:,}")


def _nothing() -> None:
    """What is known without the source needs no skipping."""


def _known(data: bytes) -> Part:
    return Part(len(data), lambda: data, _nothing)


def _whole(size: int, found: Iterator[bytes]) -> Iterator[Part]:
    """Parts that are as large together as the table says. Raises `ValueError`."""
    left = size
    for data in found:
        left -= len(data)
        if left < 0:
            break
        yield _known(data)
    if left:
        raise ValueError("a column of another length")
