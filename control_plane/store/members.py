"""Which devices a rollout targets, in which wave, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from control_plane.rollout.phase import HEARD, Asked, Counts, Phase, phase_of
from control_plane.store.table import Row, Table
from protocol.identifiers import DeviceId
from protocol.reported import ReportedState

_HEARD = ", ".join(f"'{phase}'" for phase in HEARD)


@dataclass(frozen=True, slots=True)
class Member:
    """`wave` is the first wave that takes the device, from 1."""

    rollout: str
    device: DeviceId
    wave: int
    phase: Phase = "targeted"
    since_ms: int = 0
    reason: str | None = None


class Members(Table):
    def add(self, members: Iterable[Member]) -> None:
        """A device that is in already keeps its phase, and the earlier wave."""
        with self._write() as connection:
            connection.executemany(
                "INSERT INTO member (rollout, device, wave, phase, since_ms, reason) "
                "VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (rollout, device) DO UPDATE SET wave = min(wave, excluded.wave)",
                [(m.rollout, m.device, m.wave, m.phase, m.since_ms, m.reason) for m in members],
            )

    def get(self, rollout: str, device: DeviceId) -> Member | None:
        row = self._one(
            "SELECT rollout, device, wave, phase, since_ms, reason FROM member "
            "WHERE rollout = ? AND device = ?",
            (rollout, device),
        )
        return Member(*row) if row else None

    def remove(self, rollout: str, device: DeviceId) -> None:
        self._do("DELETE FROM member WHERE rollout = ? AND device = ?", (rollout, device))

    def leave(self, device: DeviceId) -> None:
        """Out of every rollout that has not ended: it is no longer expected to do anything."""
        self._do(
            "DELETE FROM member WHERE device = ? "
            "AND rollout IN (SELECT id FROM rollout WHERE ended_ms IS NULL)",
            (device,),
        )

    def of(self, rollout: str, phases: Iterable[Phase] = (), limit: int = 1000) -> list[Member]:
        """In order of devices; all phases unless some are named."""
        wanted = tuple(phases)
        marks = ", ".join("?" for _ in wanted)
        rows = self._all(
            "SELECT rollout, device, wave, phase, since_ms, reason FROM member WHERE rollout = ? "
            + (f"AND phase IN ({marks}) " if wanted else "")
            + "ORDER BY device LIMIT ?",
            (rollout, *wanted, limit),
        )
        return [Member(*row) for row in rows]

    def moved(self, device: DeviceId, state: ReportedState, now_ms: int) -> None:
        """A device said something new: move it on in the running rollouts that it is in."""
        rows = self._all(
            "SELECT r.id, r.model, r.candidate, r.attempt, m.phase, m.reason "
            "FROM member m JOIN rollout r ON r.id = m.rollout "
            "WHERE m.device = ? AND r.ended_ms IS NULL",
            (device,),
        )
        for *asked, before, reason_before in rows:
            phase, reason = phase_of(Asked(*asked), state)
            if (phase, reason) != (before, reason_before):
                self._do(
                    "UPDATE member SET phase = ?, reason = ?, "
                    "since_ms = CASE WHEN phase = ? THEN since_ms ELSE ? END "
                    "WHERE rollout = ? AND device = ?",
                    (phase, reason, phase, now_ms, asked[0], device),
                )

    def counts(self, rollout: str, quiet_before_ms: int) -> dict[int, Counts]:
        """Devices per wave and phase; no contact since `quiet_before_ms` is silence.

        Silent are those that had staged or activated; those that were never reached are not linked.
        """
        rows = self._all(
            f"""
            SELECT m.wave, m.phase, count(*),
                   sum(coalesce(d.last_contact_ms, 0) < ?)
            FROM member m JOIN device d ON d.id = m.device
            WHERE m.rollout = ? AND m.phase IN ({_HEARD}, 'targeted') GROUP BY 1, 2
            UNION ALL
            SELECT wave, phase, count(*), 0 FROM member
            WHERE rollout = ? AND phase NOT IN ({_HEARD}, 'targeted') GROUP BY 1, 2
            """,
            (quiet_before_ms, rollout, rollout),
        )
        return _by_wave(rows)

    def freeze(self, rollout: str, quiet_before_ms: int) -> None:
        """The rollout has ended: note who is silent, since time goes on and phases do not."""
        self._do(
            f"UPDATE member SET phase = 'silent' WHERE rollout = ? AND phase IN ({_HEARD}) "
            "AND device IN (SELECT id FROM device WHERE coalesce(last_contact_ms, 0) < ?)",
            (rollout, quiet_before_ms),
        )

    def reasons(self, rollout: str) -> dict[str, int]:
        """Problem codes behind members that failed or rolled back."""
        rows = self._all(
            "SELECT reason, count(*) FROM member WHERE rollout = ? AND reason IS NOT NULL "
            "AND phase IN ('failed', 'rolled_back', 'refused') GROUP BY 1 ORDER BY 2 DESC, 1",
            (rollout,),
        )
        return dict(rows)

    def overlap(self, rollout: str, devices: Iterable[DeviceId]) -> int:
        """How many of these devices the rollout targets."""
        wanted = set(devices)
        rows = self._all("SELECT device FROM member WHERE rollout = ?", (rollout,))
        return sum(row[0] in wanted for row in rows)

    def returned(self, rollout: str) -> tuple[int, int]:
        """`(confirmed, of)`: members that had activated, and serve something else again.

        A device that was retired since is waited for no longer.
        """
        row = self._one(
            """
            SELECT count(r.device), count(*)
            FROM member m JOIN rollout x ON x.id = m.rollout
            JOIN device d ON d.id = m.device AND d.retired_ms IS NULL
            LEFT JOIN running r ON r.device = m.device AND r.model = x.model
                 AND r.serving IS NOT x.candidate
            WHERE m.rollout = ? AND m.phase IN ('activated', 'healthy', 'unexercised', 'silent')
            """,
            (rollout,),
        )
        return (row[0], row[1]) if row else (0, 0)


def _by_wave(rows: Iterable[Row]) -> dict[int, Counts]:
    found: dict[int, dict[str, int]] = {}
    for wave, phase, number, quiet in rows:
        into = found.setdefault(wave, {})
        if cast(Phase, phase) in HEARD:
            into["silent"] = into.get("silent", 0) + quiet
            number -= quiet  # noqa: PLW2901 - the rest of the row is what was heard
        elif phase == "targeted":
            into["unlinked"] = quiet
        into[phase] = into.get(phase, 0) + number
    return {wave: Counts(**numbers) for wave, numbers in sorted(found.items())}
