"""Which devices a rollout targets, in which wave, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, cast

from control_plane.rollout.phase import (
    AHEAD,
    HEARD,
    IN_PROGRESS,
    MAY_LEAVE,
    WATCHED,
    Asked,
    Counts,
    Phase,
    Standing,
    step,
)
from control_plane.store.table import Row, dump
from control_plane.store.waiting import CAP_MS, Waiting
from protocol.identifiers import DeviceId
from protocol.reported import ReportedState

_HEARD: Final = ", ".join(f"'{phase}'" for phase in HEARD)
_SHOWN: Final = f"CASE WHEN quiet = 1 AND phase IN ({_HEARD}) THEN 'silent' ELSE phase END"
_MEMBER: Final = "rollout, device, wave, phase, since_ms, reason, outcome, bets, quiet"
_ENDED_BADLY: Final = "phase IN ('failed', 'rolled_back', 'refused')"
"""As the index says it: SQLite uses it for nothing else."""
_GIVEN: Final = ("rollout", "device", "wave", "phase", "since_ms", "reason", "outcome", "bets")
_ADD: Final = f"""
    INSERT INTO member (rollout, device, wave, phase, since_ms, reason, outcome, bets, quiet,
                        due_ms, allowance_ms, began_ms)
    SELECT :rollout, id, :wave, :phase, :since_ms, :reason, :outcome, :bets,
           -- Who has the candidate already has not fallen silent with it.
           heard_ms + allowance_ms <= :since_ms AND :phase NOT IN ({_HEARD}),
           -- A time limit of the rollout may come first: the next sweep looks.
           CASE WHEN :watched AND heard_ms + allowance_ms > :since_ms
                THEN coalesce(:began_ms, heard_ms + allowance_ms) END,
           allowance_ms, :began_ms
    FROM (
        SELECT id, max(coalesce(last_contact_ms, enrolled_ms), :listening_ms) AS heard_ms,
               max(:silent_ms, min(2 * max(gap_ms, gap_before_ms), :cap_ms)) AS allowance_ms
        FROM device WHERE id = :device
    ) WHERE true
    ON CONFLICT (rollout, device) DO UPDATE SET wave = min(wave, excluded.wave)
"""


@dataclass(frozen=True, slots=True)
class Member:
    """`wave` is the first wave that takes the device, from 1; after the last: it is held back."""

    rollout: str
    device: DeviceId
    wave: int
    phase: Phase = "targeted"
    since_ms: int = 0
    reason: str | None = None
    outcome: int = 0
    """Number of the last end of a trial that was counted."""
    bets: bool = True
    """Whether falling quiet says something: it was there from the start, and has not yet."""
    quiet: bool = False
    """No contact for longer than it may be away."""

    @property
    def told(self) -> Phase:
        """The phase as it counts."""
        return "silent" if self.quiet and self.phase in HEARD else self.phase


class Members(Waiting):
    def add(self, members: Iterable[Member]) -> None:
        """A device that is in already keeps its phase, and the earlier wave.

        `since_ms` of a member is now, and its rollout has not ended. Who has been away for longer
        than its allowance is quiet from the start, and has not fallen so.
        """
        with self._write() as connection:
            listening_ms = self.listening_since_ms()
            silent_ms: dict[str, int] = dict(
                self._all("SELECT id, silent_ms FROM rollout WHERE ended_ms IS NULL")
            )
            connection.executemany(
                _ADD,
                (
                    {
                        **{name: getattr(each, name) for name in _GIVEN},
                        "watched": each.phase in WATCHED,
                        "began_ms": each.since_ms if each.phase in IN_PROGRESS else None,
                        "silent_ms": silent_ms[each.rollout],
                        # While nobody knows, time without contact begins now.
                        "listening_ms": each.since_ms if listening_ms is None else listening_ms,
                        "cap_ms": CAP_MS,
                    }
                    for each in members
                ),
            )

    def get(self, rollout: str, device: DeviceId) -> Member | None:
        row = self._one(
            f"SELECT {_MEMBER} FROM member WHERE rollout = ? AND device = ?", (rollout, device)
        )
        return _member(row) if row else None

    def remove(self, rollout: str, device: DeviceId) -> None:
        self._do("DELETE FROM member WHERE rollout = ? AND device = ?", (rollout, device))

    def leave(self, device: DeviceId) -> None:
        """Out of every rollout that has not ended: it is no longer expected to do anything."""
        self._do(
            "DELETE FROM member WHERE device = ? "
            "AND rollout IN (SELECT id FROM rollout WHERE ended_ms IS NULL)",
            (device,),
        )

    def place(self, rollout: str, device: DeviceId, wave: int) -> None:
        """Its labels changed after the start: another wave takes it, and it is no control."""
        self._do(
            "UPDATE member SET wave = ?, bets = 0 WHERE rollout = ? AND device = ?",
            (wave, rollout, device),
        )

    def exclude(self, rollout: str, device: DeviceId, why: str, now_ms: int) -> None:
        """Not to be changed any more, for a reason that people read."""
        self._do(
            "UPDATE member SET phase = 'excluded', reason = ?, due_ms = NULL, began_ms = NULL, "
            "since_ms = CASE phase WHEN 'excluded' THEN since_ms ELSE ? END "
            "WHERE rollout = ? AND device = ?",
            (why, now_ms, rollout, device),
        )

    def again(self, rollout: str, now_ms: int) -> int:
        """A new attempt: who gave the candidate up is asked once more. How many there are."""
        with self._write():
            gave_up = f"rollout = ? AND {_ENDED_BADLY} AND phase != 'refused'"
            rows = self._all(f"SELECT device FROM member WHERE {gave_up}", (rollout,))
            self._do(
                "UPDATE member SET phase = 'targeted', reason = NULL, since_ms = ?, "
                f"began_ms = NULL, due_ms = CASE quiet WHEN 0 THEN ? END WHERE {gave_up}",
                (now_ms, now_ms, rollout),
            )
            for row in rows:
                self._look_again(row[0])
            return len(rows)

    def _look_again(self, device: DeviceId) -> None:
        """It stayed in the rollout because it had tried the candidate, and now it begins anew: its
        document may have changed meanwhile, and counts as if it had done so now."""
        self._do("UPDATE sequence SET value = value + 1 WHERE name = 'fleet'")
        self._do(
            "UPDATE device SET changed = (SELECT value FROM sequence WHERE name = 'fleet') "
            "WHERE id = ?",
            (device,),
        )

    def of(self, rollout: str, phases: Iterable[Phase] = (), limit: int = 1000) -> list[Member]:
        """In order of devices; all phases unless some are named."""
        wanted = tuple(phases)
        marks = ", ".join("?" for _ in wanted)
        rows = self._all(
            f"SELECT {_MEMBER} FROM member WHERE rollout = ? "
            + (f"AND {_SHOWN} IN ({marks}) " if wanted else "")
            + "ORDER BY device LIMIT ?",
            (rollout, *wanted, limit),
        )
        return [_member(row) for row in rows]

    def moved(self, device: DeviceId, state: ReportedState, now_ms: int) -> None:
        """A device said something new: move it on in the running rollouts that it is in."""
        rows = self._all(
            "SELECT r.id, r.model, r.candidate, r.attempt, r.timeout_ms, m.phase, m.reason, "
            "m.outcome, m.quiet, m.due_ms, m.began_ms "
            "FROM rollout r CROSS JOIN member m ON m.rollout = r.id AND m.device = ? "
            "WHERE r.ended_ms IS NULL",
            (device,),
        )
        for rollout, model, candidate, attempt, timeout_ms, *standing, quiet, due_ms, since in rows:
            before = Standing(*standing)
            after = step(Asked(rollout, model, candidate, attempt), before, state)
            if after == before:
                continue
            if after.phase in MAY_LEAVE and before.phase not in MAY_LEAVE:
                self._look_again(device)
            began_ms = (since or now_ms) if after.phase in IN_PROGRESS else None
            if quiet or after.phase not in WATCHED:
                due_ms = None  # noqa: PLW2901 - from here on it is what is to be written
            elif due_ms is None or (began_ms is not None and timeout_ms is not None):
                due_ms = now_ms  # noqa: PLW2901 - the same; the next sweep puts it off
            self._do(
                "UPDATE member SET phase = ?, reason = ?, outcome = ?, due_ms = ?, began_ms = ?, "
                "since_ms = CASE phase WHEN ? THEN since_ms ELSE ? END "
                "WHERE rollout = ? AND device = ?",
                (
                    after.phase,
                    after.reason,
                    after.outcome,
                    due_ms,
                    began_ms,
                    after.phase,
                    now_ms,
                    rollout,
                    device,
                ),
            )

    def counts(self, rollout: str) -> dict[int, Counts]:
        """Devices per wave and phase. What it costs does not depend on how many there are.

        Quiet ones are silent if they had staged or activated; those before that are not linked.
        """
        rows = self._all(
            "SELECT wave, phase, quiet, sum(n) FROM phase_count WHERE rollout = ? AND n > 0 "
            "GROUP BY 1, 2, 3",
            (rollout,),
        )
        return _by_wave(rows)

    def freeze(self, rollout: str) -> None:
        """The rollout has ended: what is known of its devices stays as it is now.

        Reports and time change nothing any more. Who is silent is noted as a phase.
        """
        self._do(
            "UPDATE member SET phase = 'silent', due_ms = NULL "
            f"WHERE rollout = ? AND quiet = 1 AND phase IN ({_HEARD})",
            (rollout,),
        )

    def reasons(self, rollout: str) -> dict[str, int]:
        """Problem codes behind members that failed or rolled back."""
        rows = self._all(
            "SELECT reason, count(*) FROM member WHERE rollout = ? AND reason IS NOT NULL "
            f"AND {_ENDED_BADLY} GROUP BY 1 ORDER BY 2 DESC, 1",
            (rollout,),
        )
        return dict(rows)

    def overlap(self, rollout: str, devices: Iterable[DeviceId]) -> int:
        """How many of these devices the rollout may change."""
        return self._number(
            "SELECT count(*) FROM json_each(?) wanted CROSS JOIN member m "
            "ON m.rollout = ? AND m.device = wanted.value WHERE m.phase != 'excluded'",
            (dump(sorted(set(devices))), rollout),
        )

    def returned(self, rollout: str) -> tuple[int, int]:
        """`(confirmed, of)`: members that had activated, and serve something else again.

        A device that was retired since is waited for no longer.
        """
        row = self._one(
            """
            SELECT count(r.device), count(*)
            FROM rollout x CROSS JOIN member m ON m.rollout = x.id AND m.wave <= x.wave
            JOIN device d ON d.id = m.device AND d.retired_ms IS NULL
            LEFT JOIN running r ON r.device = m.device AND r.model = x.model
                 AND r.serving IS NOT x.candidate
            WHERE x.id = ? AND m.phase IN ('activated', 'healthy', 'unexercised', 'silent')
            """,
            (rollout,),
        )
        return (row[0], row[1]) if row else (0, 0)


def _member(row: Row) -> Member:
    rollout, device, wave, phase, since_ms, reason, outcome, bets, quiet = row
    return Member(rollout, device, wave, phase, since_ms, reason, outcome, bool(bets), bool(quiet))


def _by_wave(rows: Iterable[Row]) -> dict[int, Counts]:
    found: dict[int, dict[str, int]] = {}
    for wave, phase, quiet, number in rows:
        into = found.setdefault(wave, {})
        counted = phase
        if quiet and cast(Phase, phase) in HEARD:
            counted = "silent"
        elif quiet and cast(Phase, phase) in AHEAD:
            into["unlinked"] = into.get("unlinked", 0) + number
        into[counted] = into.get(counted, 0) + number
    return {wave: Counts(**numbers) for wave, numbers in sorted(found.items())}
