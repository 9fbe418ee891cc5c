"""One file as one payload that every agent can decode: the bytes raw, or packed by zstd.

Streaming in blocks: memory does not depend on the size of the file. Equal files give equal
payloads, so what was encoded once is found again by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from control_plane.encode.encoded import Encoded, keep
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, digest_from_hex
from protocol.payload import (
    FEATURE_RAW,
    FEATURE_ZSTD,
    FRAME_SIZE,
    MAX_BLOCK,
    MAX_PAYLOAD,
    Header,
)

SMALL: Final = 16 * 1024 * 1024
"""Up to this many bytes a file is packed as tightly as zstd can."""
LEVEL_SMALL: Final = 19
LEVEL_LARGE: Final = 9
WINDOW_LOG: Final = 22
"""Agents grant a decoder a window of 4 MiB."""
PAYS_BELOW: Final = 0.98
"""Packing pays below this share of the raw size: unpacking costs devices time and memory."""


def encode(file: Path, target: Digest, directory: Path) -> Encoded:
    """Encode `file` (whose digest is `target`) into `directory`: packed if that pays, else raw.

    Raises `InvalidRequest` for a file that is empty, too large, or not `target`; `OSError`.
    """
    size = size_of(file)
    directory.mkdir(parents=True, exist_ok=True)
    packed = directory / f".{target}.zstd"
    raw = directory / f".{target}.raw"
    try:
        _write(file, packed, Header(FEATURE_ZSTD, None, target, size, MAX_BLOCK), _pack)
        if packed.stat().st_size <= size * PAYS_BELOW:
            return keep(packed, directory, FEATURE_ZSTD, _memory(size))
        _write(file, raw, Header(FEATURE_RAW, None, target, size, MAX_BLOCK), _copy)
        return keep(raw, directory, FEATURE_RAW, 2 * MAX_BLOCK)
    finally:
        packed.unlink(missing_ok=True)
        raw.unlink(missing_ok=True)


def size_of(file: Path) -> int:
    """Bytes of a file that can travel. Raises `InvalidRequest` if it cannot, `OSError`."""
    size = file.stat().st_size
    if not 0 < size < MAX_PAYLOAD - FRAME_SIZE:
        raise InvalidRequest("OUT-B107", f"{file.name} has {size:,} bytes")
    return size


Body = Callable[[Iterator[bytes], int, BinaryIO], None]


def _write(file: Path, out: Path, header: Header, body: Body) -> None:
    seen = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        with file.open("rb") as source:
            while block := source.read(MAX_BLOCK):
                seen.update(block)
                yield block

    with out.open("wb") as sink:
        sink.write(header.pack())
        body(blocks(), header.target_size, sink)
    if digest_from_hex(seen.hexdigest()) != header.target:
        raise InvalidRequest("OUT-B120", f"{file.name} is not {header.target}")


def _copy(blocks: Iterator[bytes], _size: int, sink: BinaryIO) -> None:
    for block in blocks:
        sink.write(block)


def _pack(blocks: Iterator[bytes], size: int, sink: BinaryIO) -> None:
    packer = zstandard.ZstdCompressor(compression_params=_parameters(size)).compressobj(size=size)
    for block in blocks:
        sink.write(packer.compress(block))
    sink.write(packer.flush())


def _parameters(size: int) -> zstandard.ZstdCompressionParameters:
    level = LEVEL_SMALL if size <= SMALL else LEVEL_LARGE
    usual = zstandard.ZstdCompressionParameters.from_level(level, source_size=size)
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=size,
        window_log=min(usual.window_log, WINDOW_LOG),
        # The signed digest of the file checks more than this would.
        write_checksum=False,
        write_content_size=True,
    )


def _memory(size: int) -> int:
    """Bytes that a streaming decoder needs: its tables, the window, and blocks in and out."""
    window = 1 << _parameters(size).window_log
    return int(zstandard.estimate_decompression_context_size()) + window + 3 * MAX_BLOCK
