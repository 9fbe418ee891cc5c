"""Protobuf as it lies on disk: fields as byte ranges, and runs of repeated fields at a stroke.

Nothing is decoded into objects, so a file of any size can be searched through an `mmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from coding.varint import Buffer

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
"""Kinds of fields ("wire types"); groups are refused."""

LONGEST_VARINT: Final = 10
LONGEST_STRING: Final = 127
"""Of the strings in a run: their length is one byte."""

_FIRST_CHUNK: Final = 1024
_CHUNK: Final = 1024 * 1024
_FIXED: Final = {FIXED64: 8, FIXED32: 4}

_Bytes = NDArray[np.uint8]
_Places = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Field:
    """The tag is `[start, value_start)`, with the length of `BYTES`; the value `[.., end)`."""

    number: int
    kind: int
    start: int
    value_start: int
    end: int


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message `data[start:end]`, as far as they are well formed."""
    while (field := field_at(data, start, end)) is not None:
        yield field
        start = field.end


def field_at(data: Buffer, at: int, end: int) -> Field | None:
    """The field that begins at `at`; None where none does, or none that ends by `end`."""
    tag, value = _varint(data, at, end)
    kind = tag & 7
    if value < 0 or tag < 8:
        return None
    after = value
    if kind == VARINT:
        after = _varint(data, value, end)[1]
    elif kind == BYTES:
        length, value = _varint(data, value, end)
        after = value + length
    elif kind in _FIXED:
        after = value + _FIXED[kind]
    else:
        return None
    return Field(tag >> 3, kind, at, value, after) if 0 <= value <= after <= end else None


def number_at(data: Buffer, field: Field) -> int:
    """The value of a varint field, as an unsigned number of 64 bits."""
    return _varint(data, field.value_start, field.end)[0] & (1 << 64) - 1


def run_of_fixed(data: Buffer, at: int, tag: int, width: int, end: int) -> int:
    """Where the run of `tag` byte + `width` bytes ends that begins at `at`."""
    step = 1 + width

    def ahead(chunk: _Bytes) -> int:
        whole = len(chunk) // step
        return _leading(chunk[: whole * step : step] == tag) * step

    return _run(data, at, end, ahead)


def run_of_varints(data: Buffer, at: int, tag: int, end: int) -> int:
    """Where the run of `tag` byte + varint ends that begins at `at`. `tag` is below 128."""

    def ahead(chunk: _Bytes) -> int:
        # A tag ends itself as a varint does, so last bytes alternate between tags and values.
        last = np.flatnonzero(chunk < 0x80)
        after = last[1::2] + 1
        starts = np.concatenate([[0], after])[:-1]
        good = (chunk[starts] == tag) & (after - starts <= 1 + LONGEST_VARINT)
        count = _leading(good)
        return int(after[count - 1]) if count else 0

    return _run(data, at, end, ahead)


def run_of_strings(data: Buffer, at: int, tag: int, end: int) -> int:
    """Where the run of `tag` byte + length byte + that many bytes ends that begins at `at`."""

    def ahead(chunk: _Bytes) -> int:
        starts = string_starts(chunk, tag)
        return int(starts[-1]) + 2 + int(chunk[starts[-1] + 1]) if len(starts) else 0

    return _run(data, at, end, ahead)


def string_starts(chunk: _Bytes, tag: int) -> _Places:
    """Where in `chunk` the strings of the run at its beginning start (`tag` byte, length, bytes).

    A string may hold the tag's byte, so only jumping from string to string tells. All jumps are
    doubled at once: as many rounds as the number of strings has bits.
    """
    tags = np.flatnonzero(chunk[:-1] == tag)
    lengths = chunk[tags + 1].astype(np.intp)
    after = tags + 2 + lengths
    fits = (lengths <= LONGEST_STRING) & (after <= len(chunk))
    tags, after = tags[fits], after[fits]
    if not len(tags) or tags[0] != 0:
        return tags[:0]
    none = len(tags)
    found = np.searchsorted(tags, after)
    missing = found == none
    found[~missing] = np.where(tags[found[~missing]] == after[~missing], found[~missing], none)
    jump = np.append(found, none)
    reached = np.zeros(1, np.intp)
    while True:
        further = jump[reached]
        further = further[further < none]
        if not len(further):
            return tags[reached]
        reached = np.concatenate([reached, further])
        jump = jump[jump]


def _run(data: Buffer, at: int, end: int, ahead: Callable[[_Bytes], int]) -> int:
    """Ask `ahead` how far the run goes on in growing chunks, until one brings nothing."""
    size = _FIRST_CHUNK
    while at < end:
        chunk = np.frombuffer(data, np.uint8, min(size, end - at), at)
        reach = ahead(chunk)
        if not reach:
            break
        at += reach
        size = min(2 * size, _CHUNK)
    return at


def _leading(good: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(good) if good.all() else int(np.argmin(good))


def varint(data: Buffer, at: int, end: int) -> tuple[int, int] | None:
    """Value (unsigned, of 64 bits) and end of the varint at `at`; None if none ends by `end`."""
    value, after = _varint(data, at, end)
    return (value & (1 << 64) - 1, after) if after > 0 else None


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """Value and end; the end is -1 where no varint of at most ten bytes ends by `end`."""
    value = 0
    for place in range(min(LONGEST_VARINT, end - at)):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    return 0, -1
