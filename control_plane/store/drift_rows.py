"""What drift is judged from and what was judged: windows, the budget, marks, and past slots."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.store.table import Row, Table, dump, load
from protocol.codec import MAX_UP_UNPACKED, decode
from protocol.identifiers import DeviceId, Digest
from protocol.telemetry import FINAL, DriftWindow, stream_name

LONGEST_BLOCK_MS: Final = 1344 * 24 * 3_600_000
"""Longer than any block of windows: how far behind a time its windows are looked for."""

_COLUMNS: Final = "device, epoch, lo, hi, part, t0, t1, n, c, body"
_DRIFT: Final = "stream >= 'drift/' AND stream < 'drift0'"
"""As the indexes of drift windows say it, so that they are used."""


@dataclass(frozen=True, slots=True)
class DriftRow:
    """One stored drift window, or a block of them."""

    device: DeviceId
    epoch: int
    lo: int
    hi: int
    final: bool
    t0_ms: int
    t1_ms: int
    n: int
    c: int
    """Number of the ingest transaction that stored it."""
    body: DriftWindow


@dataclass(frozen=True, slots=True)
class Term:
    """The fleet's budget, as somebody set it."""

    per_year: float
    """Expected false alarms."""
    by: str | None
    """Label whose values make cohorts; None: all devices are one."""
    number: int
    """Rises with every change."""
    changed_ms: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A stream in which a device stood out among its peers."""

    index: int
    p: float


class DriftRows(Table):
    # --- windows --------------------------------------------------------------------------------

    def since(self, c: int, limit: int) -> tuple[DriftRow, ...]:
        """About `limit` windows, open ones too, of ingest transactions behind `c`, in their order.

        Transactions are never cut: the last one is complete, so its number can be the next `c`.
        """
        last = self._one(
            "SELECT max(c) FROM"
            f" (SELECT c FROM record WHERE {_DRIFT} AND c > ? ORDER BY c LIMIT ?)",
            (c, limit),
        )
        if last is None or last[0] is None:
            return ()
        rows = self._all(
            f"SELECT {_COLUMNS} FROM record WHERE {_DRIFT} AND c > ? AND c <= ?"
            " ORDER BY c, device, epoch, stream, lo",
            (c, last[0]),
        )
        return tuple(map(_row, rows))

    def within(
        self,
        manifest: Digest,
        profile: Digest,
        from_ms: int,
        to_ms: int,
        *,
        upto: int | None = None,
        devices: Collection[DeviceId] | None = None,
    ) -> Iterator[DriftRow]:
        """Closed windows with histograms whose middle is in `from_ms` ≤ t < `to_ms`, as stored up
        to transaction `upto`; of these devices only, or of all."""
        rows = self._connect().execute(
            f"SELECT {_COLUMNS} FROM record WHERE stream = ? AND t1 >= ? AND t1 <= ?"
            " AND t0 + t1 >= ? AND t0 + t1 < ? AND part = ? AND c <= ?"
            " ORDER BY device, t0, epoch, lo",
            (
                stream_name("drift", manifest, profile),
                from_ms,
                to_ms + LONGEST_BLOCK_MS,
                2 * from_ms,
                2 * to_ms,
                FINAL,
                _MOST if upto is None else upto,
            ),
        )
        for row in rows:
            if devices is None or row[0] in devices:
                found = _row(row)
                if found.body.counts and _is_of(found.body, manifest, profile):
                    yield found

    def of_device(
        self, device: DeviceId, manifest: Digest, profile: Digest, upto: int | None = None
    ) -> Iterator[DriftRow]:
        """A device's closed windows with histograms, by t0, epoch and number."""
        rows = self._connect().execute(
            f"SELECT {_COLUMNS} FROM record WHERE {_DRIFT} AND device = ? AND stream = ?"
            " AND part = ? AND c <= ? ORDER BY t0, epoch, lo",
            (
                device,
                stream_name("drift", manifest, profile),
                FINAL,
                _MOST if upto is None else upto,
            ),
        )
        for row in rows:
            found = _row(row)
            if found.body.counts and _is_of(found.body, manifest, profile):
                yield found

    def lately(
        self, device: DeviceId, manifest: Digest, profile: Digest, most: int
    ) -> tuple[DriftRow, ...]:
        """A device's newest closed windows with histograms, the oldest of them first."""
        rows = self._connect().execute(
            f"SELECT {_COLUMNS} FROM record WHERE {_DRIFT} AND device = ? AND stream = ?"
            " AND part = ? ORDER BY t1 DESC, epoch DESC, lo DESC",
            (device, stream_name("drift", manifest, profile), FINAL),
        )
        found: list[DriftRow] = []
        for row in rows:
            one = _row(row)
            if one.body.counts and _is_of(one.body, manifest, profile):
                found.append(one)
            if len(found) == most:
                break
        return tuple(reversed(found))

    def newest(self, manifest: Digest, profile: Digest, since_ms: int) -> dict[DeviceId, DriftRow]:
        """Per device its newest closed window that ended at `since_ms` or later."""
        # Of bare columns beside max(), SQLite takes those of the row that has it.
        rows = self._connect().execute(
            f"SELECT {_COLUMNS}, max(t1) FROM record WHERE stream = ? AND t1 >= ? AND part = ?"
            " GROUP BY device",
            (stream_name("drift", manifest, profile), since_ms, FINAL),
        )
        found = (_row(row[:-1]) for row in rows)
        return {each.device: each for each in found if _is_of(each.body, manifest, profile)}

    def first_ms(self, manifest: Digest, profile: Digest, since_ms: int) -> int | None:
        """Middle of the earliest closed window that ended at `since_ms` or later."""
        row = self._one(
            "SELECT min((t0 + t1) / 2) FROM record WHERE stream = ? AND t1 >= ? AND part = ?"
            " AND t0 + t1 >= 2 * ?",
            (stream_name("drift", manifest, profile), since_ms, FINAL, since_ms),
        )
        return None if row is None or row[0] is None else int(row[0])

    def number(self) -> int:
        """Of the newest ingest transaction."""
        return self._number("SELECT c FROM ingest_number")

    # --- what serves ----------------------------------------------------------------------------

    def serving(self) -> dict[Digest, int]:
        """How many devices serve which bundle."""
        rows = self._all(
            "SELECT serving, count(*) FROM running WHERE serving IS NOT NULL GROUP BY serving"
        )
        return dict(rows)

    def servers(self, manifest: Digest) -> frozenset[DeviceId]:
        """Devices that serve a bundle which has this variant."""
        rows = self._all(
            "SELECT device FROM running WHERE serving IN"
            " (SELECT bundle FROM manifest WHERE digest = ?)",
            (manifest,),
        )
        return frozenset(row[0] for row in rows)

    def pushed(self, since_ms: int) -> dict[str, int]:
        """Versions per model that were pushed since."""
        rows = self._all(
            "SELECT model, count(*) FROM bundle WHERE pushed_ms >= ? GROUP BY model", (since_ms,)
        )
        return dict(rows)

    # --- budget and marks -----------------------------------------------------------------------

    def terms(self) -> Term:
        row = self._one("SELECT per_year, label, number, changed_ms FROM drift_term")
        if row is None:
            raise LookupError("the migration has put one there")
        return Term(*row)

    def set_terms(self, per_year: float, by: str | None, now_ms: int) -> Term:
        with self._write():
            self._do(
                "UPDATE drift_term SET per_year = ?, label = ?, number = number + 1,"
                " changed_ms = ?",
                (per_year, by, now_ms),
            )
            return self.terms()

    def mark(self, what: str) -> int | None:
        row = self._one("SELECT value FROM drift_mark WHERE what = ?", (what,))
        return None if row is None else int(row[0])

    def set_mark(self, what: str, value: int) -> None:
        self._do(
            "INSERT INTO drift_mark VALUES (?, ?) ON CONFLICT (what)"
            " DO UPDATE SET value = excluded.value",
            (what, value),
        )

    def marks(self, below: str) -> frozenset[str]:
        """What is marked below a name: "muted" gives the x of every "muted/x"."""
        rows = self._all(
            "SELECT what FROM drift_mark WHERE what > ? || '/' AND what < ? || '0'", (below, below)
        )
        return frozenset(row[0].removeprefix(f"{below}/") for row in rows)

    def unmark(self, what: str) -> None:
        self._do("DELETE FROM drift_mark WHERE what = ?", (what,))

    # --- slots that were judged -----------------------------------------------------------------

    def judged_in(self, manifest: Digest, profile: Digest, slot: int) -> frozenset[DeviceId]:
        rows = self._all(
            "SELECT device FROM peer_judged WHERE manifest = ? AND profile = ? AND slot = ?",
            (manifest, profile, slot),
        )
        return frozenset(row[0] for row in rows)

    def judged(
        self, manifest: Digest, profile: Digest, device: DeviceId, most: int
    ) -> tuple[tuple[int, tuple[Hit, ...]], ...]:
        """`(slot, hits)` of the last slots in which a device was judged, the newest last."""
        rows = self._all(
            "SELECT slot, hits FROM peer_judged WHERE manifest = ? AND profile = ? AND device = ?"
            " ORDER BY slot DESC LIMIT ?",
            (manifest, profile, device, most),
        )
        return tuple((slot, load(hits, tuple[Hit, ...])) for slot, hits in reversed(rows))

    def put_judged(
        self,
        manifest: Digest,
        profile: Digest,
        slot: int,
        hits: Mapping[DeviceId, Collection[Hit]],
    ) -> None:
        """A device is judged once per slot: what is there stays."""
        with self._write() as connection:
            connection.executemany(
                "INSERT INTO peer_judged (manifest, profile, device, slot, hits)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    (manifest, profile, device, slot, dump(list(found)))
                    for device, found in sorted(hits.items())
                ],
            )

    def forget_judged(self, before_slot: int) -> int:
        return self._do("DELETE FROM peer_judged WHERE slot < ?", (before_slot,))


_MOST: Final = 2**62


def _row(row: Row) -> DriftRow:
    device, epoch, lo, hi, part, t0, t1, n, c, body = row
    window = decode(body.encode(), DriftWindow, limit=MAX_UP_UNPACKED)
    return DriftRow(device, epoch, lo, hi, part == FINAL, t0, t1, n, c, window)


def _is_of(window: DriftWindow, manifest: Digest, profile: Digest) -> bool:
    """A stream's name has only the first digits of both."""
    return (window.manifest, window.profile) == (manifest, profile)
