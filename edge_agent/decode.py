"""A payload file becomes the file it stands for: streaming, in bounded memory.

Whole files, plain or packed by zstd, are written here. Everything else, which takes numpy and a
base, is left to a process of its own.

Nothing that a payload says of itself is believed further than it can be checked: the header must
name the file that is wanted, no more than its signed size is ever written, and only the signed
digest accepts the result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from edge_agent.decoder import Task
from edge_agent.decoding import decode_beside
from protocol.errors import PeerError, TrustError
from protocol.identifiers import Digest, digest_from_hex
from protocol.payload import (
    FEATURE_RAW,
    FEATURE_ZSTD,
    FRAME_SIZE,
    HEADER_SIZE,
    MAX_BLOCK,
    MAX_WINDOW,
    PLAIN_FEATURES,
    Header,
)

GROWING: Final = ".d-"
"""Of what a payload is decoded to by another process, as far as it has come."""


def decode(
    payload: Path,
    target: Path,
    digest: Digest,
    size: int,
    base: Path | None = None,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Write the file `digest` of `size` bytes to `target`, which appears whole or not at all.

    `base` is a file that the payload may start from. Raises `PeerError` (OUT-F110) for a payload
    that is malformed, stands for another file or has another length; `TrustError` (OUT-T103) when
    the result is not the signed one; `Unavailable` where another process decodes: OUT-F104 when
    `base` is missing or damaged, OUT-F109 when that process was cut short, or `stopping` said
    so, and may go on where it was; `OSError`.
    """
    with payload.open("rb") as source:
        header = _header(source, digest, size)
        if not header.features & ~PLAIN_FEATURES:
            source.seek(0)
            decode_from(source, target, digest, size)
            return
    growing = target.with_name(f"{GROWING}{payload.name.removeprefix('.p-')}")
    task = Task(os.getpid(), payload, growing, digest, size, base)
    decode_beside(task, stopping=stopping)
    growing.replace(target)


def decode_from(source: BinaryIO, target: Path, digest: Digest, size: int) -> None:
    """Like `decode`, of a payload that is open already and needs no other process."""
    beside = target.with_name(f".{target.name}.decoding")
    try:
        with beside.open("wb") as sink:
            header = _header(source, digest, size)
            if header.base is not None:
                raise PeerError("OUT-F110", "its encoding takes no base")
            found = _copy(_blocks(header.features, source), sink, size)
        if found != digest:
            raise TrustError("OUT-T103", f"{target.name} would be {found}")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def file_digest(path: Path) -> Digest:
    """Digest of a file's bytes, read in blocks. Raises `OSError`."""
    seen = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MAX_BLOCK):
            seen.update(block)
    return digest_from_hex(seen.hexdigest())


def _header(source: BinaryIO, digest: Digest, size: int) -> Header:
    header, _ = Header.unpack(source.read(HEADER_SIZE))
    if header.target != digest or header.target_size != size:
        raise PeerError("OUT-F110", "it stands for another file")
    return header


def _blocks(features: int, source: BinaryIO) -> Iterator[bytes]:
    """What the payload holds, in blocks of at most `MAX_BLOCK` bytes."""
    if features == FEATURE_RAW:
        while block := source.read(MAX_BLOCK):
            yield block
    elif features == FEATURE_ZSTD:
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        with unpacker.stream_reader(source, read_size=FRAME_SIZE, closefd=False) as reader:
            try:
                while block := reader.read(MAX_BLOCK):
                    yield block
            except zstandard.ZstdError as error:
                raise PeerError("OUT-F110", str(error)) from error
    else:
        raise PeerError("OUT-F110", f"encodings 0x{features:x} do not go together")


def _copy(blocks: Iterator[bytes], sink: BinaryIO, size: int) -> Digest:
    seen = hashlib.sha256()
    written = 0
    for block in blocks:
        written += len(block)
        if written > size:
            raise PeerError("OUT-F110", f"it unpacks to more than {size:,} bytes")
        seen.update(block)
        sink.write(block)
    if written != size:
        raise PeerError("OUT-F110", f"it unpacks to {written:,} of {size:,} bytes")
    return digest_from_hex(seen.hexdigest())
