"""The audit trail. Other columns than `line` and `hash` are for finding records only."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE audit (
            number INTEGER PRIMARY KEY,
            time_ms INTEGER NOT NULL,
            who TEXT NOT NULL,
            what TEXT NOT NULL,
            about TEXT NOT NULL,
            line TEXT NOT NULL,               -- the text that is hashed
            hash TEXT NOT NULL
        )
        """
    )
    db.execute("CREATE INDEX audit_about ON audit (about, number)")
    # A slip of ours cannot change it; whoever edits the file can, and `audit verify` tells.
    for what in ("UPDATE", "DELETE"):
        db.execute(
            f"CREATE TRIGGER audit_no_{what.lower()} BEFORE {what} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
        )
