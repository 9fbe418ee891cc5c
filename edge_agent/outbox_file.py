"""The SQLite file behind the outbox: opened, checked, bounded, and its failures given a name.

Whatever the storage does ends as `Unavailable` with the code a technician sees: OUT-D501 where
room is missing, OUT-D502 for everything else. A file that SQLite calls damaged is set aside, what
can be read of it goes into a new one, and what is lost is noted there until it has been said: an
unattended device has to report again some day. A file that is deleted while it is open is copied
from the open one.

The quota counts what is on disk: the database, its log, and the log's index.

Long because opening, bounding and replacing a file depend on each other at every step.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from edge_agent import salvage
from edge_agent.wal import Wal
from protocol.codec import encode
from protocol.errors import Unavailable

SCHEMA_VERSION: Final = 1
PAGE_BYTES: Final = 4096
LOG_BYTES: Final = 1_000_000
"""The log is emptied when it is larger; less where the quota is small."""
_INDEX_BYTES: Final = 32_768
"""Of the log's index, for a log of this size."""
_STEP_PAGES: Final = 128
"""Given back to the file system at once: they go through the log."""
_STEPS: Final = 8
_SPARE: Final = 4
"""A quarter of the file may be free pages, which are used again."""
_FREE_BYTES: Final = 65_536
"""With less room than this on the file system, whatever fails fails for want of it."""
_FULL_SYNC: Final = "FULL"
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
CREATE TABLE IF NOT EXISTS unsaid(what TEXT PRIMARY KEY, detail BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS detector(
  manifest TEXT NOT NULL, profile TEXT NOT NULL, t INTEGER NOT NULL, at INTEGER NOT NULL,
  since INTEGER NOT NULL, top TEXT NOT NULL, ln_e REAL NOT NULL, state BLOB NOT NULL,
  PRIMARY KEY(manifest, profile)) WITHOUT ROWID;
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
        self,
        path: Path,
        limit_bytes: int,
        start: Callable[[sqlite3.Connection], None],
        *,
        synchronous: str = _FULL_SYNC,
    ) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._start = start
        self._synchronous = synchronous
        self._db: sqlite3.Connection | None = None
        self._deleted: sqlite3.Connection | None = None
        """Open on a file that has no name any more: the only place where its rows are."""
        self._inode: int | None = None
        self._suspect = False
        self.problem: tuple[str, str] | None = None
        """Code and text of what is wrong with the file now."""
        self.lost = ""
        """What was lost since the process started, for people."""

    @property
    def limit_bytes(self) -> int:
        return self._limit_bytes

    @property
    def room_bytes(self) -> int:
        """What pages may take: the quota without what the log needs."""
        return self._limit_bytes - 2 * self._log_bytes - min(_INDEX_BYTES, self._limit_bytes // 8)

    @property
    def _log_bytes(self) -> int:
        return min(LOG_BYTES, self._limit_bytes // 16)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """`BEGIN IMMEDIATE` to `COMMIT`, durable when it returns. Raises `Unavailable`."""
        try:
            db = self._opened()
            self._empty_log(db, at_most=2 * self._log_bytes)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            self._failed(error)
            raise
        self.problem = None
        # What was committed is durable: whatever fails here shows again before the next one.
        with contextlib.suppress(sqlite3.Error):
            self._empty_log(db)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for queries. Raises `Unavailable`."""
        try:
            yield self._opened()
        except sqlite3.Error as error:
            self._failed(error)
            raise

    def live_bytes(self) -> int:
        """Pages with something in them. Raises `Unavailable`."""
        with self.reading() as db:
            return (_number(db, "page_count") - _number(db, "freelist_count")) * PAGE_BYTES

    def disk_bytes(self) -> int:
        """What it takes on disk: database, log and the log's index."""
        return sum(_size(self._beside(suffix)) for suffix in ("", "-wal", "-shm"))

    def resize(self, limit_bytes: int) -> None:
        """A new quota. A larger file gets there as `shrink` is called and rows are given up."""
        self._limit_bytes = limit_bytes
        if self._db is not None:
            self._bound(self._db)

    def shrink(self) -> None:
        """Give free pages back to the file system, some at a time, if they are many or the file
        is too large. Not in a transaction. Raises `Unavailable`."""
        with self.reading() as db:
            for _ in range(_STEPS):
                pages, free = _number(db, "page_count"), _number(db, "freelist_count")
                least = max(pages // _SPARE, self._log_bytes // PAGE_BYTES)
                if _size(self._path) - pages * PAGE_BYTES > self._log_bytes:
                    # Only so the file system gets what was given back before.
                    self._empty_log(db, always=True)
                if free == 0 or (free <= least and pages * PAGE_BYTES <= self.room_bytes):
                    return
                # With `execute` it would stop after the first page.
                db.executescript(f"PRAGMA incremental_vacuum({_STEP_PAGES})")
                self._empty_log(db)
                self._bound(db)
                if _number(db, "freelist_count") == free:
                    return

    def close(self) -> None:
        for db in (self._db, self._deleted):
            if db is not None:
                db.close()
        self._db = self._deleted = None

    # --- opening --------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        if self._db is not None and self._moved():
            self._db = None
        if self._db is not None:
            return self._db
        try:
            db = self._open()
        except sqlite3.DatabaseError as error:
            if _primary(error) not in _DAMAGED:
                raise
            self._set_aside(str(error))
            db = self._open()
        self._suspect = False
        try:
            self._rescue(db)
        except BaseException:
            db.close()
            raise
        self._db, self._inode = db, _inode(self._path)
        return db

    def _open(self) -> sqlite3.Connection:
        self._mend_rights()
        gone = self._is_gone()
        torn = self._torn_log()
        # Autocommit: transactions begin and end only where they are written.
        db = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        try:
            db.execute(f"PRAGMA page_size={PAGE_BYTES}")
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA synchronous={self._synchronous}")
            version = _number(db, "user_version")
            if version > SCHEMA_VERSION:
                raise Unavailable("OUT-D502", f"{self._path.name} is of a newer agent")
            if self._suspect and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise _damaged()
            missing = torn.missing(db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
            self._bound(db)
            self._make_shrinkable(db)
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            if version != SCHEMA_VERSION:
                # Not for nothing: it would need room that there may not be.
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._start(db)
            if gone:
                self.lose(db, {"why": f"{self._path.name} was gone", "known": "nothing"})
            if missing:
                self.lose(db, {"why": missing, "known": "nothing"})
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        with contextlib.suppress(OSError):
            self._mark.touch()
        return db

    def _bound(self, db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA max_page_count={self.room_bytes // PAGE_BYTES}")
        db.execute(f"PRAGMA wal_autocheckpoint={max(1, self._log_bytes // PAGE_BYTES)}")
        db.execute(f"PRAGMA journal_size_limit={self._log_bytes}")

    def _make_shrinkable(self, db: sqlite3.Connection) -> None:
        """A file of an earlier agent is rewritten once, if both fit the quota together."""
        small = _number(db, "page_count") * PAGE_BYTES <= self._limit_bytes // 3
        if _number(db, "auto_vacuum") == 0 and small:
            db.executescript("PRAGMA auto_vacuum=INCREMENTAL; VACUUM")

    def _empty_log(
        self, db: sqlite3.Connection, at_most: int | None = None, *, always: bool = False
    ) -> None:
        """Once it is too large, or `always`. Somebody else's open transaction can keep it from
        being emptied; with `at_most`, that is OUT-D501 above so many bytes."""
        log = self._beside("-wal")
        if _size(log) <= (self._log_bytes if at_most is None else at_most) and not always:
            return
        db.execute("PRAGMA busy_timeout=0")
        try:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.execute("PRAGMA busy_timeout=5000")
        if at_most is not None and _size(log) > at_most:
            self.problem = ("OUT-D501", f"another process keeps {log.name} from being emptied")
            raise Unavailable(*self.problem, do="end what reads the record buffer")

    # --- damage ---------------------------------------------------------------------------------

    def _moved(self) -> bool:
        """Whether the path is no longer that of the open file. A deleted one is kept open."""
        found = _inode(self._path)
        if self._db is None:
            return False
        if found == self._inode:
            if self._beside("-wal").exists():
                return False
            # The log was deleted: its rows go into the database, and there will be another.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.close()
            return True
        if found is None:
            if self._deleted is None:
                self._deleted = self._db
        else:
            # Somebody put another file there: what it says holds, as after a restart.
            self._db.close()
        return True

    def _rescue(self, db: sqlite3.Connection) -> None:
        """Take over what an earlier file still has. Can be interrupted and repeated."""
        if self._deleted is not None:
            found = salvage.copy(self._deleted, db)
            why = f"{self._path.name} was deleted while it was open"
            self._tell(db, why, found, "")
            self._deleted.close()
            self._deleted = None
        damaged = self._aside("damaged")
        if not damaged.exists():
            return
        found = salvage.copy_file(damaged, db)
        self._tell(db, f"{self._path.name} was damaged", found, self._aside("broken").name)
        for suffix in ("", "-wal"):
            source = damaged.with_name(damaged.name + suffix)
            if source.exists():
                source.replace(self._aside("broken").with_name(self._aside("broken").name + suffix))
        damaged.with_name(damaged.name + "-shm").unlink(missing_ok=True)

    def _tell(self, db: sqlite3.Connection, why: str, found: salvage.Found, kept: str) -> None:
        detail = {"why": why, **found.detail}
        if kept:
            detail["kept"] = kept
        if kept or found.lost:
            db.execute("BEGIN IMMEDIATE")
            self.lose(db, detail)
            db.execute("COMMIT")

    def lose(self, db: sqlite3.Connection, detail: dict[str, Any]) -> None:
        """Note in a transaction what was lost, until it has been said."""
        self.lost = salvage.words(detail)
        db.execute(
            "INSERT OR REPLACE INTO unsaid VALUES(?,?)", (str(detail["why"]), encode(detail))
        )

    def _set_aside(self, why: str) -> None:
        """The log goes with its file: there are rows in it."""
        damaged = self._aside("damaged")
        try:
            for suffix in ("-wal", ""):
                source = self._beside(suffix)
                if source.exists():
                    source.replace(damaged.with_name(damaged.name + suffix))
            self._beside("-shm").unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable("OUT-D502", f"{self._path.name}: {why}; {error}") from error

    def _mend_rights(self) -> None:
        """Beside a file that was read-only, SQLite leaves a log that is so for ever."""
        for suffix in ("-wal", "-shm"):
            beside = self._beside(suffix)
            with contextlib.suppress(OSError):
                mode = self._path.stat().st_mode & 0o777
                if mode & 0o200 and not beside.stat().st_mode & 0o200:
                    beside.chmod(mode)

    def _is_gone(self) -> bool:
        """Whether there was a file, as the mark beside it says, and there is none now."""
        if self._path.exists() or self._deleted is not None or self._aside("damaged").exists():
            return False
        return self._mark.exists()

    def _torn_log(self) -> Wal:
        try:
            return Wal.read(self._beside("-wal"))
        except OSError:
            return Wal()

    @property
    def _mark(self) -> Path:
        return self._beside(".made")

    def _aside(self, how: str) -> Path:
        return self._beside(f".{how}")

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    def _failed(self, error: sqlite3.Error) -> None:
        """Raise `Unavailable` for what the storage did; return for a mistake of ours."""
        code = _primary(error)
        if code not in _STORAGE:
            return
        full = code == sqlite3.SQLITE_FULL
        if code in _DAMAGED:
            self._suspect = True
        # For want of room nothing was committed, for sure, and what is open can still be read;
        # opening it again may take room as well. After anything else nobody knows.
        if not full:
            self._close_failed()
        text = str(error)
        if self._is_full(code):
            full, text = True, f"the file system has no room: {error}"
        elif full:
            text = f"the quota of {self._limit_bytes:,} bytes is used up"
        self.problem = ("OUT-D501" if full else "OUT-D502", text)
        raise Unavailable(*self.problem) from error

    def _close_failed(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _is_full(self, code: int) -> bool:
        if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            return False
        try:
            found = os.statvfs(self._path.parent)
        except OSError:
            return False
        return found.f_bavail * found.f_frsize < _FREE_BYTES


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _primary(error: sqlite3.Error) -> int:
    """The primary result code; -1 for errors that do not come from SQLite itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF


def _damaged() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("its pages are damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
