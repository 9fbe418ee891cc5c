"""One file as one payload: header, then the bytes raw or packed by zstd.

Streaming in blocks: memory does not depend on the size of the file. Equal files give equal
payloads, so what was encoded once is found again by name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from protocol import codec
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, digest_from_hex
from protocol.payload import (
    DIGESTS_PER_LIST,
    FEATURE_RAW,
    FEATURE_ZSTD,
    FRAME_SIZE,
    MAX_BLOCK,
    MAX_PAYLOAD,
    Header,
    HintEntry,
    frame_count,
    frame_digest,
    frame_length,
    list_count,
)

SMALL: Final = 16 * 1024 * 1024
"""Up to this many bytes a file is packed as tightly as zstd can."""
LEVEL_SMALL: Final = 19
LEVEL_LARGE: Final = 9
WINDOW_LOG: Final = 23
"""Agents grant a decoder a window of 8 MiB."""
PAYS_BELOW: Final = 0.98
"""Packing pays below this share of the raw size: unpacking costs devices time and memory."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload on disk: `path` holds its bytes, `path` + `.lists` its frame lists, joined."""

    entry: HintEntry
    path: Path

    def frame(self, number: int) -> bytes:
        """Raises `OSError`, also for a file that is not what was encoded."""
        return _part(
            self.path,
            number * FRAME_SIZE,
            frame_length(self.entry.size, number),
        )

    def frame_list(self, number: int) -> bytes:
        first = number * DIGESTS_PER_LIST
        digests = min(DIGESTS_PER_LIST, self.entry.frames - first)
        return _part(_lists(self.path), 32 * first, 32 * digests)

    @property
    def list_count(self) -> int:
        return list_count(self.entry.frames)

    def remove(self) -> None:
        for path in (self.path, _lists(self.path), _note(self.path)):
            path.unlink(missing_ok=True)


def encode(file: Path, target: Digest, directory: Path) -> Encoded:
    """Encode `file` (whose digest is `target`) into `directory`: packed if that pays, else raw.

    Raises `InvalidRequest` for a file that is empty, too large, or not `target`; `OSError`.
    """
    size = file.stat().st_size
    if not 0 < size < MAX_PAYLOAD - FRAME_SIZE:
        raise InvalidRequest("OUT-B107", f"{file.name} has {size:,} bytes")
    directory.mkdir(parents=True, exist_ok=True)
    packed = directory / f".{target}.zstd"
    raw = directory / f".{target}.raw"
    try:
        _write(file, packed, Header(FEATURE_ZSTD, None, target, size, MAX_BLOCK), _pack)
        if packed.stat().st_size <= size * PAYS_BELOW:
            return _keep(packed, directory, FEATURE_ZSTD, _memory(size))
        _write(file, raw, Header(FEATURE_RAW, None, target, size, MAX_BLOCK), _copy)
        return _keep(raw, directory, FEATURE_RAW, 2 * MAX_BLOCK)
    finally:
        packed.unlink(missing_ok=True)
        raw.unlink(missing_ok=True)


def reopen(directory: Path, payload: Digest) -> Encoded | None:
    """A payload that was encoded earlier; None if it is not whole here."""
    path = directory / payload
    try:
        entry = codec.decode(_note(path).read_bytes(), HintEntry, limit=codec.MAX_HINT)
        whole = path.stat().st_size == entry.size
        listed = _lists(path).stat().st_size == 32 * entry.frames
    except FileNotFoundError:
        return None
    return Encoded(entry, path) if whole and listed and entry.payload == payload else None


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


def _keep(written: Path, directory: Path, features: int, decode_memory: int) -> Encoded:
    size = written.stat().st_size
    lists = written.with_name(written.name + ".lists")
    whole = hashlib.sha256()
    with written.open("rb") as source, lists.open("wb") as sink:
        while frame := source.read(FRAME_SIZE):
            name = frame_digest(frame)
            whole.update(name)
            sink.write(name)
    payload = digest_from_hex(whole.hexdigest())
    entry = HintEntry(payload, size, frame_count(size), features, decode_memory)
    path = directory / payload
    _note(path).write_bytes(codec.encode(entry))
    lists.replace(_lists(path))
    _sync(written)
    written.replace(path)
    return Encoded(entry, path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _part(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise OSError(f"{path.name} is cut short")
    return data


def _lists(path: Path) -> Path:
    return path.with_name(path.name + ".lists")


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")
