"""What devices sent: records, what backups hold of them, and what is known to be wrong."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    """Create the tables of `store.records`. Runs inside the caller's transaction."""
    for statement in _TABLES:
        db.execute(statement)


_TABLES = (
    # `c` is the number of the transaction that stored the row: what a backup holds is `c` up to
    # a mark. `body` is JSON text, so that people can query it.
    """
    CREATE TABLE record(
      device TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL,
      lo INTEGER NOT NULL, hi INTEGER NOT NULL, part INTEGER NOT NULL,
      t0 INTEGER NOT NULL, t1 INTEGER NOT NULL, n INTEGER NOT NULL,
      body TEXT NOT NULL, c INTEGER NOT NULL,
      PRIMARY KEY(device, epoch, stream, lo)) WITHOUT ROWID
    """,
    "CREATE INDEX record_stream ON record(stream, t1)",
    "CREATE TABLE ingest_number(one INTEGER PRIMARY KEY CHECK(one = 1), c INTEGER NOT NULL)",
    "INSERT INTO ingest_number VALUES(1, 0)",
    # Empty while nobody makes backups: then stored is all the safety there is.
    "CREATE TABLE backup_mark(c INTEGER NOT NULL)",
    """
    CREATE TABLE retired(
      device TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL,
      upto INTEGER NOT NULL, PRIMARY KEY(device, epoch, stream)) WITHOUT ROWID
    """,
    # One record that came with two contents: a copied disk or a resumed snapshot.
    """
    CREATE TABLE conflict(
      device TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL, lo INTEGER NOT NULL,
      kept INTEGER NOT NULL, came INTEGER NOT NULL, times INTEGER NOT NULL,
      PRIMARY KEY(device, epoch, stream, lo)) WITHOUT ROWID
    """,
    # The last complete list of what a device still holds, from its last probe.
    """
    CREATE TABLE held(
      device TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL,
      lowest INTEGER NOT NULL, highest INTEGER NOT NULL,
      PRIMARY KEY(device, epoch, stream)) WITHOUT ROWID
    """,
    "CREATE TABLE probed(device TEXT PRIMARY KEY, at INTEGER NOT NULL)",
)
