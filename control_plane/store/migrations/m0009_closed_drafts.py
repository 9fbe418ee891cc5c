"""How a draft ended without approval, and what people said about a version's state."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    # Beside `state`, whose CHECK cannot be widened without making the table anew under its
    # references. Only a draft can be closed: approval and revocation clear it.
    db.execute(
        "ALTER TABLE bundle ADD COLUMN closed TEXT CHECK (closed IN ('rejected', 'withdrawn'))"
    )
    db.execute("ALTER TABLE bundle ADD COLUMN why TEXT NOT NULL DEFAULT ''")
