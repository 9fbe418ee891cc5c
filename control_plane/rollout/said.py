"""What a report says of one candidate, as one word of the table, and the problem code behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control_plane.rollout.phase_table import Said
from protocol.identifiers import Digest, ModelName
from protocol.reported import ModelState, Note, ReportedState

# The candidate was taken away before it could be judged: nobody's failure.
_NO_FAULT: Final = frozenset({"OUT-D314", "OUT-D315"})
_TOO_OLD: Final = "OUT-D330"
_ON_DISK: Final = frozenset({"staged", "probing", "standby"})
_PINS: Final = frozenset({"pin", "technician"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rollout asks of a device."""

    rollout: str
    model: ModelName
    candidate: Digest
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """`outcome` is the number of the end of a trial that was counted; 0: of none."""

    said: Said
    reason: str | None = None
    outcome: int = 0


def heard(asked: Asked, state: ReportedState | None, counted: int = 0) -> Heard:
    """`counted`: the outcome that was counted before. It is not counted again: after a retry the
    device goes on to report it."""
    model = state.models.get(asked.model) if state is not None else None
    if model is not None:
        told = _at_an_end(asked, model, counted)
        if told is not None:
            return told
        if model.serving == asked.candidate:
            return Heard("serves", None, counted)
    too_old = model is not None and model.waiting == _TOO_OLD
    if state is not None and (too_old or _refuses(asked, state)):
        return Heard("too old", _TOO_OLD, counted)
    if model is None:
        return Heard("elsewhere", None, counted)
    return Heard(_on_the_way(asked, model), model.waiting, counted)


def _at_an_end(asked: Asked, model: ModelState, counted: int) -> Heard | None:
    note = model.notes.get(asked.candidate)
    if model.current == asked.candidate:
        if model.answering != "model":
            # Proven here, and then not good enough to answer: its rules do, or nothing does.
            reason = (note.reason if note is not None else None) or model.waiting
            return Heard("gone back", reason, counted)
        return Heard("kept idle" if model.committed_unexercised else "kept", None, counted)
    if note is not None and _holds(note) and note.attempt >= asked.attempt:
        if note.activated:
            return Heard("gone back", note.reason, _newest(asked, model, counted))
        if note.definite:
            return Heard("given up", note.reason, _newest(asked, model, counted))
    if note is not None and note.attempt < asked.attempt:
        # All that it holds against the candidate is of an earlier attempt.
        return None
    last = model.last
    if last is None or last.digest != asked.candidate or last.rollout != asked.rollout:
        return None
    if last.reason in _NO_FAULT or last.number == counted:
        return None
    if last.result == "rolled_back":
        return Heard("gone back", last.reason, last.number)
    # Given up before it served and not for good: it is tried again, so it may still succeed.
    if last.result == "rejected" and (note is None or note.definite):
        return Heard("given up", last.reason, last.number)
    return None


def _newest(asked: Asked, model: ModelState, counted: int) -> int:
    last = model.last
    mine = last is not None and last.digest == asked.candidate and last.rollout == asked.rollout
    return last.number if last is not None and mine else counted


def _holds(note: Note) -> bool:
    return note.reason is not None and note.reason not in _NO_FAULT


def _on_the_way(asked: Asked, model: ModelState) -> Said:
    if model.target == asked.candidate:
        if model.phase in _ON_DISK:
            return "on disk"
        return "fetches" if model.phase == "fetching" else "heads for it"
    if model.origin in _PINS:
        return "pinned"
    return "heads for it" if model.rollout == asked.rollout else "elsewhere"


def _refuses(asked: Asked, state: ReportedState) -> bool:
    mine = (asked.model, asked.candidate, "document", "models")
    return any(
        refused.code == _TOO_OLD and any(name in refused.what for name in mine)
        for refused in state.refused
    )
