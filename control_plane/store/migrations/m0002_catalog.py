"""Bundles, their variants, and what of them has been encoded for travel."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE bundle (
            digest TEXT PRIMARY KEY,
            model TEXT NOT NULL,
            version TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('draft', 'approved', 'revoked')),
            size_bytes INTEGER NOT NULL,
            pushed_ms INTEGER NOT NULL,
            card TEXT NOT NULL,
            UNIQUE (model, version)
        )
        """
    )
    db.execute("CREATE INDEX bundle_pushed ON bundle (model, pushed_ms DESC)")
    # Variants of two bundles can be the same manifest.
    db.execute(
        """
        CREATE TABLE manifest (
            bundle TEXT NOT NULL REFERENCES bundle (digest) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            digest TEXT NOT NULL,
            profile TEXT NOT NULL,
            PRIMARY KEY (bundle, position)
        ) WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX manifest_digest ON manifest (digest)")
    db.execute(
        """
        CREATE TABLE payload (
            model TEXT NOT NULL,
            file TEXT NOT NULL,               -- digest of what it decodes to
            payload TEXT NOT NULL,
            size INTEGER NOT NULL,
            frames INTEGER NOT NULL,
            features INTEGER NOT NULL,
            decode_memory INTEGER NOT NULL,
            base TEXT,
            path TEXT NOT NULL,               -- of the encoded file, below the home
            encoded_ms INTEGER NOT NULL,
            PRIMARY KEY (model, file, payload)
        ) WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX payload_digest ON payload (payload)")
