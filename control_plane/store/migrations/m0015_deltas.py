"""What was tried to be encoded for whom, and what devices can decode."""

from __future__ import annotations

import json

import sqlite_utils

from protocol.payload import features_named


def migrate(db: sqlite_utils.Database) -> None:
    # base: a file's digest; empty: none. ability: feature bits and bytes of memory of a device.
    # smallest: bytes of the smallest payload that came of it; NULL: none was worth keeping.
    db.execute(
        """
        CREATE TABLE delta (
            model TEXT NOT NULL, file TEXT NOT NULL, base TEXT NOT NULL, recipe INTEGER NOT NULL,
            ability TEXT NOT NULL, made_ms INTEGER NOT NULL, smallest INTEGER,
            PRIMARY KEY (model, file, base, recipe, ability)
        ) WITHOUT ROWID
        """
    )
    # Feature bits as last reported; NULL: never heard.
    db.execute("ALTER TABLE device ADD COLUMN features INTEGER")
    for id, state in db.execute("SELECT id, state FROM device WHERE state IS NOT NULL").fetchall():
        bits = features_named(json.loads(state).get("features", ()))
        db.execute("UPDATE device SET features = ? WHERE id = ?", (bits, id))
    # Asked at every tick: without it, each answer would read all reported states.
    db.execute(
        "CREATE INDEX device_features ON device (features) "
        "WHERE retired_ms IS NULL AND features IS NOT NULL"
    )
