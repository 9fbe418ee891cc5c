"""What rollouts that decide remember of their way, and of what people said to them."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    for column in (
        "shadowing INTEGER NOT NULL DEFAULT 0",  # the plan says: run beside, do not activate
        "accepted INTEGER NOT NULL DEFAULT 0",  # a person goes on although nothing was proven
        "approved INTEGER NOT NULL DEFAULT 0",  # a person has let the next wave begin
        "asks TEXT NOT NULL DEFAULT ''",  # problem code of what waits for a person
        "holdback INTEGER NOT NULL DEFAULT 0",  # threshold of the control cohort held back
        "held INTEGER NOT NULL DEFAULT 0",  # devices in it
        "kept INTEGER NOT NULL DEFAULT 0",  # aborted, and whoever runs the candidate keeps it
        "superseded_by TEXT NOT NULL DEFAULT ''",
        "evidence TEXT NOT NULL DEFAULT ''",  # digest of the newest evidence record
        "history TEXT NOT NULL DEFAULT '[]'",  # JSON: when each wave began and how it was judged
    ):
        db.execute(f"ALTER TABLE rollout ADD COLUMN {column}")
    db.execute("CREATE INDEX rollout_kept ON rollout (model) WHERE kept = 1")
    db.execute(
        """
        CREATE TABLE shadow (
            rollout TEXT NOT NULL,
            device TEXT NOT NULL,
            wave INTEGER NOT NULL,
            rows INTEGER NOT NULL,            -- that both answered
            agreed INTEGER NOT NULL,
            enough INTEGER NOT NULL,          -- whether it has as many rows as are wanted
            PRIMARY KEY (rollout, device),
            FOREIGN KEY (rollout, device) REFERENCES member (rollout, device) ON DELETE CASCADE
        ) WITHOUT ROWID
        """
    )
    # Right after every statement, since triggers keep it. `rows` and `agreed` are of those with
    # enough.
    db.execute(
        """
        CREATE TABLE shadow_total (
            rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
            wave INTEGER NOT NULL,
            devices INTEGER NOT NULL,
            enough INTEGER NOT NULL,
            rows INTEGER NOT NULL,
            agreed INTEGER NOT NULL,
            PRIMARY KEY (rollout, wave)
        ) WITHOUT ROWID
        """
    )
    db.execute(f"CREATE TRIGGER shadow_in AFTER INSERT ON shadow BEGIN {_counted('NEW', 1)} END")
    db.execute(f"CREATE TRIGGER shadow_out AFTER DELETE ON shadow BEGIN {_counted('OLD', -1)} END")
    db.execute(
        "CREATE TRIGGER shadow_moved AFTER UPDATE ON shadow "
        f"BEGIN {_counted('OLD', -1)} {_counted('NEW', 1)} END"
    )
    # The ticker looks for these in every round, however large the fleet is.
    db.execute(
        "CREATE INDEX device_to_withdraw ON device (id) "
        "WHERE retired_ms IS NOT NULL AND published >= 0"
    )


def _counted(row: str, sign: int) -> str:
    """A statement of a trigger that adds a row to its wave, or takes it away."""
    return (
        "INSERT INTO shadow_total (rollout, wave, devices, enough, rows, agreed) "
        f"VALUES ({row}.rollout, {row}.wave, {sign}, {sign} * {row}.enough, "
        f"{sign} * {row}.enough * {row}.rows, {sign} * {row}.enough * {row}.agreed) "
        "ON CONFLICT (rollout, wave) DO UPDATE SET devices = devices + excluded.devices, "
        "enough = enough + excluded.enough, rows = rows + excluded.rows, "
        "agreed = agreed + excluded.agreed;"
    )
