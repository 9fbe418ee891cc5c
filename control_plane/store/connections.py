"""One SQLite connection per thread, and write transactions that nest."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BUSY_TIMEOUT_S: Final = 30.0
SYNCHRONOUS = "FULL"
"""An acknowledged record survives a power cut, so every commit is synced."""


class _Connection(sqlite3.Connection):
    """Unlike its base it can be referred to weakly."""


class Connections:
    """Connections commit nothing by themselves; outside `write()` each statement is its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        self._closed = False

    def get(self) -> sqlite3.Connection:
        """The calling thread's connection; it is closed when the thread is gone."""
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is None:
            held = self._connect()
            self._local.connection = held
        return held

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK of everything if it raises.

        An inner block is part of the outer one: only the outermost commits.
        """
        connection = self.get()
        if connection.in_transaction:
            yield connection
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close every thread's connection. Threads that still use one get an error."""
        with self._lock:
            self._closed = True
            for connection in list(self._open):
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        # Only its own thread uses it; another thread may close it at the end.
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        with self._lock:
            if self._closed:
                connection.close()
                raise sqlite3.ProgrammingError("the store is closed")
            self._open.add(connection)
        _write_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. Two that switch a new file together do not wait for each other
    by SQLite's own timeout, so they do by ours."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
