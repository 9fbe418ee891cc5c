"""Who bets in the scores of a rollout, what came of it hour by hour, and records of verdicts."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    # The windows of one device in a span of time, without a look at the rest of its life.
    db.execute(
        "CREATE INDEX record_inference ON record (device, t1) "
        "WHERE stream >= 'inference/' AND stream < 'inference0'"
    )
    for statement in _TABLES:
        db.execute(statement)


_TABLES = (
    # How far the collection of a rollout's evidence is. `terms` is JSON, once they are frozen.
    """
    CREATE TABLE judging (
        rollout TEXT PRIMARY KEY REFERENCES rollout (id) ON DELETE CASCADE,
        stage TEXT NOT NULL CHECK (stage IN ('sampling', 'rehearsing', 'judging', 'over')),
        cursor TEXT NOT NULL DEFAULT '',  -- last member that was looked at
        classes INTEGER NOT NULL DEFAULT 0,
        terms TEXT
    ) WITHOUT ROWID
    """,
    "CREATE INDEX judging_on ON judging (rollout) WHERE stage <> 'over'",
    # The members of each wave with the lowest second hash: who may bet.
    """
    CREATE TABLE sampled (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        place INTEGER NOT NULL,
        device TEXT NOT NULL,
        PRIMARY KEY (rollout, wave, place, device)
    ) WITHOUT ROWID
    """,
    # Who bets in a wave: 'a' of it, 'b' a control. Only those whose clock has not started.
    """
    CREATE TABLE bettor (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('a', 'b')),
        device TEXT NOT NULL,
        contact_ms INTEGER,               -- first contact after the wave began, of controls
        PRIMARY KEY (rollout, wave, side, device)
    ) WITHOUT ROWID
    """,
    # Clocks of candidates, for the median time that they needed.
    """
    CREATE TABLE started (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        device TEXT NOT NULL,
        clock_ms INTEGER NOT NULL,
        PRIMARY KEY (rollout, wave, device)
    ) WITHOUT ROWID
    """,
    # Exposures that are not judged yet. Wave 0 is the last day before the start.
    """
    CREATE TABLE pending (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        device TEXT NOT NULL,
        exposure_ms INTEGER NOT NULL,
        side TEXT NOT NULL,
        clock_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL,
        look_ms INTEGER NOT NULL,         -- when to look whether its windows have come
        PRIMARY KEY (rollout, wave, device, exposure_ms)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX pending_look ON pending (rollout, look_ms)",
    "CREATE INDEX pending_end ON pending (rollout, wave, end_ms)",
    # Judged once and for good. `body` is JSON: changes by series.
    """
    CREATE TABLE judged (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        hour INTEGER NOT NULL,
        device TEXT NOT NULL,
        exposure_ms INTEGER NOT NULL,
        side TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (rollout, wave, hour, device, exposure_ms)
    ) WITHOUT ROWID
    """,
    # What a wave began with. `hour`: the first one that is open.
    """
    CREATE TABLE wave_evidence (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        began_ms INTEGER NOT NULL,
        candidates INTEGER NOT NULL,
        controls INTEGER NOT NULL,
        hour INTEGER NOT NULL,
        PRIMARY KEY (rollout, wave)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE exposed (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        exposure_ms INTEGER NOT NULL,
        due_a INTEGER NOT NULL,
        due_b INTEGER NOT NULL,
        a INTEGER NOT NULL,
        b INTEGER NOT NULL,
        PRIMARY KEY (rollout, wave, exposure_ms)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE tick (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        hour INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (rollout, wave, hour)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE silence (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        wave INTEGER NOT NULL,
        number INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (rollout, wave, number)
    ) WITHOUT ROWID
    """,
    # What verdicts rest on, each with the digest of the one before it.
    """
    CREATE TABLE evidence_record (
        digest TEXT PRIMARY KEY,
        rollout TEXT NOT NULL,
        number INTEGER NOT NULL,          -- from 1, per rollout
        at_ms INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (rollout, number)
    )
    """,
)
