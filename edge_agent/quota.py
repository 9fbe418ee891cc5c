"""What the outbox gives up when its room runs out: resolution first, and never a count.

In this order: states that a newer one has replaced; then windows are merged, finest and oldest
first; then the histograms of the oldest epochs that are over are zeroed, then those of closed
windows of this one; then events are merged. `n` and totals stay whatever happens.

Merging begins early, since nothing but resolution is lost by it, and what cannot be merged needs
the rest of the room. Everything here is a transaction of its own, small enough for the log.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Final

from edge_agent.coarsen import COUNTS, EVENTS, Block, Key, merged, plan
from edge_agent.outbox_file import OutboxFile
from protocol.codec import MAX_UP_UNPACKED, decode, encode
from protocol.errors import PeerError, Unavailable
from protocol.telemetry import (
    FINAL,
    PRIVATE_BELOW,
    STATE_STREAM,
    Body,
    DriftWindow,
    EventWindow,
    InferenceWindow,
    private,
    without_histograms,
)

log = logging.getLogger(__name__)

MERGE_FROM: Final = 0.55
MERGE_TO: Final = 0.45
THIN_FROM: Final = 0.9
THIN_TO: Final = 0.8
"""Shares of the room for pages at which each begins and ends."""
_AGAIN: Final = 1 / 64
"""Of the room: so much more must be used before what gave nothing is tried again."""
_ALWAYS: Final = 0.97
"""From here on it is tried every time."""
_BATCH: Final = 16
"""Records that one call merges, unless room is short: the supervisor has other things to do."""
_THINNED_AT_ONCE: Final = 16
_PLANNED: Final = 1024
_BODY_LIMIT: Final = 64 * MAX_UP_UNPACKED
"""Our own rows: any size that a runner can hand over."""
_TOTALS_ONLY_BYTES: Final = 400
"""Bodies up to here are (almost) nothing but totals and digests."""
_TYPES: Final[dict[str, type[Body]]] = {
    "inference": InferenceWindow,
    "drift": DriftWindow,
    "events": EventWindow,
}


class Room:
    """Keeps one outbox within its quota. Its memory may be lost at any time."""

    def __init__(self, file: OutboxFile) -> None:
        self._file = file
        self._merging = False
        self._planned: deque[Block] = deque()
        self._unfit: set[Block] = set()
        self._enough: dict[str, int] = {}
        """Bytes that must be in use before a kind of giving up is worth another try."""

    def make(self, live: int) -> int:
        """Free room if it is short; how many rows changed. `live` is the epoch of this process.

        Not in a transaction.

        Raises `Unavailable` (OUT-D50x): what was given up until then stays given up, whole.
        """
        file, room = self._file, self._file.room_bytes
        used = file.live_bytes()
        if used <= MERGE_TO * room:
            self._merging = False
            self._planned.clear()
            self._enough.clear()
        elif used > MERGE_FROM * room:
            self._merging = True
        changed = 0
        if self._merging and self._worthwhile("counts", used):
            self._drop_replaced_states()
            changed += self._merge(COUNTS, MERGE_TO * room, THIN_FROM * room)
        if file.live_bytes() > THIN_FROM * room and self._worthwhile("thin", file.live_bytes()):
            changed += self._thin(live, THIN_TO * room)
            if file.live_bytes() > THIN_FROM * room:
                changed += self._merge(EVENTS, THIN_TO * room, 0.0)
            self._settle("thin", THIN_TO * room)
        # Without room for the log it waits; nothing else depends on it.
        with contextlib.suppress(Unavailable):
            file.shrink()
        return changed

    # --- merging --------------------------------------------------------------------------------

    def _merge(self, kinds: Collection[str], until: float, urgent: float) -> int:
        """Merge down to `until` bytes; at most a batch while less than `urgent` is used."""
        fewer = 0
        while (used := self._file.live_bytes()) > until:
            if fewer >= _BATCH and used <= urgent:
                return fewer
            if not self._planned or self._planned[0].stream.split("/", 1)[0] not in kinds:
                with self._file.reading() as db:
                    found = plan(partial(_keys, db), kinds, _PLANNED, self._unfit)
                self._planned = deque(found)
                if not self._planned:
                    self._settle(kinds, until)
                    return fewer
            fewer += self._merge_one(self._planned.popleft())
        return fewer

    def _merge_one(self, block: Block) -> int:
        """Replace a block's rows by their sum, in one transaction; how many rows fewer."""
        kind = block.stream.split("/", 1)[0]
        with self._file.transaction() as db:
            rows = _rows(db, block)
            if sum(row["hi"] - row["lo"] + 1 for row in rows) != block.hi - block.lo + 1:
                # Acknowledged and deleted since it was planned: it never is a block again.
                self._unfit.add(block)
                return 0
            try:
                bodies = (decode(row["body"], _TYPES[kind], limit=_BODY_LIMIT) for row in rows)
                total = encode(merged(bodies))
            except (PeerError, ValueError) as error:
                log.warning("%s %d..%d stays as it is: %s", *_named(block), error)
                self._unfit.add(block)
                return 0
            db.execute(
                "DELETE FROM buf WHERE epoch=? AND stream=? AND lo BETWEEN ? AND ?",
                (block.epoch, *_named(block)),
            )
            db.execute(
                "INSERT INTO buf VALUES(?,?,?,?,?,?,?,?,?)",
                (
                    block.epoch,
                    *_named(block),
                    FINAL,
                    rows[0]["t0"],
                    max(row["t1"] for row in rows),
                    sum(row["n"] for row in rows),
                    total,
                ),
            )
            note(db, "merged", len(rows))
        return len(rows) - 1

    # --- the rest -------------------------------------------------------------------------------

    def _thin(self, live: int, until: float) -> int:
        """Zero histograms, of the oldest first, epochs that are over before this one."""
        thinned = 0
        while self._file.live_bytes() > until:
            with self._file.transaction() as db:
                rows = db.execute(
                    "SELECT epoch, stream, lo, body FROM buf WHERE length(body) > :small"
                    " AND (stream LIKE 'inference/%' OR stream LIKE 'drift/%')"
                    " AND (epoch <> :live OR part = :final)"
                    " ORDER BY epoch = :live, t0 LIMIT :batch",
                    {
                        "small": _TOTALS_ONLY_BYTES,
                        "live": live,
                        "final": FINAL,
                        "batch": _THINNED_AT_ONCE,
                    },
                ).fetchall()
                changed = sum(thin(db, e, s, lo, body) for e, s, lo, body in rows)
                note(db, "thinned", changed)
            if not changed:
                break
            thinned += changed
        return thinned

    def _drop_replaced_states(self) -> None:
        """A state is the whole truth, so only the newest one is needed; it carries no counts."""
        order = "json_extract(CAST(body AS TEXT), '$.order')"
        fine = "json_valid(CAST(body AS TEXT))"
        with self._file.transaction() as db:
            db.execute(
                f"DELETE FROM buf WHERE stream=:state AND {fine} AND {order} < (SELECT"
                f" max({order}) FROM buf WHERE stream=:state AND {fine})",
                {"state": STATE_STREAM},
            )

    def _worthwhile(self, what: str, used: int) -> bool:
        return used >= self._enough.get(what, 0)

    def _settle(self, what: str | Collection[str], until: float) -> None:
        """Remember if all that could be given up was not enough: looking costs time."""
        name = what if isinstance(what, str) else "counts" if what == COUNTS else "events"
        used, room = self._file.live_bytes(), self._file.room_bytes
        if used > until:
            self._enough[name] = int(min(used + _AGAIN * room, _ALWAYS * room))


def thin(db: sqlite3.Connection, epoch: int, stream: str, lo: int, body: bytes) -> bool:
    """Zero one row's histograms. False if it has none, or is damaged."""
    try:
        window = decode(body, _TYPES[stream.split("/", 1)[0]], limit=_BODY_LIMIT)
    except PeerError:
        return False
    smaller = encode(without_histograms(window))
    if len(smaller) >= len(body):
        return False
    _replace(db, epoch, stream, lo, smaller)
    return True


def keep_private(db: sqlite3.Connection) -> int:
    """Take from unclosed rows what `telemetry.private` would not let leave the device once they are
    closed; how many changed."""
    rows = db.execute(
        "SELECT epoch, stream, lo, n, body FROM buf"
        " WHERE part < :final AND (n < :below OR instr(body, :labels))"
        " AND (stream LIKE 'inference/%' OR stream LIKE 'drift/%')",
        {"final": FINAL, "below": PRIVATE_BELOW, "labels": b'"labelled_bins"'},
    ).fetchall()
    changed = 0
    for epoch, stream, lo, n, body in rows:
        try:
            window = decode(body, _TYPES[stream.split("/", 1)[0]], limit=_BODY_LIMIT)
        except PeerError:
            continue
        smaller = private(window, n)
        if smaller != window:
            _replace(db, epoch, stream, lo, encode(smaller))
            changed += 1
    return changed


def note(db: sqlite3.Connection, name: str, more: int) -> None:
    """Add to one of the totals that the outbox keeps of itself."""
    db.execute(
        "INSERT INTO total(name, value) VALUES(?,?)"
        " ON CONFLICT(name) DO UPDATE SET value=value+excluded.value",
        (name, more),
    )


def _replace(db: sqlite3.Connection, epoch: int, stream: str, lo: int, body: bytes) -> None:
    db.execute(
        "UPDATE buf SET body=? WHERE epoch=? AND stream=? AND lo=?", (body, epoch, stream, lo)
    )


def _keys(db: sqlite3.Connection) -> Iterator[Key]:
    return db.execute("SELECT epoch, stream, lo, hi, part, t0 FROM buf ORDER BY epoch, stream, lo")


def _rows(db: sqlite3.Connection, block: Block) -> list[dict[str, Any]]:
    columns = ("lo", "hi", "t0", "t1", "n", "body")
    found = db.execute(
        f"SELECT {', '.join(columns)} FROM buf WHERE epoch=? AND stream=?"
        " AND lo BETWEEN ? AND ? AND hi<=? AND part=? ORDER BY lo",
        (block.epoch, *_named(block), block.hi, FINAL),
    )
    return [dict(zip(columns, row, strict=True)) for row in found]


def _named(block: Block) -> tuple[str, int, int]:
    return (block.stream, block.lo, block.hi)
