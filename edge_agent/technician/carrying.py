"""`outrider-agent export --to DIR`: this device's records as files on a stick.

The running agent reads and signs; whoever typed the command writes, with their own rights, since
the agent's service may write nowhere but at home. Without a running agent the command reads the
record buffer itself, and changes nothing in it.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import zstandard

from edge_agent.export import PAGE_BYTES, File, files, pages, stored
from edge_agent.identity import load
from edge_agent.offline import trusted_ms
from edge_agent.outgoing import RowKey
from edge_agent.settings import Paths
from edge_agent.technician import door
from edge_agent.technician.door import Line, Tell
from protocol.codec import Compress
from protocol.errors import InvalidRequest, Unavailable
from protocol.records_file import MAX_FILES, file_name
from protocol.telemetry import MAX_RECORDS, Record
from protocol.wording import size

if TYPE_CHECKING:
    from edge_agent.parts import Parts

EXPORT: Final = "export"
_PART: Final = 512 * 1024
_LEVEL: Final = 3
_NEW: Final = ".new"

T = TypeVar("T")


class Supervisor(Protocol):
    def errand(self, work: Callable[[], T]) -> T: ...


class Exporter:
    """The running agent's side: tells the files piece by piece. From any thread."""

    def __init__(self, home: Path, parts: Parts, supervisor: Supervisor) -> None:
        self._home = home
        self._parts = parts
        self._supervisor = supervisor

    def export(self, _options: Mapping[str, str], tell: Tell) -> None:
        """Carry out the command of that name. Raises `Unavailable` OUT-D50x, `InvalidRequest`."""
        outbox = self._parts.outbox

        def page(skip: Callable[[RowKey], bool]) -> list[Record]:
            return self._supervisor.errand(
                lambda: outbox.sendable(skip, records=MAX_RECORDS, body_bytes=PAGE_BYTES)
            )

        identity = load(self._home)
        made_ms = self._parts.clock.now_ms()
        for file in files(identity, pages(page), made_ms, compressor()):
            for start in range(0, len(file.data), _PART):
                part = base64.b64encode(file.data[start : start + _PART]).decode()
                tell(Line("part", {"data": part}))
            tell(Line("file", {"name": file.name, "records": file.records}))
        tell(Line("end", {"exit": 0, "device": identity.device}))


def compressor() -> Compress:
    return zstandard.ZstdCompressor(level=_LEVEL).compress


def export(paths: Paths, to: Path, *, as_json: bool) -> int:
    """The exit code. Raises `InvalidRequest` OUT-D505 for a folder that is none or has no room."""
    if not to.is_dir():
        raise InvalidRequest("OUT-D505", f"{to} is no folder")
    names: list[str] = []
    records = written = 0
    device = ""
    try:
        for name, data, count in _found(paths):
            if data is None:
                device = name
                continue
            _write(to, name, data)
            names.append(name)
            records, written = records + count, written + len(data)
        _tidy(to, device, len(names))
    except OSError as error:
        raise InvalidRequest("OUT-D505", f"{to}: {error.strerror}") from error
    if as_json:
        told = {"records": records, "size_bytes": written, "files": names, "to": str(to)}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        counted = "1 record" if records == 1 else f"{records:,} records"
        sys.stdout.write(
            f"{counted}, {size(written)}; kept here until the control plane confirms\n"
        )
    return 0


def _found(paths: Paths) -> Iterator[tuple[str, bytes | None, int]]:
    """`(name, data, records)` of each file; at the end `(device, None, 0)`."""
    told = False
    try:
        for each in _asked(paths):
            told = True
            yield each
    except Unavailable as error:
        # It is not running. One that ends on the way is another matter.
        if told or error.code != "OUT-D401":
            raise
    else:
        return
    identity = load(paths.home)
    found: Iterator[File] = files(
        identity, stored(paths.outbox), trusted_ms(identity), compressor()
    )
    for file in found:
        yield file.name, file.data, file.records
    yield identity.device, None, 0


def _asked(paths: Paths) -> Iterator[tuple[str, bytes | None, int]]:
    parts: list[bytes] = []
    for line in door.command(paths.socket, EXPORT, {}):
        if line.what == "part":
            parts.append(base64.b64decode(str(line.data["data"])))
        elif line.what == "file":
            yield str(line.data["name"]), b"".join(parts), int(line.data["records"])
            parts = []
        elif line.what == "end":
            yield str(line.data["device"]), None, 0


def _write(to: Path, name: str, data: bytes) -> None:
    """Whole or not at all. A stick may hold links, which are not followed."""
    beside = to / f"{name}{_NEW}"
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(to / name)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _tidy(to: Path, device: str, last: int) -> None:
    """Remove what a longer export left there: this one holds it, or it was confirmed."""
    for number in range(last + 1, MAX_FILES):
        path = to / file_name(device, number)
        if not path.is_file():
            return
        path.unlink()
