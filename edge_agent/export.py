"""Records on their way to a stick: the batches that the link would carry, in signed files.

Nothing is marked and nothing is deleted by it: the control plane that imports a file says what it
has when the device asks, as ever.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent import outgoing
from edge_agent.coarsen import COUNTS
from edge_agent.identity import CERTIFICATE, Identity
from edge_agent.outgoing import RowKey, key_of
from edge_agent.renew import signing_key
from protocol import records_file
from protocol.codec import MAX_UP_PACKED, Compress, encode_up, to_wire
from protocol.errors import InvalidRequest, Unavailable
from protocol.identifiers import digest_of
from protocol.records_file import MAX_BATCHES, MAX_FILE, MAX_FILES, MAX_HEAD, Head
from protocol.telemetry import (
    FINAL,
    MAX_RECORDS,
    Record,
    Upload,
    private,
    read_body,
    without_histograms,
)

PAGE_BYTES: Final = 512 * 1024
"""Bodies of one message before packing, as over the link."""
_MOST_BYTES: Final = MAX_FILE - MAX_HEAD - 1024

Page = Callable[[Callable[[RowKey], bool]], list[Record]]
"""The next records that may be sent, without those to skip."""


@dataclass(frozen=True, slots=True)
class File:
    name: str
    data: bytes
    records: int


def pages(page: Page) -> Iterator[list[Record]]:
    """Everything that may be sent, once."""
    seen: set[RowKey] = set()
    while found := page(seen.__contains__):
        seen.update(map(key_of, found))
        yield found


def stored(path: Path) -> Iterator[list[Record]]:
    """Pages of the outbox of an agent that does not run; nothing is written.

    Raises `Unavailable` OUT-D502 for one that cannot be read.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            # One moment of it, also if the agent starts meanwhile.
            db.execute("BEGIN")

            def page(skip: Callable[[RowKey], bool]) -> list[Record]:
                found = outgoing.sendable(
                    db, outgoing.NO_EPOCH, skip, records=MAX_RECORDS, body_bytes=PAGE_BYTES
                )
                return [_private(record) for record in found.records]

            yield from pages(page)
    except sqlite3.Error as error:
        raise Unavailable("OUT-D502", f"{path.name}: {error}") from error


def files(
    identity: Identity, records: Iterable[Sequence[Record]], made_ms: int, compress: Compress
) -> Iterator[File]:
    """Signed files of these pages, at least one.

    Raises `InvalidRequest` OUT-D403 without this device's key, OUT-D505 for more than any stick
    holds.
    """
    key = signing_key(identity.folder)
    certificate = (identity.folder / CERTIFICATE).read_text()
    batches: list[bytes] = []
    count = number = 0

    def file() -> File:
        body = b"".join(batches)
        sizes = tuple(map(len, batches))
        head = Head(
            1,
            identity.fleet,
            identity.device,
            made_ms,
            number,
            count,
            sizes,
            digest_of(body),
            certificate,
        )
        signature = key.sign(records_file.signed_bytes(head), ec.ECDSA(hashes.SHA256()))
        name = records_file.file_name(identity.device, number)
        return File(name, records_file.put_together(head, signature, batches), count)

    for some in records:
        for batch, inside in _packed(some, compress):
            full = sum(map(len, batches)) + len(batch) > _MOST_BYTES
            if batches and (full or len(batches) == MAX_BATCHES):
                number += 1
                if number >= MAX_FILES:
                    raise InvalidRequest("OUT-D505", f"more than {MAX_FILES:,} files")
                yield file()
                batches, count = [], 0
            batches.append(batch)
            count += inside
    if batches or number == 0:
        # Also that nothing waits here is worth knowing, and signed.
        number += 1
        yield file()


def _packed(records: Sequence[Record], compress: Compress) -> Iterator[tuple[bytes, int]]:
    """Messages that are small enough, and how many records each holds."""
    message = encode_up(Upload(1, tuple(records)), compress)
    if len(message) <= MAX_UP_PACKED:
        yield message, len(records)
    elif len(records) > 1:
        middle = len(records) // 2
        yield from _packed(records[:middle], compress)
        yield from _packed(records[middle:], compress)
    else:
        # Over the link it would lose its histograms as well. A state has none, and stays.
        smaller = _totals(records[0])
        if smaller != records[0]:
            yield from _packed([smaller], compress)


def _private(record: Record) -> Record:
    """What the next start would do to a window that a dead agent left open."""
    if record.part == FINAL or record.kind not in COUNTS:
        return record
    body = read_body(record)
    smaller = private(body, record.n)
    return record if smaller == body else replace(record, b=to_wire(smaller))


def _totals(record: Record) -> Record:
    return replace(record, b=to_wire(without_histograms(read_body(record))))
