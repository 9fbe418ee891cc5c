"""Payloads on disk: kept under their names, found again, cut into frames as often as needed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from protocol import codec
from protocol.identifiers import Digest, digest_from_hex
from protocol.payload import (
    DIGESTS_PER_LIST,
    FRAME_SIZE,
    LISTS_SUFFIX,
    MAX_DECODE_MEMORY,
    HintEntry,
    frame_count,
    frame_digest,
    frame_length,
    list_count,
)


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


def keep(
    written: Path, directory: Path, features: int, decode_memory: int, base: Digest | None = None
) -> Encoded:
    """Move the payload `written` into `directory`, under its name. Raises `OSError`."""
    size = written.stat().st_size
    lists = written.with_name(written.name + LISTS_SUFFIX)
    whole = hashlib.sha256()
    with written.open("rb") as source, lists.open("wb") as sink:
        while frame := source.read(FRAME_SIZE):
            name = frame_digest(frame)
            whole.update(name)
            sink.write(name)
    payload = digest_from_hex(whole.hexdigest())
    entry = HintEntry(payload, size, frame_count(size), features, decode_memory, base)
    path = directory / payload
    _note(path).write_bytes(codec.encode(entry))
    lists.replace(_lists(path))
    _sync(written)
    written.replace(path)
    return Encoded(entry, path)


def reopen(directory: Path, payload: Digest) -> Encoded | None:
    """A payload that was encoded earlier; None if it is not whole here, or asks for more memory
    than agents grant."""
    path = directory / payload
    try:
        entry = codec.decode(_note(path).read_bytes(), HintEntry, limit=codec.MAX_HINT)
        whole = path.stat().st_size == entry.size
        listed = _lists(path).stat().st_size == 32 * entry.frames
    except FileNotFoundError:
        return None
    granted = entry.decode_memory <= MAX_DECODE_MEMORY
    return (
        Encoded(entry, path) if whole and listed and granted and entry.payload == payload else None
    )


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
    return path.with_name(path.name + LISTS_SUFFIX)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")
