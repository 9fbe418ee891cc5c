"""Long-running operations of the API, and requests that may be repeated."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE operation (
            id TEXT PRIMARY KEY,
            number INTEGER NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed')),
            done INTEGER NOT NULL DEFAULT 0,
            total INTEGER NOT NULL DEFAULT 0,
            unit TEXT NOT NULL DEFAULT '',
            input TEXT NOT NULL,
            result TEXT,
            problem TEXT,
            created_ms INTEGER NOT NULL,
            changed_ms INTEGER NOT NULL
        )
        """
    )
    db.execute(
        """
        CREATE TABLE idempotency (
            key TEXT PRIMARY KEY,
            request TEXT NOT NULL,            -- digest of method, path and body
            status INTEGER,                   -- NULL while the first request runs
            headers TEXT,
            body BLOB,
            created_ms INTEGER NOT NULL
        )
        """
    )
    db.execute("CREATE INDEX idempotency_created ON idempotency (created_ms)")
