"""What was judged of drift, alarms with the records that they rest on, and who is told of them.

Evidence of drift stays in `record`: two indexes find it there.
"""

from __future__ import annotations

from typing import Final

import sqlite_utils

_SCHEMA: Final = (
    """
    CREATE TABLE drift_term (
        one INTEGER PRIMARY KEY CHECK (one = 1), per_year REAL NOT NULL, label TEXT,
        number INTEGER NOT NULL, changed_ms INTEGER NOT NULL
    )
    """,
    "INSERT INTO drift_term VALUES (1, 1.0, NULL, 1, 0)",
    # 'records': the newest ingest number looked at; 'slot/...' and 'day': the last one judged.
    "CREATE TABLE drift_mark (what TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # hits: JSON of the columns in which the device stands out of its peers.
    """
    CREATE TABLE peer_judged (
        manifest TEXT, profile TEXT, device TEXT, slot INTEGER, hits TEXT NOT NULL,
        PRIMARY KEY (manifest, profile, device, slot)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE alarm (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL,
        model TEXT NOT NULL, bundle TEXT NOT NULL, manifest TEXT NOT NULL, profile TEXT NOT NULL,
        kind TEXT NOT NULL, subject TEXT NOT NULL, verdict TEXT NOT NULL, sentence TEXT NOT NULL,
        features TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'acknowledged', 'snoozed', 'resolved')),
        opened_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL,
        until_ms INTEGER, quiet INTEGER NOT NULL DEFAULT 0, who TEXT NOT NULL DEFAULT '',
        why TEXT NOT NULL DEFAULT '', evidence TEXT NOT NULL DEFAULT ''
    )
    """,
    "CREATE UNIQUE INDEX alarm_key ON alarm (key) WHERE state <> 'resolved'",
    """
    CREATE TABLE alarm_record (
        digest TEXT PRIMARY KEY, alarm TEXT NOT NULL, number INTEGER NOT NULL,
        at_ms INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (alarm, number)
    )
    """,
    """
    CREATE TABLE webhook (
        id TEXT PRIMARY KEY, url TEXT NOT NULL, topics TEXT NOT NULL, who TEXT NOT NULL,
        created_ms INTEGER NOT NULL, stopped_ms INTEGER, why TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE delivery (
        id INTEGER PRIMARY KEY AUTOINCREMENT, webhook TEXT NOT NULL, event INTEGER NOT NULL,
        body TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'dead')),
        attempts INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL, done_ms INTEGER,
        why TEXT NOT NULL DEFAULT '', UNIQUE (webhook, event)
    )
    """,
    "CREATE INDEX delivery_due ON delivery (due_ms) WHERE state = 'waiting'",
    # A range instead of LIKE: SQLite matches it to the same condition of a query.
    "CREATE INDEX record_drift ON record (c) WHERE stream >= 'drift/' AND stream < 'drift0'",
    """
    CREATE INDEX record_drift_device ON record (device, t1)
    WHERE stream >= 'drift/' AND stream < 'drift0'
    """,
)


def migrate(db: sqlite_utils.Database) -> None:
    for statement in _SCHEMA:
        db.execute(statement)
