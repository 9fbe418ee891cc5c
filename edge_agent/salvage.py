"""Copies what can still be read of an outbox's file into a new one: row by row, checked, and under
the epochs they were born in, so that nothing is identified anew.

Keys are found three ways (the index, and the table from both ends), so that one damaged page hides
only what is on it. A row that is not whole is lost, and said to be: its epoch, stream and window.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from protocol.codec import MAX_UP_UNPACKED, decode, encode
from protocol.errors import PeerError
from protocol.reported import ReportedState
from protocol.telemetry import (
    FINAL,
    Body,
    DriftWindow,
    EventWindow,
    InferenceWindow,
    Record,
    private,
    read_body,
)

Key = tuple[int, str, int]
"""`(epoch, stream, lo)`."""

_KEYS: Final = (
    "SELECT epoch, stream, lo FROM buf INDEXED BY buf_age ORDER BY t0",
    "SELECT epoch, stream, lo FROM buf NOT INDEXED ORDER BY epoch, stream, lo",
    "SELECT epoch, stream, lo FROM buf NOT INDEXED ORDER BY epoch DESC, stream DESC, lo DESC",
)
_ROW: Final = (
    "SELECT epoch, stream, lo, hi, part, t0, t1, n, body FROM buf"
    " WHERE epoch=? AND stream=? AND lo=?"
)
_INSERT: Final = "INSERT OR IGNORE INTO buf VALUES(?,?,?,?,?,?,?,?,?)"
_OTHERS: Final = {
    "taken": ("runner, seq, at", "INSERT OR IGNORE INTO taken VALUES(?,?,?)"),
    "reported": (
        "model, number",
        "INSERT INTO reported VALUES(?,?) ON CONFLICT DO UPDATE"
        " SET number=max(number, excluded.number)",
    ),
    "state_order": (
        "one, value",
        "INSERT INTO state_order VALUES(?,?) ON CONFLICT DO UPDATE"
        " SET value=max(value, excluded.value)",
    ),
    "total": ("name, value", "INSERT OR IGNORE INTO total VALUES(?,?)"),
    "unsaid": ("what, detail", "INSERT OR IGNORE INTO unsaid VALUES(?,?)"),
    "baseline": (
        "model, digest, slot, at, body",
        "INSERT OR IGNORE INTO baseline VALUES(?,?,?,?,?)",
    ),
    "detector": (
        "manifest, profile, t, at, since, top, ln_e, state",
        "INSERT OR IGNORE INTO detector VALUES(?,?,?,?,?,?,?,?)",
    ),
}
_MOST: Final = 1 << 22
"""Rows read of one table: a damaged one could go round in circles."""
_BATCH: Final = 64
_SHOWN: Final = 20
_BODY_LIMIT: Final = 64 * MAX_UP_UNPACKED


@dataclass(slots=True)
class Found:
    """What a damaged file still had."""

    rows: int = 0
    answers: int = 0
    """In the rows that were saved."""
    missing: list[Key] = field(default_factory=list)
    """Rows that were there and cannot be read."""
    whole: bool = True
    """Whether every table could be read to its end: otherwise there may have been more."""

    @property
    def lost(self) -> bool:
        return bool(self.missing) or not self.whole

    @property
    def detail(self) -> dict[str, Any]:
        """For the event that reports it."""
        told: dict[str, Any] = {
            "saved": self.rows,
            "answers": self.answers,
            "lost": len(self.missing),
            "known": "all" if self.whole else "in part",
        }
        if self.missing:
            told["windows"] = [list(key) for key in sorted(self.missing)[:_SHOWN]]
        return told


def words(detail: Mapping[str, Any]) -> str:
    """What was lost, in one line."""
    if "saved" not in detail:
        return str(detail["why"])
    lost = f"{detail['lost']:,} lost" if detail["known"] == "all" else "not all could be read"
    kept = f"; kept as {detail['kept']}" if "kept" in detail else ""
    return f"{detail['why']}: {detail['saved']:,} records saved, {lost}{kept}"


def copy_file(path: Path, target: sqlite3.Connection) -> Found:
    """Like `copy`, of a file that may be none. Raises `sqlite3.Error` of the target only."""
    source = sqlite3.connect(path, isolation_level=None)
    try:
        return copy(source, target)
    finally:
        with contextlib.suppress(sqlite3.Error):
            source.close()


def copy(source: sqlite3.Connection, target: sqlite3.Connection) -> Found:
    """Take over all that can be read. May be repeated after it was interrupted.

    Raises `sqlite3.Error` of the target only.
    """
    # What is damaged need not be UTF-8.
    source.text_factory = lambda data: data.decode(errors="replace")
    # Without this, a file that was cut short is not read at all.
    with contextlib.suppress(sqlite3.DatabaseError):
        source.execute("PRAGMA writable_schema=ON")
    found = Found()
    keys: set[Key] = set()
    for query in _KEYS:
        for row in _readable(source, query, found):
            if _is_key(row):
                keys.add(row)
    for table, (columns, insert) in _OTHERS.items():
        if not _has(source, table):
            continue
        others = _readable(source, f"SELECT {columns} FROM {table}", found)
        with _together(target):
            target.executemany(insert, [row for row in others if None not in row])
    rows = _rows(source, sorted(keys), found)
    while batch := list(islice(rows, _BATCH)):
        with _together(target):
            target.executemany(_INSERT, batch)
    return found


def _rows(
    source: sqlite3.Connection, keys: Iterable[Key], found: Found
) -> Iterator[tuple[Any, ...]]:
    """Rows that are whole. Those inside an earlier block are left out: it has their counts."""
    last: tuple[int, str, int] | None = None
    for key in keys:
        epoch, stream, lo = key
        if last is not None and last[:2] == (epoch, stream) and lo <= last[2]:
            continue
        try:
            row = source.execute(_ROW, key).fetchone()
        except sqlite3.DatabaseError:
            row = None
        checked = None if row is None else _checked(row)
        if checked is None:
            found.missing.append(key)
            continue
        found.rows += 1
        found.answers += checked[7] if stream.startswith("inference/") else 0
        last = (epoch, stream, checked[3])
        yield checked


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The row as it may be sent; None unless it is what this agent writes."""
    epoch, stream, lo, hi, part, t0, t1, n, body = row
    numbers = (epoch, lo, hi, part, t0, t1, n)
    if not all(isinstance(each, int) for each in numbers) or not isinstance(body, bytes):
        return None
    try:
        fields = decode(body, dict[str, Any], limit=_BODY_LIMIT)
        typed = read_body(Record(epoch, stream, lo, hi, n, fields, part, t0, t1))
    except (PeerError, ValueError):
        return None
    if counted(typed) != n or min(numbers) < 0:
        return None
    if part < FINAL and (smaller := private(typed, n)) != typed:
        body = encode(smaller)
    return (epoch, stream, lo, hi, part, t0, t1, n, body)


def counted(body: Body) -> int:
    """The `n` of a record with this body."""
    match body:
        case InferenceWindow():
            return body.answers
        case DriftWindow():
            return body.rows
        case EventWindow():
            return sum(body.counts.values())
        case ReportedState():
            return 1


def _is_key(row: tuple[Any, ...]) -> bool:
    return isinstance(row[0], int) and isinstance(row[1], str) and isinstance(row[2], int)


def _has(source: sqlite3.Connection, table: str) -> bool:
    """False for a table that the agent which wrote the file did not know yet."""
    try:
        query = "SELECT count(*) FROM sqlite_master WHERE name=?"
        return bool(source.execute(query, (table,)).fetchone()[0])
    except sqlite3.DatabaseError:
        return True


def _readable(source: sqlite3.Connection, query: str, found: Found) -> list[tuple[Any, ...]]:
    rows = []
    try:
        for row in islice(source.execute(query), _MOST):
            rows.append(row)
    except sqlite3.DatabaseError:
        found.whole = False
    return rows


@contextlib.contextmanager
def _together(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
