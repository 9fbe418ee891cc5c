"""What the outbox gives up when its room runs out: never a count.

First states that a newer one has replaced, then the histograms of the oldest epochs that are
over, then those of closed windows of this one. `n` and totals stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from protocol.codec import MAX_UP_UNPACKED, decode, encode
from protocol.telemetry import (
    FINAL,
    STATE_STREAM,
    DriftWindow,
    InferenceWindow,
    without_histograms,
)

_BEGIN: Final = 0.9
_ENOUGH: Final = 0.8
_BATCH: Final = 64
_BODY_LIMIT: Final = 64 * MAX_UP_UNPACKED
"""Our own rows: any size that a runner can hand over."""
_TOTALS_ONLY_BYTES: Final = 400
"""Bodies up to here are (almost) nothing but totals and digests."""


def make_room(
    db: sqlite3.Connection,
    used_bytes: Callable[[sqlite3.Connection], int],
    limit_bytes: int,
    live: int,
) -> int:
    """Free room down to 80 % once 90 % are used. Returns the number of records thinned."""
    if used_bytes(db) < _BEGIN * limit_bytes:
        return 0
    _drop_replaced_states(db)
    thinned = 0
    while used_bytes(db) > _ENOUGH * limit_bytes:
        rows = db.execute(
            "SELECT epoch, stream, lo, body FROM buf WHERE length(body) > :small"
            " AND (stream LIKE 'inference/%' OR stream LIKE 'drift/%')"
            " AND (epoch <> :live OR part = :final)"
            " ORDER BY epoch = :live, t0 LIMIT :batch",
            {
                "small": _TOTALS_ONLY_BYTES,
                "live": live,
                "final": FINAL,
                "batch": _BATCH,
            },
        ).fetchall()
        changed = sum(thin(db, e, s, lo, body) for e, s, lo, body in rows)
        if not changed:
            break
        thinned += changed
    return thinned


def thin(db: sqlite3.Connection, epoch: int, stream: str, lo: int, body: bytes) -> bool:
    """Zero one row's histograms. False if it has none."""
    window: InferenceWindow | DriftWindow
    if stream.startswith("inference/"):
        window = decode(body, InferenceWindow, limit=_BODY_LIMIT)
    else:
        window = decode(body, DriftWindow, limit=_BODY_LIMIT)
    smaller = encode(without_histograms(window))
    if len(smaller) >= len(body):
        return False
    db.execute(
        "UPDATE buf SET body=? WHERE epoch=? AND stream=? AND lo=?", (smaller, epoch, stream, lo)
    )
    return True


def thin_small(db: sqlite3.Connection, below: int) -> int:
    """Zero the histograms of unclosed rows with fewer than `below` answers: the privacy rule."""
    rows = db.execute(
        "SELECT epoch, stream, lo, body FROM buf WHERE part < ? AND n < ?"
        " AND (stream LIKE 'inference/%' OR stream LIKE 'drift/%')",
        (FINAL, below),
    ).fetchall()
    return sum(thin(db, e, s, lo, body) for e, s, lo, body in rows)


def _drop_replaced_states(db: sqlite3.Connection) -> None:
    """A state is the whole truth, so only the newest one is needed; it carries no counts."""
    order = "json_extract(CAST(body AS TEXT), '$.order')"
    db.execute(
        f"DELETE FROM buf WHERE stream=:state AND {order} <"
        f" (SELECT max({order}) FROM buf WHERE stream=:state)",
        {"state": STATE_STREAM},
    )
