"""Schema changes: each applied once, in order, together with the note that it was applied."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import iter_modules

import sqlite_utils

Migration = tuple[str, Callable[[sqlite_utils.Database], None]]


def known() -> tuple[Migration, ...]:
    """Every module of this package, in the order of its number."""
    names = sorted(each.name for each in iter_modules(__path__))
    return tuple((name, import_module(f"{__name__}.{name}").migrate) for name in names)


def apply(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> tuple[str, ...]:
    """Apply what is missing and return its names.

    Every migration and its note are one transaction: after a crash in the middle of one, the
    database is as it was before it. Two processes that start together apply each once, since
    the note is read under the write lock.
    """
    # Our connections commit nothing by themselves; the library's blocks nest as savepoints.
    database = sqlite_utils.Database(connection)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, number INTEGER NOT NULL)"
    )
    applied = []
    for number, (name, migrate) in enumerate(migrations, start=1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            row = connection.execute("SELECT 1 FROM migration WHERE name = ?", (name,)).fetchone()
            if row is None:
                migrate(database)
                connection.execute("INSERT INTO migration VALUES (?, ?)", (name, number))
                applied.append(name)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return tuple(applied)
