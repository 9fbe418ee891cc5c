"""The process that decodes one payload, and ends: `python -P -m edge_agent.decoder`.

A process of its own gives all its memory back, can be bounded, and takes nobody with it when a
payload brings it down. Its output grows in a file that outlives it: a decoder that was killed is
followed by one that goes on at the last boundary of a block, after hashing what lies there. When
what was taken over turns out to be wrong, as after a power cut, it decodes once more from the
beginning. It ends by itself as soon as its parent has.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from protocol.errors import OutriderError, PeerError, TrustError, Unavailable
from protocol.identifiers import Digest, digest, digest_from_hex
from protocol.payload import HEADER_SIZE, MAX_BLOCK, Header

ADDRESS_SPACE: Final = 768 * 1024 * 1024
NICE: Final = 10
_OOM_SCORE: Final = "1000"

Blocks = Iterator[bytes]
Resume = Callable[[BinaryIO, Header, "FileBase | None", int], tuple[int, Blocks]]
"""Of `coding.decoding`."""


@dataclass(frozen=True, slots=True)
class FileBase:
    """The file that a payload starts from."""

    descriptor: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes. Raises `ValueError` if they are not there, `OSError`."""
        data = os.pread(self.descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self.descriptor, length - len(data), offset + len(data))
            if not more:
                raise ValueError("beyond the end of the base")
            data += more
        return data

    def digest(self) -> Digest:
        seen = hashlib.sha256()
        for offset in range(0, self.size, MAX_BLOCK):
            seen.update(self.read(offset, min(MAX_BLOCK, self.size - offset)))
        return digest_from_hex(seen.hexdigest())


class Orphaned(Exception):
    """Whoever asked for the file is gone."""


@dataclass(frozen=True, slots=True)
class Task:
    parent: int
    payload: Path
    out: Path
    digest: Digest
    size: int
    base: Path | None = None

    @classmethod
    def of(cls, arguments: list[str]) -> Task:
        """PARENT PAYLOAD OUT DIGEST SIZE [BASE]. Raises `ValueError`."""
        parent, payload, out, wanted, size, *base = arguments
        found = Path(base[0]) if base else None
        return cls(int(parent), Path(payload), Path(out), digest(wanted), int(size), found)

    def arguments(self) -> list[str]:
        base = [] if self.base is None else [str(self.base)]
        named = (self.payload, self.out, self.digest, self.size)
        return [str(self.parent), *map(str, named), *base]


def main(arguments: list[str], find: Callable[[], Resume] | None = None) -> int:
    """Exit status. What went wrong is one line of JSON on standard output."""
    task = Task.of(arguments)
    _confine()
    try:
        # Loaded inside of its bounds.
        run(task, (find or _resume)())
    except OutriderError as error:
        return _said({"code": error.code, "why": error.why})
    except Orphaned:
        return 1
    except MemoryError:
        return _said({"code": "OUT-F110", "why": "it takes more memory than a decoder has"})
    except OSError as error:
        return _said({"errno": error.errno, "why": error.strerror or str(error)})
    return 0


def run(task: Task, resume: Resume) -> None:
    """Make `task.out` the file of that digest, whole and synced.

    Raises `PeerError` OUT-F110; `TrustError` OUT-T103 for a payload that gives something else;
    `Unavailable` OUT-F104 for a base that is not what the payload starts from; `Orphaned`;
    `OSError`.
    """
    with task.payload.open("rb") as source, _opened(task.out) as out:
        header, _ = Header.unpack(source.read(HEADER_SIZE))
        if header.target != task.digest or header.target_size != task.size:
            raise PeerError("OUT-F110", "it stands for another file")
        base = _base(task, header)
        # A decoder whose parent was killed may write for one block more.
        fcntl.flock(out, fcntl.LOCK_EX)
        try:
            resumed, found = _decode(task, source, header, base, out, resume)
            if resumed and found != task.digest:
                out.truncate(0)
                _, found = _decode(task, source, header, base, out, resume)
            if found != task.digest:
                out.truncate(0)
                raise TrustError("OUT-T103", f"it would be {found}")
            os.fsync(out.fileno())
        finally:
            if base is not None:
                os.close(base.descriptor)


def _decode(
    task: Task,
    source: BinaryIO,
    header: Header,
    base: FileBase | None,
    out: BinaryIO,
    resume: Resume,
) -> tuple[bool, Digest]:
    """Whether something was taken over, and the digest of what lies in `out` now."""
    written = out.seek(0, os.SEEK_END)
    source.seek(HEADER_SIZE)
    at, blocks = resume(source, header, base, written if written <= task.size else 0)
    out.truncate(at)
    out.seek(0)
    seen = hashlib.sha256()
    left = at
    while left:
        block = out.read(min(MAX_BLOCK, left))
        seen.update(block)
        left -= len(block)
    out.seek(at)
    size = at
    for block in blocks:
        if os.getppid() != task.parent:
            raise Orphaned
        size += len(block)
        if size > task.size:
            raise PeerError("OUT-F110", f"it unpacks to more than {task.size:,} bytes")
        seen.update(block)
        out.write(block)
    out.flush()
    if size != task.size:
        raise PeerError("OUT-F110", f"it unpacks to {size:,} of {task.size:,} bytes")
    return at > 0, digest_from_hex(seen.hexdigest())


def _base(task: Task, header: Header) -> FileBase | None:
    if header.base is None:
        return None
    if task.base is None:
        raise Unavailable("OUT-F104", str(header.base))
    try:
        descriptor = os.open(task.base, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unavailable("OUT-F104", str(header.base)) from error
    base = FileBase(descriptor, os.fstat(descriptor).st_size)
    if base.digest() != header.base:
        raise Unavailable("OUT-F104", f"{task.base.name} is not {header.base}")
    return base


def _opened(out: Path) -> Any:
    """For reading and writing, whatever lies there kept."""
    return os.fdopen(os.open(out, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    os.nice(NICE)
    # Where memory runs out, a decoder is the first to go: it can be started again.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _resume() -> Resume:
    from coding.decoding import resume

    return resume


def _said(what: dict[str, object]) -> int:
    print(json.dumps(what), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
