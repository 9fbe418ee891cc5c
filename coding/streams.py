"""Packed bytes: the only place where a payload is packed and unpacked.

A stream of `n` plain bytes is `uv (stored << 2 | coding)` and `stored` bytes, never more than `n`;
an open stream has `uv n` after the head.
"""

from __future__ import annotations

import lzma as xz
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import zstandard

from coding import cuts, varint
from coding.limits import KIB, LZMA_DICTIONARY, MAX_STREAM, STREAM_WINDOW
from coding.varint import Reader

STORED, ZSTD, LZMA, PREFIXED = range(4)

Prefix = Callable[[Reader], bytes]
"""Gives what stands before a stream of coding 3; may read which part of the base that is first."""

LZMA_BELOW: Final = 0.97
"""Lzma takes a decoder ten times as long, so what is packed has to be that much smaller;"""
SMALL: Final = 16 * KIB
"""up to here a stream takes no time,"""
LARGE: Final = 64 * KIB
LZMA_BELOW_OF_LARGE: Final = 0.92
"""and beyond this it takes more than all else in its block."""

_FORMAT: Final = zstandard.FORMAT_ZSTD1_MAGICLESS
_LEAST: Final = 12
"""Fewer bytes are never packed: a frame alone takes 5."""
_THOROUGH: Final = 10
"""Levels of zstd from here on are for results, those below for comparisons."""
_FEW_PIECES: Final = 32
_LONGEST_LEAST: Final = 7
"""The longest least length of matches that zstd has."""
_MOSTLY_MATCHES: Final = 0.2
"""Where so little is left there is hardly a code to be chosen."""
_CHEAP: Final = 64 * KIB


def read(
    reader: Reader,
    length: int,
    *,
    lzma: bool,
    prefix: Prefix | None = None,
    most: int = MAX_STREAM,
) -> bytes:
    """The `length` plain bytes of the next stream.

    Raises `ValueError`, `ZstdError` or `LZMAError` for everything that is not exactly that;
    nothing is allocated for what a packed frame claims beyond `length`.
    """
    if length > most:
        raise ValueError(f"a stream of {length:,} bytes")
    return _unpacked(reader, reader.unsigned(most << 2 | 3), length, lzma, prefix, most)


def read_open(reader: Reader, most: int, *, lzma: bool, prefix: Prefix | None = None) -> bytes:
    """Like `read`, of a stream that says its own length, up to `most` bytes."""
    head = reader.unsigned(most << 2 | 3)
    return _unpacked(reader, head, reader.unsigned(most), lzma, prefix, most)


def content(prefix: bytes) -> zstandard.ZstdCompressionDict | None:
    """What may stand before a frame; a copy, so that `prefix` need not be kept."""
    if not prefix:
        return None
    return zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def unpack_zstd(
    data: memoryview, length: int, window: int, before: zstandard.ZstdCompressionDict | None = None
) -> bytes:
    """The content of one magicless frame that holds `length` bytes and asks for no more than
    `window` bytes of history. Raises `ValueError` or `ZstdError`."""
    # A decompressor believes the size that a frame declares, so that is looked at first.
    declared = zstandard.get_frame_parameters(bytes(data[:18]), format=_FORMAT)
    if declared.content_size != length or declared.window_size > window or declared.dict_id:
        raise ValueError("a frame declares something else")
    unpacker = zstandard.ZstdDecompressor(
        dict_data=before, max_window_size=max(window, 1024), format=_FORMAT
    )
    plain = unpacker.decompress(data, max_output_size=length, allow_extra_data=False)
    if len(plain) != length:
        raise ValueError("a frame is cut short")
    return plain


def pack_zstd(
    data: bytes, level: int, prefix: bytes = b"", at: Sequence[int] = (), *, numbers: bool = False
) -> bytes:
    """One magicless frame with its content size, whose window is its content.

    New blocks begin `at` these places. `numbers`: only long matches are looked for, short ones
    among numbers are chance and spoil the codes.
    """
    usual = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(data), dict_size=len(prefix)
    )
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        dict_size=len(prefix),
        # Only a window of the whole content can reach the prefix to the end.
        window_log=max(usual.window_log, (max(len(data), 1024) - 1).bit_length()),
        min_match=_LONGEST_LEAST if numbers else usual.min_match,
        strategy=zstandard.STRATEGY_FAST if numbers and level < _THOROUGH else usual.strategy,
        format=_FORMAT,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    packer = zstandard.ZstdCompressor(dict_data=content(prefix), compression_params=parameters)
    if not at:
        return packer.compress(data)
    parts = packer.compressobj(size=len(data))
    out = []
    for start, end in pairwise((0, *at)):
        out.append(parts.compress(data[start:end]))
        out.append(parts.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    out.append(parts.compress(data[at[-1] :]))
    out.append(parts.flush())
    return b"".join(out)


@dataclass(frozen=True, slots=True)
class Packer:
    """Writes streams at one effort: `level` of zstd, and lzma if it may be used."""

    level: int = 3
    lzma: bool = False

    def stream(self, data: bytes, prefix: bytes | None = None, window: bytes = b"") -> bytes:
        """The smallest coding, its head included. `window`: the encoded part of the base that
        `prefix` is, if the reader has to be told."""
        return self._smallest(data, b"", prefix, window)

    def open(self, data: bytes, prefix: bytes | None = None) -> bytes:
        """`stream`, with its length."""
        return self._smallest(data, varint.unsigned(len(data)), prefix, b"")

    def _smallest(self, data: bytes, length: bytes, prefix: bytes | None, window: bytes) -> bytes:
        def framed(coding: int, stored: bytes, told: bytes = b"") -> bytes:
            return _head(len(stored), coding) + length + told + stored

        found = [framed(STORED, data)]
        if len(data) >= _LEAST:
            stored = self._zstd(data, b"")
            if len(stored) <= len(data):
                found.append(framed(ZSTD, stored))
        if prefix and data and len(data) + len(prefix) <= STREAM_WINDOW:
            stored = self._zstd(data, prefix)
            if len(stored) <= len(data):
                found.append(framed(PREFIXED, stored, window))
        best = min(found, key=len)
        worth = _lzma_below(len(data))
        # Where zstd finds nothing, lzma takes long to find as much.
        if self.lzma and len(data) >= _LEAST and len(best) < worth * len(data):
            packed = framed(LZMA, _pack_lzma(data))
            if len(packed) < worth * len(best):
                return packed
        return best

    def _zstd(self, data: bytes, prefix: bytes) -> bytes:
        """The smallest of the frames that this effort tries."""
        if self.level < _THOROUGH:
            usual = pack_zstd(data, self.level, prefix)
            if len(data) < cuts.LEAST or prefix:
                return usual
            at = cuts.cuts(data, _FEW_PIECES)
            return min(usual, pack_zstd(data, 1, b"", at, numbers=True), key=len)
        found = [pack_zstd(data, self.level, prefix)]
        most = 0 if len(data) <= _CHEAP else _MOSTLY_MATCHES * len(data)
        if len(data) >= cuts.LEAST and len(found[0]) > most:
            at = cuts.cuts(data)
            found.append(pack_zstd(data, self.level, prefix, at, numbers=True))
            if len(data) <= _CHEAP:
                found.append(pack_zstd(data, self.level, prefix, at))
        return min(found, key=len)


def _unpacked(
    reader: Reader, head: int, length: int, lzma: bool, prefix: Prefix | None, most: int
) -> bytes:
    stored, coding = head >> 2, head & 3
    if stored > length or (coding == STORED and stored != length):
        raise ValueError(f"{stored:,} bytes are not a stream of {length:,}")
    if coding == STORED:
        return bytes(reader.take(stored))
    window = max(STREAM_WINDOW, most)
    if coding == ZSTD:
        return unpack_zstd(reader.take(stored), length, window)
    if coding == LZMA:
        if not lzma:
            raise ValueError("lzma, although the header does not name it")
        return _unpack_lzma(reader.take(stored), length)
    if prefix is None:
        raise ValueError("there is nothing to stand before this stream")
    before = prefix(reader)
    if len(before) + length > window:
        raise ValueError("stream and prefix are too large together")
    return unpack_zstd(reader.take(stored), length, window, content(before))


def _lzma_below(length: int) -> float:
    if length <= SMALL:
        return 1.0
    return LZMA_BELOW if length <= LARGE else LZMA_BELOW_OF_LARGE


def _head(stored: int, coding: int) -> bytes:
    return varint.unsigned(stored << 2 | coding)


def _filters(**more: int) -> list[dict[str, Any]]:
    """No model of text: numbers have no letters before them."""
    fixed = {"id": xz.FILTER_LZMA2, "dict_size": LZMA_DICTIONARY, "lc": 0, "lp": 0, "pb": 0}
    return [fixed | more]


def _pack_lzma(data: bytes) -> bytes:
    return xz.compress(
        data, xz.FORMAT_RAW, filters=_filters(preset=9 | xz.PRESET_EXTREME, nice_len=273)
    )


def _unpack_lzma(data: memoryview, length: int) -> bytes:
    unpacker = xz.LZMADecompressor(xz.FORMAT_RAW, filters=_filters())
    plain = unpacker.decompress(data, max_length=length + 1)
    if not unpacker.eof or len(plain) != length or unpacker.unused_data:
        raise ValueError("lzma of another length")
    return plain
