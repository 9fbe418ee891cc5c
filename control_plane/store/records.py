"""Records of devices: stored exactly once, whatever arrives however often and in any order.

Any two ranges that one history of an epoch can emit are nested or disjoint. So a record is
either covered by what is stored, or it replaces what it contains. Totals are sums over stored
records, never counted up on arrival.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.store.record_queries import RecordQueries
from protocol.identifiers import DeviceId
from protocol.telemetry import (
    FINAL,
    MAX_RANGES,
    MAX_RECORDS,
    STATE_STREAM,
    Range,
    Record,
    StreamAck,
    covers,
    merge_ranges,
)

Row = tuple[int, int, int, int]
"""`(lo, hi, part, n)` of a stored record."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one upload did."""

    stored: int = 0
    covered: int = 0
    """Records that were stored already, themselves or in a block."""
    conflicts: int = 0
    late: int = 0
    """Records of windows that retention has removed."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Windows that are not stored although later ones are."""

    epoch: int
    stream: str
    lo: int
    hi: int
    lost: bool
    """The device does not hold them any more; otherwise they are expected."""


class Records(RecordQueries):
    """`connect` gives the calling thread's connection. Writes join a transaction that is open."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction; inside another one, part of it."""
        db = self._connect()
        if db.in_transaction:
            yield db
            return
        # Immediate: two ingesters must not both decide before either has written.
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    # --- ingest ---------------------------------------------------------------------------------

    def ingest(self, device: DeviceId, records: Sequence[tuple[Record, str]]) -> Ingested:
        """Store records with their bodies as JSON text, each at most once."""
        counts = {"stored": 0, "covered": 0, "conflicts": 0, "late": 0}
        if not records:
            return Ingested()
        with self.transaction() as db:
            db.execute("UPDATE ingest_number SET c = c + 1")
            number = db.execute("SELECT c FROM ingest_number").fetchone()[0]
            for record, body in records:
                if record.hi <= _retired(db, device, record.e, record.s):
                    counts["late"] += 1
                    continue
                rows = _related(db, device, record)
                if _conflicts(db, device, record, rows):
                    counts["conflicts"] += 1
                if is_covered(record, rows):
                    counts["covered"] += 1
                    continue
                _supersede(db, device, record, body, number)
                counts["stored"] += 1
        return Ingested(**counts)

    def note_held(
        self, device: DeviceId, held: Sequence[tuple[int, str, int, int]], now_ms: int
    ) -> None:
        """Keep what a probe says the device still holds. A capped list proves no gap: ignored.

        What it held before, holds no more, and never brought is remembered as well, with a lowest
        window above the highest: only so is the loss of a whole buffer seen.
        """
        if len(held) >= MAX_RECORDS:
            return
        now = {(epoch, stream): (lowest, highest) for epoch, stream, lowest, highest in held}
        with self.transaction() as db:
            before = {
                (epoch, stream): highest
                for epoch, stream, highest in db.execute(
                    "SELECT epoch, stream, highest FROM held WHERE device=? AND stream<>?",
                    (device, STATE_STREAM),
                )
            }
            gone = [
                (device, *key, highest + 1, highest)
                for key, highest in before.items()
                if key not in now and not covers(_stored(db, device, *key), 0, highest)
            ]
            db.execute("DELETE FROM held WHERE device=?", (device,))
            db.executemany(
                "INSERT INTO held VALUES(?,?,?,?,?)",
                [*((device, *key, *ends) for key, ends in now.items()), *gone],
            )
            db.execute(
                "INSERT INTO probed VALUES(?,?) ON CONFLICT(device) DO UPDATE SET at=excluded.at",
                (device, now_ms),
            )

    # --- what is stored -------------------------------------------------------------------------

    def coverage(
        self, device: DeviceId, epoch: int, stream: str, windows: Sequence[Range]
    ) -> StreamAck:
        """What is stored from the lowest of `windows` on, and what of it is safe.

        An ack holds few ranges: those that answer `windows` go first, then the lowest.
        """
        db = self._connect()
        mark = db.execute("SELECT max(c) FROM backup_mark").fetchone()[0]
        upto = _retired(db, device, epoch, stream)
        first = min(lo for lo, _ in windows)
        key = {"d": device, "e": epoch, "s": stream, "first": first}
        rows = db.execute(
            "SELECT lo, hi, part, c FROM record WHERE device=:d AND epoch=:e AND stream=:s"
            " AND lo >= coalesce((SELECT max(lo) FROM record WHERE device=:d AND epoch=:e"
            " AND stream=:s AND lo <= :first), :first) ORDER BY lo",
            key,
        ).fetchall()
        retired = [] if upto < 0 else [(0, upto)]
        final = [(lo, hi, c) for lo, hi, part, c in rows if part == FINAL]
        partial = [
            (lo, part, mark is None or c <= mark) for lo, _, part, c in rows if part != FINAL
        ]
        have = merge_ranges([*retired, *((lo, hi) for lo, hi, _ in final)])
        safe = merge_ranges(
            [*retired, *((lo, hi) for lo, hi, c in final if mark is None or c <= mark)]
        )
        return StreamAck(
            epoch,
            stream,
            _first_of(have, windows),
            _first_of(safe, windows),
            tuple(sorted(partial, key=lambda each: not _meets(each[0], each[0], windows)))[
                :MAX_RANGES
            ],
        )

    def mark_backup(self, number: int) -> None:
        """A backup that holds everything up to transaction `number` is complete."""
        with self.transaction() as db:
            db.execute("INSERT INTO backup_mark VALUES(?)", (number,))

    def ingest_number(self) -> int:
        """Number of the last transaction: to be read before a backup starts."""
        return int(self._connect().execute("SELECT c FROM ingest_number").fetchone()[0])

    def retire(self, device: DeviceId, epoch: int, stream: str, upto: int) -> int:
        """Remove windows up to `upto`; late copies of them are refused. Returns rows removed."""
        with self.transaction() as db:
            removed = db.execute(
                "DELETE FROM record WHERE device=? AND epoch=? AND stream=? AND hi<=?",
                (device, epoch, stream, upto),
            ).rowcount
            db.execute(
                "INSERT INTO retired VALUES(?,?,?,?) ON CONFLICT(device, epoch, stream)"
                " DO UPDATE SET upto=max(upto, excluded.upto)",
                (device, epoch, stream, upto),
            )
        return removed

    def conflicts(self, device: DeviceId | None = None) -> int:
        """How often a record came with two contents."""
        query = "SELECT coalesce(sum(times), 0) FROM conflict WHERE ?1 IS NULL OR device=?1"
        return int(self._connect().execute(query, (device,)).fetchone()[0])

    def gaps(self, device: DeviceId) -> list[Gap]:
        """Missing windows of a device, judged by the last complete list of what it holds.

        States are left out: the newest one is the whole truth.
        """
        db = self._connect()
        known = db.execute("SELECT 1 FROM probed WHERE device=?", (device,)).fetchone()
        streams: dict[tuple[int, str], list[Range]] = {}
        for epoch, stream, lo, hi in db.execute(
            "SELECT epoch, stream, lo, hi FROM record WHERE device=:d AND stream<>:state"
            " UNION ALL SELECT epoch, stream, 0, upto FROM retired WHERE device=:d",
            {"d": device, "state": STATE_STREAM},
        ):
            streams.setdefault((epoch, stream), []).append((lo, hi))
        held: dict[tuple[int, str], int] = {}
        for epoch, stream, lowest, highest in db.execute(
            "SELECT epoch, stream, lowest, highest FROM held WHERE device=? AND stream<>?",
            (device, STATE_STREAM),
        ):
            held[epoch, stream] = lowest
            if lowest > highest:
                # Nothing of it is there any more, so what was behind the last stored is missing.
                streams.setdefault((epoch, stream), []).append((lowest, lowest))
        gaps = []
        for (epoch, stream), ranges in sorted(streams.items()):
            lowest = held.get((epoch, stream))
            for lo, hi in _holes(merge_ranges(ranges)):
                if known is None or lowest is None or hi < lowest or lo >= lowest:
                    lost = known is not None and (lowest is None or hi < lowest)
                    gaps.append(Gap(epoch, stream, lo, hi, lost))
                else:
                    gaps.append(Gap(epoch, stream, lo, lowest - 1, True))
                    gaps.append(Gap(epoch, stream, lowest, hi, False))
        return gaps


# --- the rule ------------------------------------------------------------------------------------


def is_covered(record: Record, rows: Sequence[Row]) -> bool:
    """Whether a record adds nothing to the stored rows that overlap it.

    A complete set of finer windows is kept in its place: same counts, better resolution.
    """
    if any(lo <= record.lo and hi >= record.hi and part >= record.part for lo, hi, part, _ in rows):
        return True
    inside = sum(
        hi - lo + 1
        for lo, hi, part, _ in rows
        if part == FINAL and record.lo <= lo and hi <= record.hi
    )
    return inside == record.hi - record.lo + 1


_KEY: Final = "device=:d AND epoch=:e AND stream=:s"


def _related(db: sqlite3.Connection, device: DeviceId, record: Record) -> list[Row]:
    return db.execute(
        f"SELECT lo, hi, part, n FROM record WHERE {_KEY} AND lo BETWEEN"
        f" coalesce((SELECT max(lo) FROM record WHERE {_KEY} AND lo<=:lo), :lo) AND :hi",
        {"d": device, "e": record.e, "s": record.s, "lo": record.lo, "hi": record.hi},
    ).fetchall()


def _supersede(
    db: sqlite3.Connection, device: DeviceId, record: Record, body: str, number: int
) -> None:
    r = record
    db.execute(
        f"DELETE FROM record WHERE {_KEY} AND lo BETWEEN :lo AND :hi",
        {"d": device, "e": r.e, "s": r.s, "lo": r.lo, "hi": r.hi},
    )
    db.execute(
        "INSERT INTO record VALUES(?,?,?,?,?,?,?,?,?,?,?)",
        (device, r.e, r.s, r.lo, r.hi, r.part, r.t0, r.t1, r.n, body, number),
    )


def _conflicts(
    db: sqlite3.Connection, device: DeviceId, record: Record, rows: Sequence[Row]
) -> bool:
    """Count the one fork an epoch cannot see: the same version of a window, another count."""
    same = [
        n
        for lo, hi, part, n in rows
        if (lo, hi, part) == (record.lo, record.hi, record.part) and n != record.n
    ]
    for kept in same:
        db.execute(
            "INSERT INTO conflict VALUES(?,?,?,?,?,?,1) ON CONFLICT DO UPDATE"
            " SET came=excluded.came, times=times+1",
            (device, record.e, record.s, record.lo, kept, record.n),
        )
    return bool(same)


def _stored(db: sqlite3.Connection, device: DeviceId, epoch: int, stream: str) -> tuple[Range, ...]:
    """Windows of which some version is stored, or was removed by retention."""
    rows = db.execute(
        "SELECT lo, hi FROM record WHERE device=:d AND epoch=:e AND stream=:s"
        " UNION ALL SELECT 0, upto FROM retired WHERE device=:d AND epoch=:e AND stream=:s",
        {"d": device, "e": epoch, "s": stream},
    ).fetchall()
    return merge_ranges(rows)


def _retired(db: sqlite3.Connection, device: DeviceId, epoch: int, stream: str) -> int:
    row = db.execute(
        "SELECT upto FROM retired WHERE device=? AND epoch=? AND stream=?",
        (device, epoch, stream),
    ).fetchone()
    return -1 if row is None else int(row[0])


def _first_of(ranges: Sequence[Range], windows: Sequence[Range]) -> tuple[Range, ...]:
    chosen = sorted(ranges, key=lambda each: not _meets(each[0], each[1], windows))[:MAX_RANGES]
    return tuple(sorted(chosen))


def _meets(lo: int, hi: int, windows: Sequence[Range]) -> bool:
    return any(lo <= last and first <= hi for first, last in windows)


def _holes(ranges: Sequence[Range]) -> Iterator[Range]:
    start = 0
    for lo, hi in ranges:
        if lo > start:
            yield start, lo - 1
        start = hi + 1
