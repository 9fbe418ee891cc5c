"""How a column of elements lies in a file, in both directions.

Vectorised: no step per element. `names` are the strings of a column of form STRINGS, whose
elements are their positions in it; a string of a base that is none of them has the position
`len(names)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from coding.base import Base, BaseColumn
from coding.elements import ELEMENTS, I64, U8, Array, Element
from coding.limits import BLOCK, BLOCK_NUMBERS, KIB, MAX_NAME, MAX_NAMES
from coding.varint import Buffer

BYTES, TAGGED, VARINT, TAGGED_VARINT, STRINGS = range(5)
FIXED: Final = frozenset({BYTES, TAGGED})
WITH_TAG: Final = frozenset({TAGGED, TAGGED_VARINT, STRINGS})

_LONGEST: Final = 10
"""Bytes of a varint of 64 bits."""
_CHUNK: Final = 32 * KIB


def fits(form: int, element: Element, tag: int) -> bool:
    """Whether a column may be of this form."""
    if form in (VARINT, TAGGED_VARINT):
        return element.code == I64 and tag < 0x80
    if form == TAGGED:
        return element.itemsize in (4, 8)
    return form == BYTES or (form == STRINGS and element.code == U8)


def width_of(form: int, element: Element) -> int:
    """Bytes of an element of a fixed form."""
    return element.itemsize + (form == TAGGED)


def block_count(form: int, element: Element, names: Sequence[bytes] = (), group: int = 0) -> int:
    """Elements of a block: at most 256 KiB of output, and whole groups."""
    if form == BYTES:
        count = BLOCK // element.itemsize
    elif form == TAGGED:
        count = 32_768 if element.itemsize == 4 else 16_384
    elif form == STRINGS:
        count = min(BLOCK_NUMBERS, BLOCK // (2 + max(map(len, names))))
    else:
        count = BLOCK_NUMBERS
    return count // group * group if group else count


def to_bytes(
    values: Array, form: int, element: Element, tag: int, names: Sequence[bytes] = ()
) -> bytes:
    """The column as it lies in the file. Raises `IndexError` for a position without a name."""
    if form == BYTES:
        return values.astype(element.dtype, copy=False).tobytes()
    if form == STRINGS:
        return _strings(values, tag, names)
    if form == TAGGED:
        rows = np.empty((len(values), 1 + element.itemsize), np.uint8)
        rows[:, 0] = tag
        packed = np.ascontiguousarray(values, element.dtype)
        rows[:, 1:] = packed.view(np.uint8).reshape(len(values), element.itemsize)
        return rows.tobytes()
    return _varints(values.astype("<u8", copy=False), tag if form == TAGGED_VARINT else None)


def from_bytes(
    data: Buffer, form: int, element: Element, tag: int, names: Sequence[bytes] = ()
) -> Array | None:
    """The elements; None unless `to_bytes` gives the same bytes back."""
    raw = np.frombuffer(data, np.uint8)
    if form == BYTES:
        return raw.view(element.dtype) if not len(raw) % element.itemsize else None
    if form == TAGGED:
        if len(raw) % (1 + element.itemsize):
            return None
        rows = raw.reshape(-1, 1 + element.itemsize)
        if not (rows[:, 0] == tag).all():
            return None
        return np.ascontiguousarray(rows[:, 1:]).reshape(-1).view(element.dtype)
    try:
        ends = _ends(raw, form, tag)
        if (int(ends[-1]) if len(ends) else 0) != len(raw):
            return None
        found = _values(raw, ends, form, names)
    except ValueError:
        return None
    if form == STRINGS and int(found.max(initial=0)) >= len(names):
        return None
    return found if to_bytes(found, form, element, tag, names) == raw.tobytes() else None


def names_in(data: Buffer, tag: int) -> tuple[bytes, ...] | None:
    """The different strings of a column of form STRINGS, sorted; None if it is not one, or
    has more strings or longer ones than a column may have."""
    raw = np.frombuffer(data, np.uint8)
    try:
        ends = _ends(raw, STRINGS, tag)
    except ValueError:
        return None
    if not len(ends) or int(ends[-1]) != len(raw):
        return None
    records = np.unique(_records(raw, ends)).tolist()
    # NumPy drops zeros at the end, and so the length of the empty string as well.
    found = {each[1:].ljust(each[0], b"\0") if each else b"" for each in records}
    return tuple(sorted(found)) if len(found) <= MAX_NAMES else None


class Forward:
    """Reads a varint or string column of the base from its beginning, part by part."""

    def __init__(self, base: Base, column: BaseColumn) -> None:
        self._base = base
        self._column = column
        self._at = column.start
        self._held = b""
        self._left = column.count
        # So many that even the longest are not more than a block.
        self._most = BLOCK // (2 + MAX_NAME) if column.form == STRINGS else BLOCK_NUMBERS

    def take(self, count: int) -> Array:
        """The next `count` elements, of the column's element. Raises `ValueError` where the
        column is not what it is said to be."""
        parts = []
        while count:
            some = min(count, self._most)
            parts.append(self._some(some))
            count -= some
        return np.concatenate(parts) if parts else np.zeros(0, ELEMENTS[self._column.element].dtype)

    def skip(self, count: int) -> None:
        while count:
            some = min(count, self._most)
            self._some(some)
            count -= some

    def _some(self, count: int) -> Array:
        if count > self._left:
            raise ValueError("the base has fewer elements")
        column = self._column
        ends = self._ends()
        while len(ends) < count:
            more = min(_CHUNK, column.end - self._at)
            if not more or len(self._held) > BLOCK + _CHUNK:
                raise ValueError("the base has fewer elements")
            self._held += self._base.read(self._at, more)
            self._at += more
            ends = self._ends()
        ends = ends[:count]
        used = int(ends[-1])
        found = _values(np.frombuffer(self._held, np.uint8, used), ends, column.form, column.names)
        self._held = self._held[used:]
        self._left -= count
        return found

    def _ends(self) -> NDArray[np.int64]:
        return _ends(np.frombuffer(self._held, np.uint8), self._column.form, self._column.tag)


def _ends(raw: NDArray[np.uint8], form: int, tag: int) -> NDArray[np.int64]:
    """Where each whole element ends."""
    if form == STRINGS:
        return _ends_of_strings(raw, tag)
    last = np.flatnonzero(raw < 0x80) + 1
    if form == VARINT:
        return last
    # Tags have one byte below 0x80, so every other end is a tag's.
    last = last[: len(last) // 2 * 2]
    tags, ends = last[0::2] - 1, last[1::2]
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    if not (tags == starts).all() or not (raw[tags] == tag).all():
        raise ValueError("a tag is missing")
    return ends


def _ends_of_strings(raw: NDArray[np.uint8], tag: int) -> NDArray[np.int64]:
    """By doubling: where 1, 2, 4, ... strings further is, from everywhere."""
    size = len(raw)
    beyond = size + 1
    following = np.full(size + 2, beyond, np.int64)
    if size > 1:
        following[: size - 1] = np.minimum(np.arange(2, size + 1) + raw[1:], beyond)
    jump = following
    starts = np.zeros(min(size, 1), np.int64)
    while True:
        further = jump[starts]
        further = further[further < size]
        if not len(further):
            break
        starts = np.concatenate([starts, further])
        jump = jump[jump]
    ends = following[starts]
    starts, ends = starts[ends <= size], ends[ends <= size]
    if not (raw[starts] == tag).all():
        raise ValueError("a tag is missing")
    return ends


def _values(
    raw: NDArray[np.uint8], ends: NDArray[np.int64], form: int, names: Sequence[bytes]
) -> Array:
    """The elements that end there. Raises `ValueError`."""
    if form == STRINGS:
        return _positions(_records(raw, ends), names)
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    if form == TAGGED_VARINT:
        starts = starts + 1
    lengths = ends - starts
    longest = int(lengths.max()) if len(lengths) else 0
    if longest > _LONGEST:
        raise ValueError("a number is too long")
    values = np.zeros(len(ends), "<u8")
    for place in range(longest):
        has = lengths > place
        part = raw[starts[has] + place] & np.uint8(0x7F)
        values[has] |= part.astype("<u8") << np.uint64(7 * place)
    return values


def _records(raw: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.bytes_]:
    """Each string behind its length, filled up with zeros."""
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)] + 1
    lengths = ends - starts
    longest = int(lengths.max()) if len(lengths) else 1
    if longest > 1 + MAX_NAME:
        raise ValueError("a string is too long")
    rows = np.zeros((len(ends), longest), np.uint8)
    for place in range(longest):
        has = lengths > place
        rows[has, place] = raw[starts[has] + place]
    return rows.view(f"S{longest}").reshape(-1)


def _positions(records: NDArray[np.bytes_], names: Sequence[bytes]) -> Array:
    """`len(names)` for a string that is none of them."""
    wanted = np.array([bytes([len(name)]) + name for name in names], np.bytes_)
    found = np.full(len(records), len(names), np.int64)
    for position, name in enumerate(wanted):
        found[records == name] = position
    return found.astype("<u1")


def _strings(values: Array, tag: int, names: Sequence[bytes]) -> bytes:
    longest = 2 + max(map(len, names), default=0)
    table = np.zeros((len(names), longest), np.uint8)
    for position, name in enumerate(names):
        record = bytes([tag, len(name)]) + name
        table[position, : len(record)] = np.frombuffer(record, np.uint8)
    lengths = np.array([2 + len(name) for name in names], np.int64)
    kept = np.arange(longest) < lengths[:, None]
    return table[values][kept[values]].tobytes()


def _varints(values: NDArray[np.uint64], tag: int | None) -> bytes:
    lengths = np.ones(len(values), np.int64)
    for place in range(1, _LONGEST):
        lengths += values >= np.uint64(1 << 7 * place)
    longest = int(lengths.max()) if len(lengths) else 0
    before = 0 if tag is None else 1
    rows = np.zeros((len(values), before + longest), np.uint8)
    if tag is not None:
        rows[:, 0] = tag
    for place in range(longest):
        part = (values >> np.uint64(7 * place)).astype(np.uint8) & np.uint8(0x7F)
        rows[:, before + place] = np.where(lengths > place + 1, part | np.uint8(0x80), part)
    kept: NDArray[np.bool_] = np.arange(before + longest) < (before + lengths)[:, None]
    return rows[kept].tobytes()
