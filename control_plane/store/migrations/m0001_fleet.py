"""Devices, what they say of themselves, tokens that let new ones in, and the log of events."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    # One counter for the fleet: `since` of documents and `as_of` of rollouts are its values.
    db.execute("CREATE TABLE sequence (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
    db.execute("INSERT INTO sequence VALUES ('fleet', 0)")
    db.execute(
        """
        CREATE TABLE device (
            id TEXT PRIMARY KEY,
            local TEXT NOT NULL UNIQUE,
            labels TEXT NOT NULL,             -- JSON object, without copied facts
            version INTEGER NOT NULL,         -- of the document that should be out
            since INTEGER NOT NULL,           -- sequence number of the last change of labels
            changed INTEGER NOT NULL,         -- sequence number of the last change of anything
            pins TEXT NOT NULL,
            allow TEXT NOT NULL,
            settings TEXT NOT NULL,
            certificate TEXT,                 -- fingerprint
            enrolled_ms INTEGER NOT NULL,
            last_contact_ms INTEGER,
            published INTEGER NOT NULL DEFAULT 0,  -- version of the document that is out
            state TEXT,                       -- ReportedState
            state_order INTEGER NOT NULL DEFAULT -1
        )
        """
    )
    db.execute("CREATE INDEX device_changed ON device (changed)")
    db.execute("CREATE INDEX device_unpublished ON device (id) WHERE published < version")
    # What the newest state says per model, for counting without reading states.
    db.execute(
        """
        CREATE TABLE running (
            device TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
            model TEXT NOT NULL,
            serving TEXT,
            current TEXT,
            PRIMARY KEY (device, model)
        ) WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX running_serving ON running (model, serving)")
    db.execute(
        """
        CREATE TABLE token (
            hash TEXT PRIMARY KEY,
            labels TEXT NOT NULL,
            name TEXT,
            expires_ms INTEGER NOT NULL,
            used_ms INTEGER
        )
        """
    )
    db.execute(
        """
        CREATE TABLE event (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            time_ms INTEGER NOT NULL,
            topic TEXT NOT NULL,
            type TEXT NOT NULL,
            data TEXT NOT NULL
        )
        """
    )
    db.execute("CREATE INDEX event_topic ON event (topic, id)")
