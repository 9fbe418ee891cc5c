"""Which model a runner was busy with: written to shared memory before, read after its death.

The file is a table of the runner's models, written once, behind four bytes that change with
every run: what is done (u16) and to which model of the table (u16). A mapped page survives the
process that wrote it, whatever killed that process.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from protocol.codec import decode, encode
from protocol.errors import PeerError
from protocol.identifiers import Digest

Doing = Literal["load", "probe", "infer", "shadow"]

DOING: Final[tuple[Doing, ...]] = ("load", "probe", "infer", "shadow")
_DOING: Final[tuple[Doing | None, ...]] = (None, *DOING)
_NOW = struct.Struct("<HH")
_LENGTH = struct.Struct("<I")
_TABLE_AT: Final = 16
_MAX_FILE: Final = 256 * 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Blame:
    """What a runner was doing, and to which model, when it was last heard of."""

    doing: Doing
    model: str
    digest: Digest


class Notebook:
    """The writing side, in the runner. One run at a time: `busy` waits for the one before."""

    def __init__(self, path: Path, models: Sequence[tuple[str, Digest]]) -> None:
        table = encode({"boot": boot_id(), "models": [list(entry) for entry in models]})
        content = _NOW.pack(0, 0).ljust(_TABLE_AT - _LENGTH.size, b"\0")
        content += _LENGTH.pack(len(table)) + table
        self._map = _shared(path, content) or mmap.mmap(-1, len(content))
        # The four bytes as one number: they are written twice for every answer.
        self._now = memoryview(self._map)[: _NOW.size].cast("I")
        self._lock = threading.Lock()
        self._since: float | None = None

    @contextmanager
    def busy(self, doing: Doing, index: int) -> Iterator[None]:
        """A `with` block in which model number `index` of the table is busy."""
        self.begin(note_of(doing, index))
        try:
            yield
        finally:
            self.end()

    def begin(self, note: int) -> None:
        """What `busy` does, for who does it with every answer; `end` has to follow."""
        self._lock.acquire()
        self._now[0] = note
        self._since = time.monotonic()

    def end(self) -> None:
        self._since = None
        self._now[0] = 0
        self._lock.release()

    def busy_seconds(self) -> float:
        """For how long the run that is going on has been going on; 0 if there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


def note_of(doing: Doing, index: int) -> int:
    """The four bytes that say so, as the number that this processor reads in them."""
    return int.from_bytes(_NOW.pack(_DOING.index(doing), index), sys.byteorder)


def _shared(path: Path, content: bytes) -> mmap.mmap | None:
    """`content` in a file that others can read. None where the disk has no room: models serve all
    the same, and a death of this runner is charged to nobody."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(file, content) == len(content):
            return mmap.mmap(file, len(content))
    except OSError as error:
        if error.errno not in _FULL:
            raise
    finally:
        os.close(file)
    path.unlink(missing_ok=True)
    return None


def read_blame(path: Path) -> Blame | None:
    """None if the runner was idle, or wrote its note before this boot, or left no readable one."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE)
        doing, index = _NOW.unpack_from(data)
        (length,) = _LENGTH.unpack_from(data, _TABLE_AT - _LENGTH.size)
        table = decode(data[_TABLE_AT : _TABLE_AT + length], dict[str, Any], limit=_MAX_FILE)
        what = _DOING[doing]
        if what is None or table["boot"] != boot_id():
            return None
        model, digest = table["models"][index]
        return Blame(what, str(model), str(digest))
    except (OSError, struct.error, PeerError, KeyError, IndexError, TypeError, ValueError):
        return None


def boot_id() -> str:
    """Differs between boots: a note that a power cut left behind blames nobody."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
