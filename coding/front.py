"""What stands before the blocks of a payload, and is kept until the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from coding import columns, methods, streams
from coding.base import Base
from coding.elements import ELEMENTS, U16, Array, unordered, unplanes
from coding.limits import (
    BLOCK,
    FLAGS_BLOCK,
    MAX_BASE_WINDOW,
    MAX_HELD,
    MAX_STORED,
    MAX_VALUES,
    PREFIX,
    PREFIX_RUN,
)
from coding.methods import Context
from coding.ops import Gathered, Pool, Set, Table, uncovered
from coding.sets import ValueSet, unpack_steps
from coding.trees import Flags
from coding.varint import Reader


@dataclass(frozen=True, slots=True)
class Front:
    """`features`: of the branch nodes of each ensemble, `<u2`, where they are held."""

    literals: bytes
    flags: tuple[Flags, ...]
    base_flags: tuple[Flags, ...]
    features: tuple[Array | None, ...]
    sets: tuple[ValueSet, ...]
    pools: tuple[Array, ...]


def literal_prefix(table: Table, base: Base) -> bytes:
    """What stands before the literal pool: the parts of the base that nothing else uses, which
    are its graph."""
    parts: list[bytes] = []
    left = PREFIX
    for start, length in uncovered(table, base.size):
        some = min(length, PREFIX_RUN, left)
        if not some:
            break
        parts.append(base.read(start, some))
        left -= some
    return b"".join(parts)


def read(reader: Reader, table: Table, base: Base | None, lzma: bool) -> Front:
    """The front that stands behind `table`. Raises `ValueError` and what `streams` raises."""
    return _Front(reader, table, base, lzma).read()


class _Front:
    def __init__(self, reader: Reader, table: Table, base: Base | None, lzma: bool) -> None:
        self._reader = reader
        self._table = table
        self._base = base
        self._lzma = lzma

    def read(self) -> Front:
        table, base = self._table, self._base
        literals = streams.read(
            self._reader,
            table.literal_bytes,
            lzma=self._lzma,
            prefix=None if base is None else lambda _: literal_prefix(table, base),
        )
        base_flags: tuple[Flags, ...] = ()
        if base is not None:
            base_flags = tuple(columns.flags_of(base, each) for each in table.base_ensembles)
        first = base_flags[0] if base_flags else None
        flags: list[Flags] = []
        features: list[Array | None] = []
        for each in table.ensembles:
            flags.append(self._flags(each.nodes, first))
            features.append(self._held(flags[-1], each.features, first) if each.features else None)
        sets = tuple(self._set(each, base_flags) for each in table.sets)
        if sum(map(len, sets)) > MAX_VALUES:
            raise ValueError("too many values in all sets")
        pools = tuple(self._pool(number, each) for number, each in enumerate(table.pools))
        return Front(literals, tuple(flags), base_flags, tuple(features), sets, pools)

    def _flags(self, nodes: int, base: Flags | None) -> Flags:
        def parts() -> Iterator[Array]:
            for at in range(0, nodes, FLAGS_BLOCK):
                count = min(FLAGS_BLOCK, nodes - at)
                data = streams.read(
                    self._reader, count, lzma=self._lzma, prefix=self._flags_before(base)
                )
                some = np.frombuffer(data, np.uint8)
                if int(some.max(initial=0)) > 1:
                    raise ValueError("a flag that is neither 0 nor 1")
                yield some

        return Flags.joined(parts(), nodes)

    def _flags_before(self, base: Flags | None) -> streams.Prefix | None:
        if base is None:
            return None

        def before(reader: Reader) -> bytes:
            first = reader.unsigned(base.nodes)
            count = reader.unsigned(min(base.nodes - first, MAX_BASE_WINDOW))
            return base.leaves(first, first + count).tobytes()

        return before

    def _held(self, flags: Flags, space: int, base: Flags | None) -> Array:
        count = flags.nodes - flags.leaf_count()
        if count > MAX_HELD:
            raise ValueError("features of too many branches")
        window: Callable[[int, int], Array] | None = None
        if base is not None and self._table.base_ensembles[0].features is not None:
            window = self._features_before(base)
        data = self._reader.take(self._reader.unsigned(MAX_STORED))
        context = Context(ELEMENTS[U16], count, self._lzma, window=window)
        found = methods.decode(data, context)
        if int(found.max(initial=0)) >= space:
            raise ValueError("a feature outside of their space")
        return found

    def _features_before(self, base: Flags) -> Callable[[int, int], Array]:
        def window(first: int, count: int) -> Array:
            held = self._base_features(0, base)
            if first + count > len(held):
                raise ValueError("behind the last branch of the base")
            return held[first : first + count]

        return window

    def _base_features(self, number: int, flags: Flags) -> Array:
        column = self._table.base_ensembles[number].features
        if column is None or self._base is None:
            raise ValueError("features of the base are not said")
        if flags.nodes - flags.leaf_count() > MAX_HELD:
            raise ValueError("the base has too many branches")
        parts = columns.of_branches(self._base, column, flags)
        return np.concatenate([part.astype("<u2") for part in parts])

    def _set(self, each: Set, base_flags: tuple[Flags, ...]) -> ValueSet:
        element = ELEMENTS[each.element]
        counts = np.array([each.new], "<u4")
        space = 0
        if each.ensemble is not None:
            space = self._table.ensembles[each.ensemble].features
            data = streams.read(self._reader, 2 * space, lzma=self._lzma)
            counts = unplanes(data, 2).astype("<u4")
            if int(counts.sum(dtype=np.int64)) != each.new:
                raise ValueError("another number of new values")
        steps = unplanes(
            streams.read(self._reader, each.new * element.itemsize, lzma=self._lzma),
            element.itemsize,
        )
        values = unordered(unpack_steps(steps, counts), element)
        features = np.repeat(np.arange(space, dtype="<u4"), counts) if space else None
        if each.base is not None and self._base is not None:
            if features is None:
                values = np.concatenate([values, *columns.parts(self._base, each.base)])
            else:
                number = each.base_ensemble or 0
                flags = base_flags[number]
                old = columns.of_branches(self._base, each.base, flags)
                values = np.concatenate([values, *old])
                features = np.concatenate([features, self._base_features(number, flags)])
        return ValueSet(element, values.astype(element.dtype, copy=False), features, space)

    def _pool(self, number: int, pool: Pool) -> Array:
        element = ELEMENTS[pool.element]
        base = self._pool_base(number) if pool.has_base else None
        step = BLOCK // element.itemsize
        found = [np.zeros(0, element.dtype)]
        for at in range(0, pool.elements, step):
            count = min(step, pool.elements - at)
            before = base[at : at + count] if base is not None else None
            data = self._reader.take(self._reader.unsigned(MAX_STORED))
            found.append(methods.decode(data, Context(element, count, self._lzma, before)))
        return np.concatenate(found)

    def _pool_base(self, number: int) -> Array:
        base, element = self._base, ELEMENTS[self._table.pools[number].element]
        if base is None:
            raise ValueError("there is no base")
        parts = [
            base.read(op.base_start, op.size)
            for op in self._table.ops
            if isinstance(op, Gathered) and op.pool == number and op.base_start is not None
        ]
        return np.frombuffer(b"".join(parts), element.dtype)
