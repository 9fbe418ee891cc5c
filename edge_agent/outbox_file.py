"""The SQLite file behind the outbox: opened, checked, and its failures given a name.

Whatever the storage does ends as `Unavailable` with the code a technician sees: OUT-D501 where
room is missing, OUT-D502 for everything else. A file that SQLite calls damaged is set aside and
replaced: an unattended device has to report again some day, and says what it lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from protocol.errors import Unavailable

SCHEMA_VERSION: Final = 1
_PAGE_BYTES: Final = 4096
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS buf(
  epoch INTEGER NOT NULL, stream TEXT NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL,
  part INTEGER NOT NULL, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL, n INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY(epoch, stream, lo)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS buf_age ON buf(t0);
CREATE TABLE IF NOT EXISTS taken(
  runner TEXT PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS reported(model TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS baseline(
  model TEXT NOT NULL, digest TEXT NOT NULL, slot INTEGER NOT NULL, at INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY(model, digest, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state_order(one INTEGER PRIMARY KEY CHECK(one = 1), value INTEGER);
CREATE TABLE IF NOT EXISTS total(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Everything else is a mistake of ours (a constraint, wrong use) and may crash.
_STORAGE: Final = (
    *_DAMAGED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
)


class OutboxFile:
    """One connection, used by one thread. Opened when first needed, and again after a failure.

    `start` is called with the connection inside the transaction of every opening: what the
    caller keeps in memory must be forgotten there, because after a failed commit nobody knows
    whether the file has it.
    """

    def __init__(
        self, path: Path, limit_bytes: int, start: Callable[[sqlite3.Connection], None]
    ) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._start = start
        self._db: sqlite3.Connection | None = None
        self._suspect = False
        self.problem: tuple[str, str] | None = None
        """Code and text of what is wrong with the file now."""
        self.lost = ""
        """What was set aside since the process started, for people."""

    @property
    def limit_bytes(self) -> int:
        return self._limit_bytes

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """`BEGIN IMMEDIATE` to `COMMIT`, durable when it returns. Raises `Unavailable`."""
        committing = False
        try:
            db = self._opened()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            committing = True
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error, keep=not committing)
            raise
        self.problem = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for queries. Raises `Unavailable`."""
        try:
            yield self._opened()
        except sqlite3.Error as error:
            self._failed(error, keep=True)
            raise

    def used_bytes(self, db: sqlite3.Connection) -> int:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        free = db.execute("PRAGMA freelist_count").fetchone()[0]
        return int((pages - free) * _PAGE_BYTES)

    def resize(self, limit_bytes: int) -> None:
        """A new quota. A file that is larger already keeps its size and takes no more."""
        self._limit_bytes = limit_bytes
        if self._db is not None:
            self._db.execute(f"PRAGMA max_page_count={limit_bytes // _PAGE_BYTES}")

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if _primary(error) not in _DAMAGED:
                raise
            self._set_aside(str(error))
            self._db = self._open()
        self._suspect = False
        return self._db

    def _open(self) -> sqlite3.Connection:
        # Autocommit: transactions begin and end only where they are written.
        db = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        try:
            db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA journal_size_limit=1048576")
            db.execute(f"PRAGMA max_page_count={self._limit_bytes // _PAGE_BYTES}")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise Unavailable("OUT-D502", f"{self._path.name} is of a newer agent")
            if self._suspect and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise _damaged()
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._start(db)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(self._path.name + ".broken")
        try:
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable("OUT-D502", f"{self._path.name}: {why}; {error}") from error
        self.lost = f"{self._path.name} was damaged ({why}); kept as {aside.name}"

    def _failed(self, error: sqlite3.Error, *, keep: bool) -> None:
        """Raise `Unavailable` for what the storage did; return for a mistake of ours."""
        code = _primary(error)
        if code not in _STORAGE:
            return
        full = code == sqlite3.SQLITE_FULL
        if code in _DAMAGED:
            self._suspect = True
        if not (full and keep):
            self.close()
        self.problem = ("OUT-D501" if full else "OUT-D502", str(error))
        raise Unavailable(*self.problem) from error


def _primary(error: sqlite3.Error) -> int:
    """The primary result code; -1 for errors that do not come from SQLite itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF


def _damaged() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("its pages are damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
