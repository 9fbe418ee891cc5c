"""What a bundle did on this device lately: the measure for its successor's confidence.

Kept beside the records because those disappear as soon as the control plane has them.
"""

from __future__ import annotations

import sqlite3
from functools import reduce
from typing import Final

from protocol.codec import decode, encode
from protocol.identifiers import Digest, ModelName
from protocol.telemetry import InferenceWindow, merge_bodies

CLOSED_WINDOWS: Final = 48
"""Together with the open one they are the baseline."""
_BUNDLES: Final = 4
"""Per model: current, previous, a candidate, and one on the way out."""
_BODY_LIMIT: Final = 64 * 1024 * 1024


def next_slot(db: sqlite3.Connection, model: ModelName, digest: Digest) -> int:
    """Slot of a window that opens now; forgets what is too old."""
    row = db.execute(
        "SELECT max(slot) FROM baseline WHERE model=? AND digest=?", (model, digest)
    ).fetchone()
    slot = 0 if row[0] is None else int(row[0]) + 1
    db.execute(
        "DELETE FROM baseline WHERE model=? AND digest=? AND slot<?",
        (model, digest, slot - CLOSED_WINDOWS),
    )
    db.execute(
        "DELETE FROM baseline WHERE model=:model AND digest<>:digest AND digest NOT IN"
        " (SELECT digest FROM baseline WHERE model=:model AND digest<>:digest"
        "  GROUP BY digest ORDER BY max(at) DESC LIMIT :others)",
        {"model": model, "digest": digest, "others": _BUNDLES - 1},
    )
    return slot


def keep(
    db: sqlite3.Connection,
    model: ModelName,
    digest: Digest,
    slot: int,
    at_ms: int,
    body: InferenceWindow,
) -> None:
    db.execute(
        "INSERT INTO baseline(model, digest, slot, at, body) VALUES(?,?,?,?,?)"
        " ON CONFLICT(model, digest, slot) DO UPDATE SET at=excluded.at, body=excluded.body",
        (model, digest, slot, at_ms, encode(body)),
    )


def total(db: sqlite3.Connection, model: ModelName, digest: Digest) -> InferenceWindow | None:
    """Sum of the last windows of one variant and profile; None without any.

    A bundle has one variant per device at a time. Should it have changed, only windows of the
    newest one are comparable.
    """
    rows = db.execute(
        "SELECT body FROM baseline WHERE model=? AND digest=? ORDER BY slot", (model, digest)
    )
    windows = [decode(body, InferenceWindow, limit=_BODY_LIMIT) for (body,) in rows]
    if not windows:
        return None
    newest = windows[-1]
    same = [w for w in windows if (w.manifest, w.profile) == (newest.manifest, newest.profile)]
    return reduce(_plus, same)


def _plus(first: InferenceWindow, second: InferenceWindow) -> InferenceWindow:
    merged = merge_bodies(first, second)
    if not isinstance(merged, InferenceWindow):
        raise TypeError("counts and counts give counts")
    return merged
