"""Members are counted as they move, and looked at when time alone may change what is said of them.

`phase_count` is right after every statement, since triggers keep it: reading counts costs the
same for ten devices and for a million.
"""

from __future__ import annotations

import sqlite_utils

_COUNTED = ("rollout", "wave", "phase", "quiet", "bets")


def migrate(db: sqlite_utils.Database) -> None:
    for column in (
        "quiet INTEGER NOT NULL DEFAULT 0",  # no contact for longer than its allowance
        "bets INTEGER NOT NULL DEFAULT 1",  # here from the start, and has not fallen quiet yet
        "due_ms INTEGER",  # before then time alone changes nothing; NULL: nor ever
        "allowance_ms INTEGER NOT NULL DEFAULT 10800000",
        "began_ms INTEGER",  # in progress since; NULL: it is not
        "outcome INTEGER NOT NULL DEFAULT 0",  # number of the last end of a trial that was counted
    ):
        db.execute(f"ALTER TABLE member ADD COLUMN {column}")
    # The longest time without contact, of this week (since 1970) and of the one before.
    for column in ("gap_ms", "gap_before_ms", "gap_week"):
        db.execute(f"ALTER TABLE device ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    # Computed from the spec, in which fields that have their default are absent.
    for name, field, usual in (
        ("silent_ms", "silent_after_s", "10800"),
        ("timeout_ms", "in_progress_timeout_s", "NULL"),
    ):
        db.execute(
            f"ALTER TABLE rollout ADD COLUMN {name} INTEGER GENERATED ALWAYS AS "
            f"(CAST(1000 * coalesce(json_extract(spec, '$.{field}'), {usual}) AS INTEGER)) VIRTUAL"
        )
    # Since when devices can be heard; NULL: they cannot, or nobody knows.
    db.execute("CREATE TABLE listening (one INTEGER PRIMARY KEY CHECK (one = 1), since_ms INTEGER)")
    db.execute("INSERT INTO listening VALUES (1, NULL)")
    db.execute(
        """
        CREATE TABLE phase_count (
            rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
            wave INTEGER NOT NULL,
            phase TEXT NOT NULL,
            quiet INTEGER NOT NULL,
            bets INTEGER NOT NULL,
            n INTEGER NOT NULL CHECK (n >= 0),
            PRIMARY KEY (rollout, wave, phase, quiet, bets)
        ) WITHOUT ROWID
        """
    )
    names = ", ".join(_COUNTED)
    db.execute(f"INSERT INTO phase_count SELECT {names}, count(*) FROM member GROUP BY {names}")
    changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in _COUNTED)
    db.execute(f"CREATE TRIGGER member_in AFTER INSERT ON member BEGIN {_one_more()} END")
    db.execute(f"CREATE TRIGGER member_out AFTER DELETE ON member BEGIN {_one_less()} END")
    db.execute(
        f"CREATE TRIGGER member_moved AFTER UPDATE OF {names} ON member WHEN {changed} "
        f"BEGIN {_one_less()} {_one_more()} END"
    )
    # Per rollout, so that what ended long ago is never looked at again. In order of time, which
    # has nothing to do with the hash that makes waves.
    db.execute("CREATE INDEX member_due ON member (rollout, due_ms) WHERE due_ms IS NOT NULL")
    db.execute("CREATE INDEX member_quiet ON member (rollout, phase) WHERE quiet = 1")
    db.execute(
        "CREATE INDEX member_reason ON member (rollout, reason) "
        "WHERE phase IN ('failed', 'rolled_back', 'refused')"
    )
    db.execute(
        """
        UPDATE member SET
            allowance_ms = (SELECT silent_ms FROM rollout WHERE id = member.rollout),
            due_ms = 0
        WHERE phase IN ('targeted', 'reached', 'staged', 'activated', 'healthy', 'unexercised')
          AND rollout IN (SELECT id FROM rollout WHERE ended_ms IS NULL)
        """
    )
    db.execute(
        """
        UPDATE member SET began_ms = since_ms
        WHERE due_ms IS NOT NULL AND phase IN ('reached', 'staged', 'activated')
        """
    )


def _one_more() -> str:
    names = ", ".join(_COUNTED)
    values = ", ".join(f"NEW.{name}" for name in _COUNTED)
    return (
        f"INSERT INTO phase_count ({names}, n) VALUES ({values}, 1) "
        f"ON CONFLICT ({names}) DO UPDATE SET n = n + 1;"
    )


def _one_less() -> str:
    same = " AND ".join(f"{name} = OLD.{name}" for name in _COUNTED)
    return f"UPDATE phase_count SET n = n - 1 WHERE {same};"
