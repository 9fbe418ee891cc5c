"""Work in progress on scores: who may bet, whose clock runs, what is judged and not yet counted.

Wave 0 stands for the last day before the start, when nothing had changed.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from control_plane.rollout.evidence import Terms
from control_plane.rollout.sampling import RESERVE
from control_plane.rollout.ticking import Change, Rehearsed, Side
from control_plane.store.table import Table, dump, load
from protocol.identifiers import DeviceId, Digest, ModelName

Stage = Literal["sampling", "rehearsing", "judging", "over"]

REHEARSAL: Final = 0
"""The wave that is none."""
_SERVED: Final = "('activated', 'healthy', 'unexercised', 'rolled_back', 'silent')"
"""Phases of members on which the candidate serves, or did."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`cursor`: the last member that was sampled."""

    stage: Stage
    cursor: str


@dataclass(frozen=True, slots=True)
class Pending:
    """One device and exposure, to be judged from `end_ms` on."""

    wave: int
    device: DeviceId
    exposure_ms: int
    side: Side
    clock_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Judged:
    """The same, judged, in the hour in which it counts."""

    pending: Pending
    hour: int
    body: Change | Rehearsed


@dataclass(frozen=True, slots=True)
class Started:
    """A candidate that serves on a device, as far as its state says so."""

    device: DeviceId
    learnt_ms: int
    since_ms: int | None


class Bets(Table):
    # --- how far it is --------------------------------------------------------------------------

    def progress(self, rollout: str) -> Progress | None:
        row = self._one("SELECT stage, cursor FROM judging WHERE rollout = ?", (rollout,))
        return Progress(*row) if row else None

    def classes(self, rollout: str) -> int:
        """Of the model, as most devices counted them before the start; 0: it has none."""
        return self._number("SELECT classes FROM judging WHERE rollout = ?", (rollout,))

    def set_progress(self, rollout: str, stage: Stage, cursor: str = "") -> None:
        self._do(
            "INSERT INTO judging (rollout, stage, cursor) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET stage = excluded.stage, cursor = excluded.cursor",
            (rollout, stage, cursor),
        )

    def freeze(self, rollout: str, terms: Terms, classes: int) -> None:
        """From now on devices are judged, by these terms; what was rehearsed is not needed."""
        with self._write():
            self._do(
                "UPDATE judging SET stage = 'judging', cursor = '', classes = ?, terms = ? "
                "WHERE rollout = ? AND terms IS NULL",
                (classes, dump(terms), rollout),
            )
            self._do("DELETE FROM judged WHERE rollout = ? AND wave = ?", (rollout, REHEARSAL))

    # --- who may bet ----------------------------------------------------------------------------

    def members_after(self, rollout: str, cursor: str, limit: int) -> list[tuple[DeviceId, int]]:
        """`(device, wave)` of the members behind a device, by device."""
        rows = self._all(
            "SELECT device, wave FROM member WHERE rollout = ? AND device > ? "
            "ORDER BY device LIMIT ?",
            (rollout, cursor, limit),
        )
        return [(row[0], row[1]) for row in rows]

    def sample(self, rollout: str, found: Iterable[tuple[int, int, DeviceId]]) -> None:
        """Keep the lowest places per wave of what is kept and `found`: `(wave, place, device)`."""
        with self._write() as connection:
            for wave, group in itertools.groupby(sorted(found), key=lambda each: each[0]):
                bar = self._bar(rollout, wave)
                connection.executemany(
                    "INSERT OR IGNORE INTO sampled (rollout, wave, place, device) "
                    "VALUES (?, ?, ?, ?)",
                    [(rollout, *each) for each in group if bar is None or each[1] < bar],
                )
                bar = self._bar(rollout, wave)
                if bar is not None:
                    self._do(
                        "DELETE FROM sampled WHERE rollout = ? AND wave = ? AND place > ?",
                        (rollout, wave, bar),
                    )

    def _bar(self, rollout: str, wave: int) -> int | None:
        """The highest place that is kept, once as many are kept as may be."""
        row = self._one(
            "SELECT place FROM sampled WHERE rollout = ? AND wave = ? ORDER BY place "
            "LIMIT 1 OFFSET ?",
            (rollout, wave, RESERVE - 1),
        )
        return row[0] if row else None

    def lowest(self, rollout: str, limit: int) -> list[DeviceId]:
        """The sampled devices of all waves with the lowest places."""
        waves = self._all("SELECT DISTINCT wave FROM sampled WHERE rollout = ?", (rollout,))
        cursors = [self._places(rollout, row[0]) for row in waves]
        return [device for _, device in itertools.islice(heapq.merge(*cursors), limit)]

    def _places(self, rollout: str, wave: int) -> Iterator[tuple[int, DeviceId]]:
        rows = self._connect().execute(
            "SELECT place, device FROM sampled WHERE rollout = ? AND wave = ? ORDER BY place",
            (rollout, wave),
        )
        yield from rows

    def choose(self, rollout: str, wave: int, side: Side, heard_from_ms: int, most: int) -> int:
        """Fix who bets on a side of a wave; returns how many.

        Those with the lowest places of the wave ("a"), or of all later ones and of what is held
        back ("b"), that are still in it, joined in time, and have been heard.
        """
        waves = self._all("SELECT DISTINCT wave FROM sampled WHERE rollout = ?", (rollout,))
        mine = [row[0] for row in waves if _side(row[0], wave) == side]
        cursors = [self._eligible(rollout, each, heard_from_ms) for each in mine]
        chosen = list(itertools.islice(heapq.merge(*cursors), most))
        with self._write() as connection:
            connection.executemany(
                "INSERT INTO bettor (rollout, wave, side, device) VALUES (?, ?, ?, ?)",
                [(rollout, wave, side, device) for _, device in chosen],
            )
        return len(chosen)

    def _eligible(
        self, rollout: str, wave: int, heard_from_ms: int
    ) -> Iterator[tuple[int, DeviceId]]:
        rows = self._connect().execute(
            "SELECT s.place, s.device FROM sampled s "
            "JOIN rollout r ON r.id = s.rollout "
            "JOIN member m ON m.rollout = s.rollout AND m.device = s.device AND m.wave = s.wave "
            "JOIN device d ON d.id = s.device "
            "WHERE s.rollout = ? AND s.wave = ? AND d.retired_ms IS NULL AND d.since <= r.as_of "
            "AND d.last_contact_ms >= ? AND m.phase <> 'excluded' ORDER BY s.place",
            (rollout, wave, heard_from_ms),
        )
        yield from rows

    # --- clocks ---------------------------------------------------------------------------------

    def started(
        self, rollout: str, wave: int, model: ModelName, candidate: Digest, after: str, limit: int
    ) -> tuple[list[Started], str]:
        """Of the next `limit` candidates without a clock, those that the candidate serves on.

        Also the device to go on behind; "" when that is the beginning again.
        """
        rows = self._all(
            f"SELECT b.device, m.since_ms, m.phase IN {_SERVED}, "
            "CASE WHEN json_extract(d.state, ?1 || '.serving') = ?2 "
            "THEN json_extract(d.state, ?1 || '.since_ms') END "
            "FROM (SELECT device FROM bettor WHERE rollout = ?3 AND wave = ?4 AND side = 'a' "
            "AND device > ?5 ORDER BY device LIMIT ?6) b "
            "LEFT JOIN member m ON m.rollout = ?3 AND m.device = b.device "
            "LEFT JOIN device d ON d.id = b.device AND m.phase IS NOT NULL",
            (f'$.models."{model}"', candidate, rollout, wave, after, limit),
        )
        found = [Started(row[0], row[1], row[3]) for row in rows if row[2]]
        return found, rows[-1][0] if len(rows) == limit else ""

    def contacts(
        self, rollout: str, wave: int, began_ms: int, after: str, limit: int
    ) -> tuple[list[tuple[DeviceId, int]], str]:
        """Of the next `limit` controls without a contact, those heard since; and where to go on."""
        rows = self._all(
            "SELECT b.device, d.last_contact_ms FROM (SELECT device FROM bettor "
            "WHERE rollout = ? AND wave = ? AND side = 'b' AND contact_ms IS NULL "
            "AND device > ? ORDER BY device LIMIT ?) b LEFT JOIN device d ON d.id = b.device",
            (rollout, wave, after, limit),
        )
        heard = [(row[0], row[1]) for row in rows if row[1] is not None and row[1] >= began_ms]
        return heard, rows[-1][0] if len(rows) == limit else ""

    def set_contacts(self, rollout: str, wave: int, heard: Sequence[tuple[DeviceId, int]]) -> None:
        with self._write() as connection:
            connection.executemany(
                "UPDATE bettor SET contact_ms = ? "
                "WHERE rollout = ? AND wave = ? AND side = 'b' AND device = ?",
                [(contact_ms, rollout, wave, device) for device, contact_ms in heard],
            )

    def contacted(self, rollout: str, wave: int, limit: int) -> list[tuple[DeviceId, int]]:
        """Controls that were heard and have no clock: `(device, contact)`."""
        rows = self._all(
            "SELECT device, contact_ms FROM bettor WHERE rollout = ? AND wave = ? AND side = 'b' "
            "AND contact_ms IS NOT NULL LIMIT ?",
            (rollout, wave, limit),
        )
        return [(row[0], row[1]) for row in rows]

    def clocks(self, rollout: str, wave: int) -> list[int]:
        """Those of candidates."""
        rows = self._all(
            "SELECT clock_ms FROM started WHERE rollout = ? AND wave = ?", (rollout, wave)
        )
        return [row[0] for row in rows]

    def start_clocks(self, rollout: str, pending: Sequence[Pending]) -> None:
        """Their devices wait for a clock no longer, but for the end of each exposure."""
        with self._write() as connection:
            connection.executemany(
                "INSERT INTO pending (rollout, wave, device, exposure_ms, side, clock_ms, end_ms, "
                "look_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (rollout, p.wave, p.device, p.exposure_ms, p.side, p.clock_ms, end_ms, end_ms)
                    for p in pending
                    for end_ms in [p.end_ms]
                ],
            )
            connection.executemany(
                "DELETE FROM bettor WHERE rollout = ? AND wave = ? AND side = ? AND device = ?",
                {(rollout, p.wave, p.side, p.device) for p in pending},
            )
            connection.executemany(
                "INSERT OR IGNORE INTO started (rollout, wave, device, clock_ms) "
                "VALUES (?, ?, ?, ?)",
                {(rollout, p.wave, p.device, p.clock_ms) for p in pending if p.side == "a"},
            )

    def stop_clocks(self, rollout: str, wave: int, at_ms: int) -> None:
        """The next wave has begun: who is not through with an exposure by then bets no more."""
        with self._write():
            self._do("DELETE FROM bettor WHERE rollout = ? AND wave = ?", (rollout, wave))
            self._do(
                "DELETE FROM pending WHERE rollout = ? AND wave = ? AND end_ms > ?",
                (rollout, wave, at_ms),
            )

    # --- judging --------------------------------------------------------------------------------

    def due(
        self, rollout: str, limit: int, *, before_ms: int = 0, rehearsal: bool = False
    ) -> list[Pending]:
        """Exposures to be looked at by `before_ms`, the longest wait first; or those of the
        rehearsal, which is over whenever it is looked at."""
        rows = self._all(
            "SELECT wave, device, exposure_ms, side, clock_ms, end_ms FROM pending "
            + (
                "WHERE rollout = ? AND wave = ? ORDER BY device LIMIT ?"
                if rehearsal
                else "WHERE rollout = ? AND look_ms <= ? AND wave > 0 ORDER BY look_ms LIMIT ?"
            ),
            (rollout, REHEARSAL if rehearsal else before_ms, limit),
        )
        return [Pending(*row) for row in rows]

    def look_again(self, rollout: str, later: Iterable[tuple[Pending, int]]) -> None:
        with self._write() as connection:
            connection.executemany(
                "UPDATE pending SET look_ms = ? "
                "WHERE rollout = ? AND wave = ? AND device = ? AND exposure_ms = ?",
                [(at_ms, rollout, p.wave, p.device, p.exposure_ms) for p, at_ms in later],
            )

    def judge(self, rollout: str, judged: Iterable[Judged]) -> None:
        """Keep what came of devices; nothing that arrives later changes it."""
        with self._write() as connection:
            for each in judged:
                p = each.pending
                taken = self._do(
                    "DELETE FROM pending WHERE rollout = ? AND wave = ? AND device = ? "
                    "AND exposure_ms = ?",
                    (rollout, p.wave, p.device, p.exposure_ms),
                )
                if taken:
                    connection.execute(
                        "INSERT INTO judged (rollout, wave, hour, device, exposure_ms, side, body) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (
                            rollout,
                            p.wave,
                            each.hour,
                            p.device,
                            p.exposure_ms,
                            p.side,
                            dump(each.body),
                        ),
                    )

    def rehearsed(self, rollout: str) -> list[Rehearsed] | None:
        """What came of the last day before the start; None while some of it is not judged."""
        if self._one(
            "SELECT 1 FROM pending WHERE rollout = ? AND wave = ? LIMIT 1", (rollout, REHEARSAL)
        ):
            return None
        rows = self._all(
            "SELECT body FROM judged WHERE rollout = ? AND wave = ?", (rollout, REHEARSAL)
        )
        return [load(row[0], Rehearsed) for row in rows]

    def next_hour(self, rollout: str, wave: int, hour: int) -> int | None:
        """The first hour from `hour` on in which something was judged."""
        row = self._one(
            "SELECT min(hour) FROM judged WHERE rollout = ? AND wave = ? AND hour >= ?",
            (rollout, wave, hour),
        )
        return row[0] if row else None

    def waits(self, rollout: str, wave: int, before_ms: int) -> bool:
        """Whether an exposure that ends before a time is still to be judged."""
        return (
            self._one(
                "SELECT 1 FROM pending WHERE rollout = ? AND wave = ? AND end_ms < ? LIMIT 1",
                (rollout, wave, before_ms),
            )
            is not None
        )

    def in_hours(
        self, rollout: str, wave: int, first: int, last: int
    ) -> Iterator[tuple[int, Change]]:
        """`(exposure in ms, change)` of everything judged in these hours."""
        rows = self._all(
            "SELECT exposure_ms, body FROM judged "
            "WHERE rollout = ? AND wave = ? AND hour BETWEEN ? AND ?",
            (rollout, wave, first, last),
        )
        return ((row[0], load(row[1], Change)) for row in rows)

    # --- afterwards -----------------------------------------------------------------------------

    def forget_ended(self, limit: int) -> int:
        """Remove work in progress of a rollout that has ended, at most `limit` rows per kind; what
        was counted stays. Returns how many were removed."""
        row = self._one(
            "SELECT j.rollout FROM judging j JOIN rollout r ON r.id = j.rollout "
            "WHERE j.stage <> 'over' AND r.ended_ms IS NOT NULL LIMIT 1"
        )
        if row is None:
            return 0
        with self._write():
            removed = sum(self._forget(row[0], table, key, limit) for table, key in _KEYS.items())
            if not removed:
                self._do("UPDATE judging SET stage = 'over' WHERE rollout = ?", row)
        return removed

    def _forget(self, rollout: str, table: str, key: str, limit: int) -> int:
        return self._do(
            f"DELETE FROM {table} WHERE rollout = ?1 AND ({key}) IN "
            f"(SELECT {key} FROM {table} WHERE rollout = ?1 LIMIT ?2)",
            (rollout, limit),
        )


def _side(member: int, wave: int) -> Side | None:
    """Of a member while a wave is judged. Candidates of earlier waves are neither."""
    if member == wave:
        return "a"
    return "b" if member > wave else None


_KEYS: Final = {
    "bettor": "wave, side, device",
    "started": "wave, device",
    "pending": "wave, device, exposure_ms",
    "judged": "wave, hour, device, exposure_ms",
    "sampled": "wave, place, device",
}
