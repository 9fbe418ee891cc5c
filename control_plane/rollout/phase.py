"""How far one device is with one rollout, read from what it reports, and counts of that.

Honest in what it does not know: a version that was committed without traffic is `unexercised`,
never healthy; what a device gave up stays given up through its further tries, until it commits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from protocol.identifiers import Digest, ModelName
from protocol.reported import ModelState, Note, ReportedState

Phase = Literal[
    "targeted",  # nothing heard of it since it was asked
    "reached",  # it has read the plan and heads for the candidate
    "staged",  # the candidate is on its disk
    "activated",  # the candidate serves, on probation
    "healthy",  # committed after a trial with traffic
    "unexercised",  # committed without enough traffic to judge
    "failed",  # given up before it served a request
    "rolled_back",  # given up after it had served
    "refused",  # its agent cannot run what it was sent
    "silent",  # the candidate was on its disk or served, then no contact for too long
]
PHASES: Final[tuple[Phase, ...]] = (
    "targeted",
    "reached",
    "staged",
    "activated",
    "healthy",
    "unexercised",
    "failed",
    "rolled_back",
    "refused",
    "silent",
)
HEARD: Final[tuple[Phase, ...]] = ("staged", "activated", "healthy", "unexercised")
"""Phases in which no contact for too long counts as silent.

A device that dies of the candidate as it starts it has said no more than that it is staged.
"""

# The candidate was taken away before it could be judged: nobody's failure.
_NO_FAULT: Final = frozenset({"OUT-D314", "OUT-D315"})
_TOO_OLD: Final = "OUT-D330"
_ON_DISK: Final = frozenset({"staged", "probing", "standby"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rollout asks of a device."""

    rollout: str
    model: ModelName
    candidate: Digest
    attempt: int = 0


def phase_of(asked: Asked, state: ReportedState | None) -> tuple[Phase, str | None]:
    """The phase and the problem code behind it, if there is one. Never `silent`: time says that."""
    if state is None:
        return "targeted", None
    model = state.models.get(asked.model)
    if model is not None:
        if model.current == asked.candidate and model.answering != "model":
            # Proven here, and then not good enough to answer: its rules do, or nothing does.
            note = model.notes.get(asked.candidate, Note())
            return "rolled_back", note.reason or model.waiting
        if model.current == asked.candidate:
            return ("unexercised" if model.committed_unexercised else "healthy"), None
        given_up = _given_up(asked, model)
        if given_up is not None:
            return given_up
        if model.serving == asked.candidate:
            return "activated", None
    if _refuses(asked, state) or (model is not None and model.waiting == _TOO_OLD):
        return "refused", _TOO_OLD
    if model is None:
        return "targeted", None
    if model.target == asked.candidate:
        return ("staged" if model.phase in _ON_DISK else "reached"), model.waiting
    return ("reached" if model.rollout == asked.rollout else "targeted"), model.waiting


def _given_up(asked: Asked, model: ModelState) -> tuple[Phase, str | None] | None:
    note = model.notes.get(asked.candidate)
    if note is not None and _counts(note) and note.attempt >= asked.attempt:
        if note.activated:
            return "rolled_back", note.reason
        if note.definite:
            return "failed", note.reason
    last = model.last
    if last is None or last.digest != asked.candidate or last.rollout != asked.rollout:
        return None
    if last.reason in _NO_FAULT or last.result not in ("rolled_back", "rejected"):
        return None
    if last.result == "rolled_back":
        return "rolled_back", last.reason
    # Given up before it served and not for good: it is tried again, so it may still succeed.
    return ("failed", last.reason) if note is None or note.definite else None


def _counts(note: Note) -> bool:
    return note.reason is not None and note.reason not in _NO_FAULT


def _refuses(asked: Asked, state: ReportedState) -> bool:
    mine = (asked.model, asked.candidate, "document", "models")
    return any(
        refused.code == _TOO_OLD and any(name in refused.what for name in mine)
        for refused in state.refused
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """Devices of one wave, or of several, by phase. Every device is in exactly one.

    `unlinked` of the `targeted` have had no contact for so long that nobody waits for them.
    The properties count everything that has come at least so far.
    """

    targeted: int = 0
    reached: int = 0
    staged: int = 0
    activated: int = 0
    healthy: int = 0
    unexercised: int = 0
    failed: int = 0
    rolled_back: int = 0
    refused: int = 0
    silent: int = 0
    unlinked: int = 0

    @property
    def all(self) -> int:
        return sum(getattr(self, phase) for phase in PHASES)

    @property
    def ever_reached(self) -> int:
        return self.all - self.targeted

    @property
    def ever_staged(self) -> int:
        return self.ever_reached - self.reached - self.refused

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
    """The numbers that people see: each of the first four contains the next."""
    return {
        "targeted": counts.all,
        "reached": counts.ever_reached,
        "staged": counts.ever_staged,
        "activated": counts.ever_activated,
        "healthy": counts.healthy,
        "unexercised": counts.unexercised,
        "failed": counts.failed,
        "rolled_back": counts.rolled_back,
        "silent": counts.silent,
        "refused": counts.refused,
        "unlinked": counts.unlinked,
    }
