"""Writes a stick: content-addressed files first, then what names them, its description last.

A stick that was begun is gone on with, since what lies there whole is not written again; without
its description it is no stick, so one that was pulled out half written installs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protocol import stick
from protocol.errors import InvalidRequest, PeerError, TrustError, Unavailable
from protocol.identifiers import Digest, FleetName, digest, digest_from_hex
from protocol.payload import FRAME_SIZE, frame_digest

NOT_OURS: Final = frozenset(
    {"lost+found", "System Volume Information", "$RECYCLE.BIN", ".Trashes", ".Spotlight-V100"}
)
"""What systems put on a medium by themselves."""
_FOLDERS: Final = tuple(each for each in stick.TOP if "." not in each)
_BELOW: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")

Progress = Callable[[int, int], None]
Fetch = Callable[[str], Iterator[bytes]]
"""Path of the API below the fleet to the blocks of its answer."""


@dataclass(frozen=True, slots=True)
class Written:
    total_bytes: int
    """Of all payloads and files of the stick."""
    written_bytes: int
    """Of those that were not there."""


class StickFolder:
    """Methods raise `OSError` as the medium does."""

    def __init__(self, path: Path, fleet: FleetName) -> None:
        self._path = path
        self._fleet = fleet

    def require_usable(self) -> None:
        """Raises `InvalidRequest` OUT-S120 for a folder that holds something else."""
        do = "empty it, or choose another folder"
        if self._path.is_symlink() or (self._path.exists() and not self._path.is_dir()):
            raise InvalidRequest("OUT-S120", f"{self._path} is no folder", do=do)
        if not self._path.exists():
            return
        strange = [
            entry.name
            for entry in sorted(self._path.iterdir())
            if entry.name not in stick.TOP and entry.name not in NOT_OURS
        ]
        linked = [name for name in stick.TOP if (self._path / name).is_symlink()]
        if strange or linked:
            raise InvalidRequest(
                "OUT-S120", f"{self._path} holds {', '.join([*strange, *linked][:3])}", do=do
            )
        fleet = self._fleet_of()
        if fleet is not None and fleet != self._fleet:
            raise InvalidRequest("OUT-S120", f"{self._path} is a stick of fleet {fleet}", do=do)

    def write(
        self,
        note: Mapping[str, Any],
        files: Mapping[str, str],
        payloads: Mapping[Digest, int],
        fetch: Fetch,
        told: Progress,
    ) -> Written:
        """Bring the folder to exactly this. Raises `TrustError` OUT-T103 for a payload that is
        not what its name says, `PeerError` for a file that does not belong on a stick,
        `Unavailable` OUT-D201, and what `fetch` raises."""
        self._path.mkdir(parents=True, exist_ok=True)
        (self._path / stick.NOTE).unlink(missing_ok=True)
        texts = {_inside(name): text.encode() for name, text in files.items()}
        total = sum(payloads.values()) + sum(map(len, texts.values()))
        self._forget({*texts, *("/".join(stick.payload(each)) for each in payloads)})
        self._require_room(payloads)
        written = done = 0
        for payload, size in payloads.items():
            path = self._path.joinpath(*stick.payload(payload))
            if not _is_payload(path, payload, size):
                blocks = _bounded(fetch(f"payloads/{payload}"), payload, size)
                _write(path, _told(blocks, done, total, told))
                if not _is_payload(path, payload, size):
                    path.unlink()
                    raise TrustError(
                        "OUT-T103", f"payload {payload[:15]} is not what was asked for"
                    )
                written += size
            done += size
            told(done, total)
        for name, data in texts.items():
            path = self._path / name
            if not path.is_file() or path.read_bytes() != data:
                _write(path, [data])
                written += len(data)
            done += len(data)
            told(done, total)
        for folder in {path.parent for path in self._path.rglob("*")}:
            _sync(folder)
        _write(self._path / stick.NOTE, [json.dumps(note, sort_keys=True).encode()])
        _sync(self._path)
        return Written(total, written)

    def _fleet_of(self) -> str | None:
        try:
            return str(json.loads((self._path / stick.NOTE).read_bytes())["fleet"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _forget(self, wanted: set[str]) -> None:
        """Remove files of an earlier stick that are not part of this one."""
        for folder in _FOLDERS:
            for path in (self._path / folder).rglob("*"):
                name = path.relative_to(self._path).as_posix()
                if path.is_symlink() or (name not in wanted and not path.is_dir()):
                    path.unlink()

    def _require_room(self, payloads: Mapping[Digest, int]) -> None:
        missing = sum(
            size
            for payload, size in payloads.items()
            if not self._path.joinpath(*stick.payload(payload)).is_file()
        )
        found = os.statvfs(self._path)
        free = found.f_bavail * found.f_frsize
        if missing > free:
            raise Unavailable(
                "OUT-D201",
                f"needs {missing:,} bytes, {free:,} are free",
                do="take a larger stick",
                place=str(self._path),
            )


def _inside(name: str) -> str:
    """The control plane says which files there are; not that they may lie anywhere."""
    folder, _, rest = name.partition("/")
    if name != stick.DENY and (folder not in _FOLDERS or not _BELOW.fullmatch(rest)):
        raise PeerError("OUT-N210", f"no file of a stick: {name!r:.80}")
    return name


def payload_digest(path: Path) -> Digest:
    """Of a payload's file: the digest of its frames' digests. Raises `OSError`."""
    lists = hashlib.sha256()
    with path.open("rb") as file:
        while frame := file.read(FRAME_SIZE):
            lists.update(frame_digest(frame))
    return digest_from_hex(lists.hexdigest())


def _is_payload(path: Path, payload: Digest, size: int) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    return payload_digest(path) == digest(payload)


def _bounded(blocks: Iterator[bytes], payload: Digest, size: int) -> Iterator[bytes]:
    sent = 0
    for block in blocks:
        sent += len(block)
        if sent > size:
            raise TrustError("OUT-T103", f"payload {payload[:15]} has more than {size:,} bytes")
        yield block


def _told(blocks: Iterable[bytes], done: int, total: int, told: Progress) -> Iterator[bytes]:
    for block in blocks:
        yield block
        done += len(block)
        told(done, total)


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    """Whole or not at all, and there after the stick was pulled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name[:80]}.new")
    beside.unlink(missing_ok=True)
    try:
        with beside.open("xb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
