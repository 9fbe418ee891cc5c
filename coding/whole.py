"""Bodies that stand for a whole file at once: patches, bsdiff, and what has no base.

All are read in bounded memory; small files only are held whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import numpy as np
import zstandard

from coding import streams
from coding.base import Base
from coding.limits import (
    BLOCK,
    BROTLI_WINDOW,
    KIB,
    MAX_BSDIFF,
    MAX_PATCH,
    MAX_TRIPLES,
)
from coding.source import Source
from coding.varint import Reader
from protocol.payload import MAX_WINDOW

if TYPE_CHECKING:
    import brotli

_READ: Final = 64 * KIB
_FRAME: Final = 4 * KIB
"""More than a frame of what cannot be packed takes beyond its content."""


def raw(source: Source, size: int) -> Iterator[bytes]:
    """The file itself."""
    left = size
    while left:
        yield bytes(source.take(min(left, BLOCK)))
        left -= min(left, BLOCK)
    source.end()


def zstd(source: Source, size: int) -> Iterator[bytes]:
    """One ordinary frame of zstd."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    reader = unpacker.stream_reader(
        cast(BinaryIO, _Some(source)), read_size=_READ, read_across_frames=True, closefd=False
    )
    left = size
    # One byte more is asked for than there should be.
    while block := reader.read(min(BLOCK, left + 1)):
        if len(block) > left:
            raise ValueError(f"it unpacks to more than {size:,} bytes")
        left -= len(block)
        yield block
    if left:
        raise ValueError(f"it unpacks to {size - left:,} of {size:,} bytes")


def patch(source: Source, size: int, base: Base) -> Iterator[bytes]:
    """One frame of zstd, with the base before it."""
    if base.size + size > MAX_PATCH:
        raise ValueError("base and target are too large for a patch")
    before = streams.content(base.read(0, base.size))
    packed = source.some(size + _FRAME)
    plain = memoryview(streams.unpack_zstd(memoryview(packed), size, MAX_WINDOW, before))
    source.end()
    for at in range(0, size, BLOCK):
        yield bytes(plain[at : at + BLOCK])


def bsdiff(source: Source, size: int, base: Base, lzma: bool) -> Iterator[bytes]:
    """Additions to pieces of the base, and what is inserted between them."""
    if base.size > MAX_BSDIFF or size > MAX_BSDIFF:
        raise ValueError("base or target is too large for bsdiff")
    old = np.frombuffer(base.read(0, base.size), np.uint8)
    triples = source.unsigned(MAX_TRIPLES)
    controls = Reader(_stream(source, lzma))
    added = np.frombuffer(_stream(source, lzma), np.uint8)
    inserted = np.frombuffer(_stream(source, lzma), np.uint8)
    source.end()
    if len(added) + len(inserted) != size:
        raise ValueError(f"it gives {len(added) + len(inserted):,} of {size:,} bytes")
    found = np.empty(size, np.uint8)
    at, position, taken = 0, 0, 0
    for _ in range(triples):
        add, insert = controls.unsigned(len(added) - (at - taken)), controls.unsigned(size)
        if position + add > len(old) or taken + insert > len(inserted):
            raise ValueError("it reaches outside of the base")
        first = at - taken
        np.add(old[position : position + add], added[first : first + add], out=found[at : at + add])
        at += add
        found[at : at + insert] = inserted[taken : taken + insert]
        at, taken = at + insert, taken + insert
        position += add + controls.signed(MAX_BSDIFF)
        if not 0 <= position <= len(old):
            raise ValueError("it reaches outside of the base")
    controls.end()
    if at != size:
        raise ValueError(f"it gives {at:,} of {size:,} bytes")
    for start in range(0, size, BLOCK):
        yield found[start : start + BLOCK].tobytes()


def pressed(source: Source, size: int) -> Iterator[bytes]:
    """One stream of brotli. Raises `ValueError`, also where brotli is not installed."""
    try:
        import brotli  # not installed everywhere; who lacks it is offered no such payload
    except ImportError as error:
        raise ValueError("brotli is not installed") from error
    given = source.some(_READ)
    if _window_log(given) > BROTLI_WINDOW.bit_length() - 1:
        raise ValueError("brotli with too large a window")
    try:
        yield from _pressed(brotli.Decompressor(), source, given, size)
    except brotli.error as error:
        raise ValueError("brotli that is none") from error


def _pressed(
    unpacker: brotli.Decompressor, source: Source, given: bytes, size: int
) -> Iterator[bytes]:
    left = size
    while not unpacker.is_finished():
        # It may give more than it is asked for, up to its own buffer.
        found: bytes = unpacker.process(given, output_buffer_limit=BLOCK)
        if len(found) > left:
            raise ValueError(f"it unpacks to more than {size:,} bytes")
        left -= len(found)
        for at in range(0, len(found), BLOCK):
            yield found[at : at + BLOCK]
        given = b""
        # It says nothing of bytes that it has and has not given yet: first it is asked again.
        if not found and not unpacker.is_finished():
            given = source.some(_READ) if unpacker.can_accept_more_data() else b""
            if not given:
                raise ValueError("it is cut short")
    if left:
        raise ValueError(f"it unpacks to {size - left:,} of {size:,} bytes")
    source.end()


def _window_log(data: bytes) -> int:
    """The first bits of a stream of brotli (RFC 7932, 9.1)."""
    first = data[0] if data else 0
    if not first & 1:
        return 16
    if high := first >> 1 & 7:
        return 17 + high
    low = first >> 4 & 7
    if low == 1:
        raise ValueError("brotli with too large a window")
    return 8 + low if low else 17


def _stream(source: Source, lzma: bool) -> bytes:
    length = source.unsigned(MAX_BSDIFF)
    return streams.read(source, length, lzma=lzma, most=MAX_BSDIFF)


class _Some:
    """A source as zstd wants to read it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, size: int) -> bytes:
        return self._source.some(size)
