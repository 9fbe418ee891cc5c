"""Which version is stable for whom, rollouts, their members, and the plans that say so."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE assignment (
            model TEXT NOT NULL,
            position INTEGER NOT NULL,        -- first match wins
            selector TEXT,                    -- JSON tree; NULL is every device
            stable TEXT NOT NULL REFERENCES bundle (digest),
            PRIMARY KEY (model, position)
        ) WITHOUT ROWID
        """
    )
    db.execute(
        """
        CREATE TABLE rollout (
            id TEXT PRIMARY KEY,
            model TEXT NOT NULL,
            number INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            candidate TEXT NOT NULL REFERENCES bundle (digest),
            over TEXT REFERENCES bundle (digest),
            spec TEXT NOT NULL,
            selector TEXT,
            salt TEXT NOT NULL,
            as_of INTEGER NOT NULL,
            waves TEXT NOT NULL,              -- thresholds of every wave
            excluded TEXT NOT NULL,           -- why devices that match are no targets: counts
            status TEXT NOT NULL,
            wave INTEGER NOT NULL DEFAULT 0,  -- from 1; 0 before the first
            wave_ms INTEGER,                  -- when the wave began
            soak_ms INTEGER,                  -- when enough of it had activated
            asked INTEGER NOT NULL DEFAULT 0, -- version of the first plan with this wave
            looked INTEGER NOT NULL,          -- fleet sequence up to which members are right
            started_ms INTEGER NOT NULL,
            ended_ms INTEGER,
            why TEXT NOT NULL DEFAULT '',
            verdict TEXT,                     -- JSON: the last one, with its inputs
            UNIQUE (model, number)
        )
        """
    )
    db.execute("CREATE INDEX rollout_active ON rollout (model) WHERE ended_ms IS NULL")
    db.execute(
        """
        CREATE TABLE member (
            rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
            device TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
            wave INTEGER NOT NULL,
            phase TEXT NOT NULL,
            since_ms INTEGER NOT NULL,
            reason TEXT,
            PRIMARY KEY (rollout, device)
        ) WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX member_count ON member (rollout, wave, phase)")
    db.execute("CREATE INDEX member_device ON member (device)")
    # The bytes are kept so that a restarted ticker signs and publishes exactly the same again.
    db.execute(
        """
        CREATE TABLE plan (
            model TEXT PRIMARY KEY,
            version INTEGER NOT NULL,
            number INTEGER NOT NULL,
            data BLOB NOT NULL
        )
        """
    )
    db.execute("CREATE TABLE last_end (model TEXT PRIMARY KEY, ended TEXT NOT NULL)")
    db.execute(
        """
        CREATE TABLE deny_list (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            version INTEGER NOT NULL,
            data BLOB NOT NULL
        )
        """
    )
    db.execute(
        "CREATE TABLE denied (digest TEXT PRIMARY KEY, model TEXT NOT NULL, why TEXT NOT NULL)"
    )
