"""How far one device is with one rollout, read from what it reports, and counts of that.

Honest in what it does not know: a version that was committed without traffic is `unexercised`,
never healthy; what a device gave up stays given up through its further tries, until it commits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from control_plane.rollout.phase_table import (
    AHEAD,
    GIVEN_UP,
    HEARD,
    IN_PROGRESS,
    MAY_LEAVE,
    PHASES,
    TABLE,
    WATCHED,
    Phase,
)
from control_plane.rollout.said import Asked, heard
from protocol.reported import ReportedState

__all__ = [
    "AHEAD", "GIVEN_UP", "HEARD", "IN_PROGRESS", "MAY_LEAVE", "OVERDUE", "PHASES", "WATCHED",
    "Asked", "Counts", "Phase", "Standing", "funnel", "phase_of", "step", "total",
]  # fmt: skip

OVERDUE = "OUT-R211"
"""Reason of a device that began and came to no end in time. It counts as failed until it does."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a device in a rollout, and the problem code behind it, if there is one."""

    phase: Phase = "targeted"
    reason: str | None = None
    outcome: int = 0
    """Number of the device's last end of a trial that was counted."""


def step(asked: Asked, before: Standing, state: ReportedState | None) -> Standing:
    """The same, after the device's newest report. Never `silent`: time says that."""
    told = heard(asked, state, before.outcome)
    phase = TABLE[before.phase][told.said]
    # What is said of a further try does not explain why it was given up, nor why it is out.
    stays = phase == before.phase and phase in (*GIVEN_UP, "excluded")
    explains = told.said in ("given up", "gone back")
    if told.said == "pinned" and phase == "excluded":
        return Standing(phase, before.reason if stays else "pinned", told.outcome)
    return Standing(phase, told.reason if explains or not stays else before.reason, told.outcome)


def phase_of(asked: Asked, state: ReportedState | None) -> tuple[Phase, str | None]:
    """The phase and the reason of a device of which nothing was known before."""
    after = step(asked, Standing(), state)
    return after.phase, after.reason


@dataclass(frozen=True, slots=True)
class Counts:
    """Devices of one wave, or of several, by phase. Every device is in exactly one.

    `unlinked` of the `targeted`, `reached` and `downloading` have had no contact for so long that
    nobody waits for them. The properties count everything that has come at least so far; who is
    `excluded` is in none of them.
    """

    targeted: int = 0
    reached: int = 0
    downloading: int = 0
    staged: int = 0
    activated: int = 0
    healthy: int = 0
    unexercised: int = 0
    failed: int = 0
    rolled_back: int = 0
    refused: int = 0
    silent: int = 0
    excluded: int = 0
    unlinked: int = 0

    @property
    def all(self) -> int:
        everyone: int = sum(getattr(self, phase) for phase in PHASES)
        return everyone - self.excluded

    @property
    def ever_reached(self) -> int:
        return self.all - self.targeted

    @property
    def ever_staged(self) -> int:
        return self.ever_reached - self.reached - self.downloading - self.refused

    @property
    def ever_activated(self) -> int:
        return self.ever_staged - self.staged - self.failed

    @property
    def tried(self) -> int:
        """Activated, or given up on the way there: what a share of failures is a share of.

        Devices that rolled back or fell silent are in it, otherwise every failure would also
        make its denominator smaller.
        """
        return self.ever_activated + self.failed

    @property
    def judged(self) -> int:
        """Devices whose end is known."""
        return self.tried - self.activated + self.refused

    @property
    def waited_for(self) -> int:
        """Targets that can be expected to say something."""
        return self.all - self.unlinked

    def __add__(self, other: Counts) -> Counts:
        names = (*PHASES, "unlinked")
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})


def total(counts: Iterable[Counts]) -> Counts:
    return sum(counts, start=Counts())


def funnel(counts: Counts) -> dict[str, int]:
    """The numbers that people see. `targeted`, `reached`, `staged`, `activated` each contain the
    next; `downloading` is part of `reached`, `excluded` of none."""
    return {
        "targeted": counts.all,
        "reached": counts.ever_reached,
        "downloading": counts.downloading,
        "staged": counts.ever_staged,
        "activated": counts.ever_activated,
        "healthy": counts.healthy,
        "unexercised": counts.unexercised,
        "failed": counts.failed,
        "rolled_back": counts.rolled_back,
        "silent": counts.silent,
        "refused": counts.refused,
        "unlinked": counts.unlinked,
        "excluded": counts.excluded,
    }
