"""What every part of the store is made of: a way to read, a way to write, pages by key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from protocol.codec import encode

T = TypeVar("T")

Connect = Callable[[], sqlite3.Connection]
Write = Callable[[], AbstractContextManager[sqlite3.Connection]]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """Part of a list, in key order. `after` is the key to go on behind; None at the end."""

    items: tuple[T, ...]
    after: tuple[str | int, ...] | None


class Table:
    """Base of the store's objects. Every method is one transaction, or joins an open one."""

    def __init__(self, connect: Connect, write: Write) -> None:
        self._connect = connect
        self._write = write

    def _all(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        return self._connect().execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[object] = ()) -> Row | None:
        row: Row | None = self._connect().execute(sql, values).fetchone()
        return row

    def _number(self, sql: str, values: Sequence[object] = ()) -> int:
        row = self._one(sql, values)
        return int(row[0]) if row and row[0] is not None else 0

    def _do(self, sql: str, values: Sequence[object] = ()) -> int:
        """Run one writing statement and return how many rows it touched."""
        with self._write() as connection:
            return connection.execute(sql, values).rowcount


def dump(value: object) -> str:
    """JSON text of plain values and protocol types: equal values give equal text."""
    return encode(value).decode()


def load(text: str | bytes, into: type[T]) -> T:
    """Read what `dump` wrote. It is our own data, so a fault here is a fault in Outrider."""
    return msgspec.json.decode(text, type=into)


def cut(items: Sequence[T], limit: int, key: Callable[[T], tuple[str | int, ...]]) -> Slice[T]:
    """A slice from a query that asked for `limit + 1` rows."""
    kept = tuple(items[:limit])
    return Slice(kept, key(kept[-1]) if len(items) > limit and kept else None)
