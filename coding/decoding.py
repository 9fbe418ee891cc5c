"""A payload and its base become the file that it stands for, block by block.

Nothing is believed further than it can be checked, no more than the target's size is ever given,
and only the signed digest of the whole accepts the result: whoever calls this looks at it.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

import zstandard

from coding import whole
from coding.base import Base
from coding.segments import Part, Segments
from coding.source import Source
from protocol.errors import PeerError
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_RAW,
    FEATURE_SEGMENTS,
    FEATURE_SETS,
    FEATURE_ZSTD,
    WITH_BASE,
    WITHOUT_BASE,
    Header,
)

__all__ = ["Base", "blocks", "resume"]

_WRONG: Final = (
    ValueError,
    IndexError,
    OverflowError,
    struct.error,
    zstandard.ZstdError,
    lzma.LZMAError,
    MemoryError,
    EOFError,
)
"""What a malformed payload ends in."""


def blocks(source: BinaryIO, header: Header, base: Base | None) -> Iterator[bytes]:
    """The whole file, in blocks of at most 256 KiB. `source` stands behind the header.

    Raises `PeerError` (OUT-F110) for a payload that is malformed, at the latest instead of what
    would go beyond the target's size; `OSError`.
    """
    with _refused():
        yield from _all(Source(source), _checked(header, base), base)


def resume(
    source: BinaryIO, header: Header, base: Base | None, written: int
) -> tuple[int, Iterator[bytes]]:
    """`(at, the blocks from byte at on)`: `at` is the last border of two blocks up to `written`,
    and 0 for encodings of whole files. Raises like `blocks`."""
    with _refused():
        if not _checked(header, base).features & FEATURE_SEGMENTS:
            return 0, blocks(source, header, base)
        parts = _segments(Source(source), header, base).parts()
        at = 0
        for part in parts:
            if at + part.size > written:
                return at, _from(part, parts)
            part.skip()
            at += part.size
        return at, iter(())


def _from(part: Part, rest: Iterator[Part]) -> Iterator[bytes]:
    with _refused():
        yield part.decode()
        yield from (part.decode() for part in rest)


def _all(source: Source, header: Header, base: Base | None) -> Iterator[bytes]:
    features, size = header.features, header.target_size
    packed = bool(features & FEATURE_LZMA)
    if features & FEATURE_SEGMENTS:
        return (part.decode() for part in _segments(source, header, base).parts())
    if base is not None and features & FEATURE_PATCH:
        return whole.patch(source, size, base)
    if base is not None and features & FEATURE_BSDIFF:
        return whole.bsdiff(source, size, base, packed)
    if features == FEATURE_RAW:
        return whole.raw(source, size)
    if features == FEATURE_ZSTD:
        return whole.zstd(source, size)
    if features == FEATURE_BROTLI:
        return whole.pressed(source, size)
    raise ValueError(f"encodings 0x{features:x} do not go together")


def _segments(source: Source, header: Header, base: Base | None) -> Segments:
    packed = bool(header.features & FEATURE_LZMA)
    return Segments(source, header.target_size, base, packed)


def _checked(header: Header, base: Base | None) -> Header:
    """The header's encoding and base go together, and the base is there."""
    if header.features not in FEATURE_SETS:
        raise ValueError(f"encodings 0x{header.features:x} do not go together")
    if header.features & (WITH_BASE if header.base is None else WITHOUT_BASE):
        raise ValueError("its encoding goes only with, or only without, a base")
    if (header.base is None) != (base is None):
        raise ValueError("its base is not here, or it needs none")
    return header


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except _WRONG as error:
        raise PeerError("OUT-F110", str(error)) from error
