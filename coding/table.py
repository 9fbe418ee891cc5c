"""The table of a payload: what each part of the target is made of, in output order.

Bytes and dataclasses, both directions. Whoever holds what `unpack` returned knows that all sizes
are bounded, that no op reaches outside of the base, and that the output has the target's size.

Long because the two directions are read side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from coding import forms, varint
from coding.base import BaseColumn
from coding.elements import ELEMENTS, I64, U8
from coding.limits import (
    MAX_ENSEMBLES,
    MAX_FEATURES,
    MAX_FRONT,
    MAX_GATHERED,
    MAX_GATHERED_OP,
    MAX_GROUP,
    MAX_LEAF_NAME,
    MAX_LITERALS,
    MAX_LOADED,
    MAX_NAME,
    MAX_NAMES,
    MAX_NODES,
    MAX_OPS,
    MAX_POOLS,
    MAX_SETS,
    MAX_STREAM,
    MAX_VALUES,
)
from coding.ops import (
    BaseEnsemble,
    Column,
    Copy,
    Derived,
    Ensemble,
    Gathered,
    Held,
    Op,
    Pool,
    Set,
    Table,
    uncovered,
)
from coding.varint import Reader

__all__ = [
    "BaseColumn",
    "BaseEnsemble",
    "Column",
    "Copy",
    "Derived",
    "Ensemble",
    "Gathered",
    "Held",
    "Op",
    "Pool",
    "Set",
    "Table",
    "pack",
    "uncovered",
    "unpack",
]

END, COPY, COLUMN, GATHERED, DERIVED, HELD = range(6)

FIRST_TREE: Final = frozenset({0, 4})
"""Derived columns that need the id of the first tree."""
MODES: Final = 7
"""The derived column of strings."""
AT_LEAVES: Final = frozenset({4, 5, 6})
"""Derived columns that have the elements of leaves only, `group` for each."""

_FAR: Final = 1 << 40
"""No file is that long."""
_FORM, _BASE, _OTHER_COUNT, _MASKED, _GROUPED, _VALUES = 7, 8, 16, 32, 64, 128
_T = TypeVar("_T")


def pack(table: Table) -> bytes:
    """The bytes of a table that `unpack` accepts. Raises `ValueError` for numbers below 0."""
    uv, sv = varint.unsigned, varint.signed
    out = bytearray(uv(table.literal_bytes) + uv(len(table.ensembles)))
    for each in table.ensembles:
        out += uv(each.nodes) + uv(each.group) + bytes([bool(each.features)])
        out += uv(each.features) if each.features else b""
    out += uv(len(table.base_ensembles))
    for old in table.base_ensembles:
        modes, features = old.modes, old.features
        out += uv(modes.start) + uv(modes.size) + uv(modes.count)
        out += bytes([modes.tag, len(modes.names[0])]) + modes.names[0]
        out.append(bool(features))
        if features:
            out += uv(features.start) + uv(features.size) + bytes([features.tag])
    out += uv(len(table.sets))
    for values in table.sets:
        per_feature = values.ensemble is not None
        out += bytes([per_feature | bool(values.base) << 1, values.element])
        out += uv(values.ensemble) if values.ensemble is not None else b""
        out += uv(values.new)
        if values.base:
            out += uv(values.base.start) + bytes([values.base.form]) + _tag(values.base)
            out += uv(values.base.count) + _size(values.base)
            if per_feature:
                out += uv(values.base_ensemble or 0)
    out += uv(len(table.pools))
    for pool in table.pools:
        out += bytes([pool.element, pool.has_base]) + uv(pool.elements)
    expected = 0
    for op in table.ops:
        out += uv(op.literal)
        expected += op.literal
        start = op.base_range[0] if op.base_range else expected
        out += _pack_op(op, sv(start - expected))
        expected = op.base_range[1] if op.base_range else expected
    return bytes(out + uv(table.tail) + bytes([END]))


def _pack_op(op: Op, d: bytes) -> bytes:
    uv = varint.unsigned
    match op:
        case Copy():
            return bytes([COPY]) + uv(op.length) + d
        case Gathered():
            told = b"" if op.base_start is None else d
            return bytes([GATHERED]) + uv(op.pool) + uv(op.elements) + told
        case Derived():
            out = bytes([DERIVED, op.column]) + uv(op.ensemble) + bytes([op.form]) + _tag(op)
            out += uv(op.count) + uv(op.size)
            out += varint.signed(op.first) if op.column in (0, 4) else b""
            return out + (_names(op.names) if op.form == forms.STRINGS else b"")
        case Held():
            out = bytes([HELD]) + uv(op.ensemble) + bytes([op.form])
            return out + _tag(op) + uv(op.size)
        case Column():
            return _pack_column(op, d)


def _pack_column(op: Column, d: bytes) -> bytes:
    uv, base = varint.unsigned, op.base
    other = base is not None and base.count != op.count
    bits = op.form | bool(base) * _BASE | other * _OTHER_COUNT | op.masked * _MASKED
    bits |= op.grouped * _GROUPED | (op.value_set is not None) * _VALUES
    out = bytes([COLUMN, bits, op.element]) + _tag(op)
    out += (b"" if op.masked else uv(op.count)) + _size(op)
    out += _names(op.names) if op.form == forms.STRINGS else b""
    if op.ensemble is not None and (op.masked or op.grouped):
        out += uv(op.ensemble)
    out += b"" if op.value_set is None else uv(op.value_set)
    if base:
        out += d + (uv(base.count) if other else b"") + _size(base)
        out += uv(op.base_ensemble or 0) if op.masked else b""
    return out


def _tag(column: Column | BaseColumn | Derived | Held) -> bytes:
    return bytes([column.tag]) if column.form in forms.WITH_TAG else b""


def _size(column: Column | BaseColumn) -> bytes:
    return b"" if column.form in forms.FIXED else varint.unsigned(column.size)


def _names(names: Sequence[bytes]) -> bytes:
    listed = b"".join(bytes([len(name)]) + name for name in names)
    return varint.unsigned(len(names)) + listed


def unpack(data: varint.Buffer, target_size: int, base_size: int) -> Table:
    """The table, all of it checked. Raises `ValueError` or `IndexError`."""
    return _Unpacker(data, target_size, base_size).table()


class _Unpacker:
    """One pass over the bytes of a table."""

    def __init__(self, data: varint.Buffer, target_size: int, base_size: int) -> None:
        self._reader = Reader(data)
        self._target = target_size
        self._base = base_size
        self._expected = 0
        self._ensembles: tuple[Ensemble, ...] = ()
        self._base_ensembles: tuple[BaseEnsemble, ...] = ()
        self._sets: tuple[Set, ...] = ()
        self._pools: tuple[Pool, ...] = ()

    def table(self) -> Table:
        literal_bytes = self._reader.unsigned(MAX_LITERALS)
        self._ensembles = self._each(MAX_ENSEMBLES, self._ensemble)
        self._base_ensembles = self._each(len(self._ensembles), self._base_ensemble)
        self._sets = self._each(MAX_SETS, self._set)
        self._pools = self._each(MAX_POOLS, self._pool)
        ops, tail = self._ops()
        self._reader.end()
        table = Table(
            literal_bytes,
            self._ensembles,
            self._base_ensembles,
            self._sets,
            self._pools,
            ops,
            tail,
        )
        if sum(op.literal for op in ops) + tail != literal_bytes:
            raise ValueError("literals of another length")
        if table.kept_bytes > MAX_FRONT:
            raise ValueError(f"{table.kept_bytes:,} bytes would have to be kept")
        if table.size != self._target:
            raise ValueError(f"it gives {table.size:,} of {self._target:,} bytes")
        self._check_pools(ops)
        return table

    def _each(self, most: int, one: Callable[[], _T]) -> tuple[_T, ...]:
        return tuple(one() for _ in range(self._reader.unsigned(most)))

    def _flags(self, known: int) -> int:
        flags = self._reader.byte()
        if flags & ~known:
            raise ValueError("unknown flags")
        return flags

    def _ensemble(self) -> Ensemble:
        nodes = self._reader.unsigned(MAX_NODES)
        group = self._reader.unsigned(MAX_GROUP)
        features = self._reader.unsigned(MAX_FEATURES) if self._flags(1) else 0
        if not nodes:
            raise ValueError("an ensemble without nodes")
        return Ensemble(nodes, group, features)

    def _base_ensemble(self) -> BaseEnsemble:
        read = self._reader
        start, size, nodes = (
            read.unsigned(self._base),
            read.unsigned(_FAR),
            read.unsigned(MAX_NODES),
        )
        tag, length = read.byte(), read.byte()
        if not 0 < length <= MAX_LEAF_NAME or not nodes:
            raise ValueError("an ensemble of the base has nodes, and its leaves a name")
        leaf = (bytes(read.take(length)),)
        modes = self._in_base(BaseColumn(start, forms.STRINGS, U8, tag, nodes, size, leaf))
        if not self._flags(1):
            return BaseEnsemble(modes)
        start, size, tag = read.unsigned(self._base), read.unsigned(_FAR), read.byte()
        column = BaseColumn(start, forms.TAGGED_VARINT, I64, tag, nodes, size)
        return BaseEnsemble(modes, self._in_base(column))

    def _set(self) -> Set:
        read = self._reader
        flags, code = self._flags(3), read.byte()
        if ELEMENTS[_known(code)].itemsize < 4:
            raise ValueError("value sets are of 4 or 8 bytes")
        ensemble = self._ensemble_number() if flags & 1 else None
        if ensemble is not None and not self._ensembles[ensemble].features:
            raise ValueError("values per feature, whose features are not kept")
        new = read.unsigned(min(MAX_VALUES, MAX_STREAM // ELEMENTS[code].itemsize))
        if not flags & 2:
            return Set(code, new, ensemble)
        start, form = read.unsigned(self._base), read.byte()
        tag = read.byte() if form in forms.WITH_TAG else 0
        if form == forms.STRINGS or not forms.fits(form, ELEMENTS[code], tag):
            raise ValueError("no such column")
        count = read.unsigned(MAX_VALUES)
        size = self._size_of(form, code, count)
        base = self._in_base(BaseColumn(start, form, code, tag, count, size))
        if ensemble is None:
            return Set(code, new, None, base)
        number = read.unsigned(MAX_ENSEMBLES)
        trees = self._base_ensembles[number]
        if trees.nodes != count or trees.features is None:
            raise ValueError("another number of nodes in the base")
        return Set(code, new, ensemble, base, number)

    def _pool(self) -> Pool:
        code, has_base = self._reader.byte(), self._flags(1)
        width = ELEMENTS[_known(code)].itemsize
        return Pool(code, self._reader.unsigned(MAX_GATHERED // width), bool(has_base))

    def _ops(self) -> tuple[tuple[Op, ...], int]:
        ops: list[Op] = []
        kinds: dict[int, Callable[[int], Op]] = {
            COPY: self._copy,
            COLUMN: self._column,
            GATHERED: self._gathered,
            DERIVED: self._derived,
            HELD: self._held,
        }
        while True:
            literal = self._reader.unsigned(MAX_LITERALS)
            self._expected += literal
            kind = self._reader.byte()
            if kind == END:
                return tuple(ops), literal
            if len(ops) == MAX_OPS or kind not in kinds:
                raise ValueError(f"too many parts, or one of kind {kind}")
            ops.append(kinds[kind](literal))

    def _copy(self, literal: int) -> Copy:
        length = self._reader.unsigned(_FAR)
        if not length:
            raise ValueError("nothing is copied")
        return Copy(literal, length, self._take_base(self._distance(), length))

    def _column(self, literal: int) -> Column:
        read = self._reader
        bits, code = read.byte(), read.byte()
        element, form = ELEMENTS[_known(code)], bits & _FORM
        tag = read.byte() if form in forms.WITH_TAG else 0
        if not forms.fits(form, element, tag):
            raise ValueError("no such column")
        masked, grouped = bool(bits & _MASKED), bool(bits & _GROUPED)
        if masked and (grouped or form == forms.STRINGS):
            raise ValueError("no such column")
        count = 0 if masked else read.unsigned(_FAR)
        size = 0 if form in forms.FIXED else read.unsigned(_FAR)
        names = self._names() if form == forms.STRINGS else ()
        ensemble = self._ensemble_number() if masked or grouped else None
        if ensemble is not None:
            trees = self._ensembles[ensemble]
            count = trees.nodes if masked else count
            if grouped and (not trees.group or count % trees.group):
                raise ValueError("a column without whole groups")
        if form in forms.FIXED:
            size = count * forms.width_of(form, element)
        value_set = read.unsigned(MAX_SETS) if bits & _VALUES else None
        if value_set is not None:
            values = self._sets[value_set]
            if values.element != code or (
                values.ensemble is not None and not (masked and values.ensemble == ensemble)
            ):
                raise ValueError("a value set of another column")
        base, base_ensemble = self._base_of(bits, form, code, tag, count, size, names)
        return Column(
            literal,
            form,
            code,
            tag,
            count,
            size,
            names,
            masked,
            grouped,
            ensemble,
            value_set,
            base,
            base_ensemble,
        )

    def _base_of(
        self,
        bits: int,
        form: int,
        code: int,
        tag: int,
        count: int,
        size: int,
        names: tuple[bytes, ...],
    ) -> tuple[BaseColumn | None, int | None]:
        if not bits & _BASE:
            if bits & _OTHER_COUNT:
                raise ValueError("unknown flags")
            return None, None
        distance = self._distance()
        other = bool(bits & _OTHER_COUNT)
        count = self._reader.unsigned(_FAR) if other else count
        size = self._size_of(form, code, count)
        start = self._take_base(distance, size)
        masked = bool(bits & _MASKED)
        if (other or masked) and form not in forms.FIXED and count > MAX_LOADED:
            raise ValueError("the base has too many numbers")
        column = BaseColumn(start, form, code, tag, count, size, names)
        if not masked:
            return column, None
        number = self._reader.unsigned(MAX_ENSEMBLES)
        if self._base_ensembles[number].nodes != count:
            raise ValueError("another number of nodes in the base")
        return column, number

    def _gathered(self, literal: int) -> Gathered:
        number, elements = self._reader.unsigned(MAX_POOLS), self._reader.unsigned(MAX_GATHERED_OP)
        pool = self._pools[number]
        size = elements * ELEMENTS[pool.element].itemsize
        if size > MAX_GATHERED_OP:
            raise ValueError("too much in one gathered column")
        start = self._take_base(self._distance(), size) if pool.has_base else None
        return Gathered(literal, number, elements, size, start)

    def _derived(self, literal: int) -> Derived:
        read = self._reader
        column, ensemble, form = read.byte(), self._ensemble_number(), read.byte()
        if column > MODES or form not in ((forms.STRINGS,) if column == MODES else _NUMBERS):
            raise ValueError("no such derived column")
        tag = self._tag_of(form)
        count, size = read.unsigned(_FAR), read.unsigned(_FAR)
        first = read.signed(1 << 31) if column in FIRST_TREE else 0
        names = self._names() if form == forms.STRINGS else ()
        trees = self._ensembles[ensemble]
        if form == forms.STRINGS and len(names) != 2:
            raise ValueError("modes are two")
        if column in AT_LEAVES:
            if not trees.group or count % trees.group or count > trees.nodes * trees.group:
                raise ValueError("a column of leaves without whole groups")
        elif count != trees.nodes:
            raise ValueError("another number of nodes")
        return Derived(literal, column, ensemble, form, tag, count, size, first, names)

    def _held(self, literal: int) -> Held:
        ensemble, form = self._ensemble_number(), self._reader.byte()
        if form not in _NUMBERS or not self._ensembles[ensemble].features:
            raise ValueError("features that are not kept")
        return Held(literal, ensemble, form, self._tag_of(form), self._reader.unsigned(_FAR))

    def _tag_of(self, form: int) -> int:
        tag = self._reader.byte() if form in forms.WITH_TAG else 0
        if form == forms.TAGGED_VARINT and tag >= 0x80:
            raise ValueError("no such column")
        return tag

    def _names(self) -> tuple[bytes, ...]:
        count = self._reader.unsigned(MAX_NAMES)
        names = []
        for _ in range(count):
            length = self._reader.byte()
            if length > MAX_NAME:
                raise ValueError("a name is too long")
            names.append(bytes(self._reader.take(length)))
        if not names:
            raise ValueError("strings without names")
        return tuple(names)

    def _ensemble_number(self) -> int:
        number = self._reader.unsigned(MAX_ENSEMBLES)
        if number >= len(self._ensembles):
            raise ValueError("no such ensemble")
        return number

    def _size_of(self, form: int, code: int, count: int) -> int:
        if form in forms.FIXED:
            return count * forms.width_of(form, ELEMENTS[code])
        return self._reader.unsigned(_FAR)

    def _distance(self) -> int:
        return self._expected + self._reader.signed(_FAR)

    def _take_base(self, start: int, length: int) -> int:
        if start < 0 or start + length > self._base:
            raise ValueError("it reaches outside of the base")
        self._expected = start + length
        return start

    def _in_base(self, column: BaseColumn) -> BaseColumn:
        if column.end > self._base:
            raise ValueError("it reaches outside of the base")
        return column

    def _check_pools(self, ops: Sequence[Op]) -> None:
        taken = [0] * len(self._pools)
        for op in ops:
            if isinstance(op, Gathered):
                taken[op.pool] += op.elements
        if taken != [pool.elements for pool in self._pools]:
            raise ValueError("gathered pools of another length")
        if sum(self._size_of_pool(pool) for pool in self._pools) > MAX_GATHERED:
            raise ValueError("gathered pools are too large")

    def _size_of_pool(self, pool: Pool) -> int:
        return pool.elements * ELEMENTS[pool.element].itemsize


_NUMBERS: Final = (forms.VARINT, forms.TAGGED_VARINT)


def _known(code: int) -> int:
    if code not in ELEMENTS:
        raise ValueError(f"unknown element {code}")
    return code
