"""Who may call the API."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE person (
            hash TEXT PRIMARY KEY,            -- of the token
            name TEXT NOT NULL,
            role TEXT NOT NULL,
            created_ms INTEGER NOT NULL,
            expires_ms INTEGER,
            used_ms INTEGER,
            revoked_ms INTEGER
        ) WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX person_name ON person (name)")
