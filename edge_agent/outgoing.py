"""Rows on their way out: which may be sent, and which may be deleted.

A row may be sent when it can never change again: closed, or of an epoch that is over. It may be
deleted when the control plane says that it is stored safely.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from protocol.telemetry import FINAL, STATE_STREAM, Record, StreamAck, covers

RowKey = tuple[int, str, int, int, int]
"""`(epoch, stream, lo, hi, part)`: one version of a row."""
Held = tuple[int, str, int, int]
"""`(epoch, stream, lowest, highest)`."""

NO_EPOCH: Final = -1
"""Of a process that has written nothing yet: every row is of an epoch that is over."""

_SHOWN: Final = 20
"""Windows that an event names."""
_COLUMNS: Final = "epoch, stream, lo, hi, part, t0, t1, n, body"
_SENDABLE: Final = "(part = :final OR epoch <> :live)"
_NEWEST_STATE: Final = (
    f"SELECT {_COLUMNS} FROM buf WHERE stream = '{STATE_STREAM}' AND {_SENDABLE}"
    " ORDER BY t0 DESC, lo DESC LIMIT 1"
)
# By time only so that old things arrive first: nothing depends on it.
_BY_AGE: Final = f"SELECT {_COLUMNS} FROM buf WHERE {_SENDABLE} ORDER BY t0, epoch, stream, lo"


def key_of(record: Record) -> RowKey:
    return (record.e, record.s, record.lo, record.hi, record.part)


@dataclass(frozen=True, slots=True)
class Sendable:
    records: list[Record]
    unreadable: list[RowKey]
    """Rows that are no records: damage that the database does not notice."""


def sendable(
    db: sqlite3.Connection,
    live: int,
    skip: Callable[[RowKey], bool],
    *,
    records: int,
    body_bytes: int,
) -> Sendable:
    """The newest state, then the oldest rows, without those to skip.

    At least one if there is any; more only within the limits.
    """
    chosen: dict[RowKey, Record] = {}
    unreadable: list[RowKey] = []
    size = 0
    for query in (_NEWEST_STATE, _BY_AGE):
        for row in db.execute(query, {"live": live, "final": FINAL}):
            record_key = row[:5]
            if record_key in chosen or record_key in unreadable or skip(record_key):
                continue
            size += len(row[8])
            if chosen and (len(chosen) >= records or size > body_bytes):
                return Sendable(list(chosen.values()), unreadable)
            try:
                chosen[record_key] = _record(row)
            except (msgspec.DecodeError, ValueError, TypeError):
                unreadable.append(record_key)
    return Sendable(list(chosen.values()), unreadable)


def told(rows: Sequence[RowKey]) -> dict[str, Any]:
    """What is known of rows that were lost, for the event that says so."""
    windows = [[epoch, stream, lo, hi] for epoch, stream, lo, hi, _ in rows[:_SHOWN]]
    return {"why": f"{len(rows):,} records could not be read", "windows": windows}


def held(db: sqlite3.Connection, most: int) -> list[Held]:
    """What is still here per epoch and stream, open windows included; at most `most` of them."""
    return db.execute(
        "SELECT epoch, stream, min(lo), max(hi) FROM buf GROUP BY epoch, stream LIMIT ?", (most,)
    ).fetchall()


def delete_safe(db: sqlite3.Connection, live: int, ack: StreamAck) -> int:
    """Delete from the lowest window up, and stop at the first that is not stored safely.

    Deleting in any order would leave blocks that can never be merged.
    """
    rows = db.execute(
        "SELECT lo, hi, part FROM buf WHERE epoch=? AND stream=? ORDER BY lo", (ack.e, ack.s)
    ).fetchall()
    safe_parts = [(window, part) for window, part, in_backup in ack.part if in_backup]
    deleted = 0
    for lo, hi, part in rows:
        open_still = part != FINAL and ack.e == live
        if open_still or not is_covered(ack.safe, safe_parts, lo, hi, part):
            break
        deleted += 1
    if deleted:
        db.execute(
            "DELETE FROM buf WHERE epoch=? AND stream=? AND lo<=?",
            (ack.e, ack.s, rows[deleted - 1][0]),
        )
    return deleted


def is_covered(
    ranges: Iterable[tuple[int, int]],
    parts: Iterable[tuple[int, int]],
    lo: int,
    hi: int,
    part: int,
) -> bool:
    """Whether closed ranges, or `(window, part)` of partial windows, hold this version of a row."""
    if covers(ranges, lo, hi):
        return True
    return part != FINAL and any(window == lo and known >= part for window, known in parts)


def _record(row: tuple[Any, ...]) -> Record:
    epoch, stream, lo, hi, part, t0, t1, n, body = row
    return Record(epoch, stream, lo, hi, n, msgspec.json.decode(body), part, t0, t1)
