"""What time does to members: who has been quiet for too long, and who comes to no end.

A device's allowance is the longest of `silent_after` and twice its own longest time without
contact in one to two weeks, which counts up to 72 hours. It starts with every contact, and again
when listening does: nobody is called quiet for time in which nobody listened.

`member.due_ms` is never later than the time at which something changes by itself, so a sweep
looks at those that are due and at no others; what it finds to be early, it puts off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from control_plane.rollout.evidence import Silence
from control_plane.rollout.phase import OVERDUE, WATCHED, Phase
from control_plane.store.table import Table
from protocol.identifiers import DeviceId

CAP_MS: Final = 72 * 3_600_000
"""However rarely a device is heard, this much of its habit counts."""
SWEPT_MOST: Final = 2000
"""Members of one rollout that one sweep looks at."""

_WATCHED: Final = ", ".join(f"'{phase}'" for phase in WATCHED)

Side = Literal["a", "b"]
"""Its wave has begun, or it is a control: of a later wave, or held back."""


@dataclass(frozen=True, slots=True)
class Fell:
    """A member that time has changed: it has fallen quiet, or it is overdue.

    `bets`: it was there from the start and falls quiet for the first time in this rollout.
    """

    rollout: str
    device: DeviceId
    wave: int
    side: Side
    what: Literal["quiet", "overdue"]
    phase: Phase
    """Before."""
    bets: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep found, in the order in which it became due, then of names.

    The order has nothing to do with the hash that makes waves.
    """

    at_ms: int
    fell: tuple[Fell, ...] = ()
    waves: Mapping[str, int] = field(default_factory=dict)
    """Per rollout of `fell`, the wave that it is in; 0 before the first."""
    at_risk: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Per rollout of `fell` and wave: members that could still bet by falling quiet, just before.
    """
    more: bool = False
    """Whether some are due that were not looked at."""

    def silences(self) -> tuple[tuple[str, int, Silence], ...]:
        """What it adds to the comparison of silence: rollout, wave, and who fell.

        The wave is compared with those that wait. Only who was there from the start bets, and
        each device once; candidates of earlier waves are neither.
        """
        found = []
        for rollout, wave in self.waves.items():
            betting = [
                each
                for each in self.fell
                if each.rollout == rollout and each.what == "quiet" and each.bets
            ]
            labels = "".join(
                "a" if each.wave == wave else "b" for each in betting if each.wave >= wave
            )
            if wave and labels:
                at_risk = self.at_risk[rollout]
                waiting = sum(number for later, number in at_risk.items() if later > wave)
                silence = Silence(at_risk.get(wave, 0), waiting, labels, self.at_ms)
                found.append((rollout, wave, silence))
        return tuple(found)


def allowance_ms(silent_ms: int, longest_gap_ms: int) -> int:
    """How long a device may be away before it is called quiet."""
    return max(silent_ms, min(2 * longest_gap_ms, CAP_MS))


class Waiting(Table):
    def sweep(self, now_ms: int, listening_since_ms: int | None, limit: int = SWEPT_MOST) -> Swept:
        """Mark members that are due. One transaction; at most `limit` of each active rollout.

        `listening_since_ms`: since when devices can be heard without a break; None: they cannot,
        so nothing falls.
        """
        with self._write():
            self.listen(listening_since_ms)
            if listening_since_ms is None:
                return Swept(now_ms)
            fell: list[Fell] = []
            waves: dict[str, int] = {}
            at_risk: dict[str, dict[int, int]] = {}
            more = False
            for rollout, begun, timeout_ms in self._all(
                "SELECT id, wave, timeout_ms FROM rollout WHERE ended_ms IS NULL ORDER BY id"
            ):
                looked, found = self._due(
                    rollout, begun, timeout_ms, now_ms, listening_since_ms, limit
                )
                more = more or looked == limit
                if found:
                    # Nothing of this rollout is marked yet.
                    waves[rollout], at_risk[rollout] = begun, self.at_risk(rollout)
                    self._mark(found, now_ms)
                    fell += found
            return Swept(now_ms, tuple(fell), waves, at_risk, more)

    def listen(self, since_ms: int | None) -> None:
        """Note since when devices can be heard; None: not known, or they cannot."""
        if self._one("SELECT since_ms FROM listening") != (since_ms,):
            self._do("UPDATE listening SET since_ms = ?", (since_ms,))

    def listening_since_ms(self) -> int | None:
        row = self._one("SELECT since_ms FROM listening")
        return row[0] if row else None

    def at_risk(self, rollout: str) -> dict[int, int]:
        """Per wave, members that are not quiet and could bet by falling so."""
        rows = self._all(
            f"SELECT wave, sum(n) FROM phase_count WHERE rollout = ? AND phase IN ({_WATCHED}) "
            "AND quiet = 0 AND bets = 1 AND n > 0 GROUP BY wave",
            (rollout,),
        )
        return dict(rows)

    def contact(self, device: DeviceId, now_ms: int) -> None:
        """A device was heard: it is quiet no longer in the rollouts that have not ended.

        To be called after its row was brought up to date. What is put off by less than half an
        allowance is left: a sweep puts it off when it gets there.
        """
        rows = self._all(
            "SELECT m.rollout, m.phase, m.quiet, m.due_ms, m.allowance_ms, m.began_ms, "
            "r.silent_ms, r.timeout_ms, max(d.gap_ms, d.gap_before_ms) "
            "FROM rollout r CROSS JOIN member m ON m.rollout = r.id AND m.device = ? "
            "JOIN device d ON d.id = m.device WHERE r.ended_ms IS NULL",
            (device,),
        )
        for rollout, phase, quiet, due_ms, before_ms, since_ms, silent_ms, timeout_ms, gap in rows:
            allowed_ms = allowance_ms(silent_ms, gap)
            # It could do nothing while it was away, so its time begins again.
            began_ms = now_ms if quiet and since_ms is not None else since_ms
            wanted_ms = None
            if phase in WATCHED:
                wanted_ms = now_ms + allowed_ms
                if began_ms is not None and timeout_ms is not None:
                    wanted_ms = min(wanted_ms, began_ms + timeout_ms)
            early = due_ms is not None and wanted_ms is not None and (
                due_ms < wanted_ms and due_ms < now_ms + allowed_ms // 2
            )  # fmt: skip
            if quiet or allowed_ms != before_ms or (due_ms is None) != (wanted_ms is None) or early:
                self._do(
                    "UPDATE member SET quiet = 0, due_ms = ?, allowance_ms = ?, began_ms = ? "
                    "WHERE rollout = ? AND device = ?",
                    (wanted_ms, allowed_ms, began_ms, rollout, device),
                )

    def _due(
        self,
        rollout: str,
        begun: int,
        timeout_ms: int | None,
        now_ms: int,
        since_ms: int,
        limit: int,
    ) -> tuple[int, list[Fell]]:
        """How many were looked at, and those of them that fall; the others are put off."""
        rows = self._all(
            "SELECT m.device, m.wave, m.phase, m.bets, m.allowance_ms, m.began_ms, "
            "max(coalesce(d.last_contact_ms, d.enrolled_ms), ?) "
            "FROM member m CROSS JOIN device d ON d.id = m.device "
            "WHERE m.rollout = ? AND m.due_ms <= ? ORDER BY m.due_ms, m.device LIMIT ?",
            (since_ms, rollout, now_ms, limit),
        )
        found: list[Fell] = []
        later: list[tuple[int, str, DeviceId]] = []
        for device, wave, phase, bets, allowed_ms, began_ms, heard_ms in rows:
            quiet_ms = heard_ms + allowed_ms
            over_ms = None
            if began_ms is not None and timeout_ms is not None:
                over_ms = max(began_ms + timeout_ms, since_ms + allowed_ms)
            side: Side = "a" if wave <= begun else "b"
            if quiet_ms <= now_ms:
                found.append(Fell(rollout, device, wave, side, "quiet", phase, bool(bets)))
            elif over_ms is not None and over_ms <= now_ms:
                found.append(Fell(rollout, device, wave, side, "overdue", phase, bool(bets)))
            else:
                due_ms = quiet_ms if over_ms is None else min(quiet_ms, over_ms)
                later.append((due_ms, rollout, device))
        with self._write() as connection:
            connection.executemany(
                "UPDATE member SET due_ms = ? WHERE rollout = ? AND device = ?", later
            )
        return len(rows), found

    def _mark(self, found: list[Fell], now_ms: int) -> None:
        with self._write() as connection:
            connection.executemany(
                "UPDATE member SET quiet = 1, bets = 0, due_ms = NULL "
                "WHERE rollout = ? AND device = ?",
                [(each.rollout, each.device) for each in found if each.what == "quiet"],
            )
            connection.executemany(
                "UPDATE member SET phase = 'failed', reason = ?, since_ms = ?, due_ms = NULL, "
                "began_ms = NULL WHERE rollout = ? AND device = ?",
                [
                    (OVERDUE, now_ms, each.rollout, each.device)
                    for each in found
                    if each.what == "overdue"
                ],
            )
