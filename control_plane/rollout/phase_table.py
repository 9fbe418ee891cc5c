"""What a device's newest report makes of the phase that it is in: the one table of a rollout.

Tests and docs/reference/rollout-phases.md are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Phase = Literal[
    "targeted",
    "reached",
    "downloading",
    "staged",
    "activated",
    "healthy",
    "unexercised",
    "failed",
    "rolled_back",
    "refused",
    "silent",
    "excluded",
]
PHASES: Final[tuple[Phase, ...]] = (
    "targeted",
    "reached",
    "downloading",
    "staged",
    "activated",
    "healthy",
    "unexercised",
    "failed",
    "rolled_back",
    "refused",
    "silent",
    "excluded",
)
MEANING: Final[Mapping[Phase, str]] = {
    "targeted": "it is asked, or will be; nothing says that it has heard of it",
    "reached": "it has read the plan and heads for the candidate",
    "downloading": "it fetches the candidate",
    "staged": "the candidate is on its disk, checked",
    "activated": "the candidate serves, on probation",
    "healthy": "the candidate is kept after a trial with traffic",
    "unexercised": "the candidate is kept, without enough traffic to judge it",
    "failed": "given up before it served a request, or overdue",
    "rolled_back": "given up after it had served",
    "refused": "its agent is too old for what it was sent",
    "silent": "the candidate was on its disk or served, then no contact for too long",
    "excluded": "taken out of the rollout: pinned, unfit, or its agent is too old for the spec",
}

HEARD: Final[tuple[Phase, ...]] = ("staged", "activated", "healthy", "unexercised")
"""Phases in which no contact for too long counts as silent.

A device that dies of the candidate as it starts it has said no more than that it is staged.
"""
AHEAD: Final[tuple[Phase, ...]] = ("targeted", "reached", "downloading")
"""Phases in which a device without contact is not linked: nobody waits for it."""
WATCHED: Final[tuple[Phase, ...]] = (*AHEAD, *HEARD)
"""Phases in which time alone may change what is said of a device."""
IN_PROGRESS: Final[tuple[Phase, ...]] = ("reached", "downloading", "staged", "activated")
"""Begun, and not at an end: `in_progress_timeout` counts."""
GIVEN_UP: Final[tuple[Phase, ...]] = ("failed", "rolled_back")
MAY_LEAVE: Final[frozenset[Phase]] = frozenset({*AHEAD, "staged", "refused", "excluded"})
"""Who has activated the candidate stays in the rollout, whatever becomes of its labels or pins."""

Said = Literal[
    "elsewhere",
    "pinned",
    "heads for it",
    "fetches",
    "on disk",
    "serves",
    "kept",
    "kept idle",
    "given up",
    "gone back",
    "too old",
]
SAID: Final[Mapping[Said, str]] = {
    "elsewhere": "nothing of the candidate: it was not asked yet, or was reset and begins anew",
    "pinned": "it is pinned to something else, by an operator or at the device",
    "heads for it": "it has read the plan; something may still hold it back",
    "fetches": "frames of the candidate arrive",
    "on disk": "the candidate is complete and checked, probed or shadowing",
    "serves": "the candidate answers, on probation",
    "kept": "the candidate is committed after a trial with traffic",
    "kept idle": "the candidate is committed, without enough traffic to judge it",
    "given up": "the candidate was given up for good before it served",
    "gone back": "it served, and was given up; or it is committed and no longer answers",
    "too old": "the agent does not understand the plan, its document or the candidate",
}

_TAKEN_AT_ITS_WORD: Final[Mapping[Said, Phase]] = {
    "elsewhere": "targeted",
    "pinned": "excluded",
    "heads for it": "reached",
    "fetches": "downloading",
    "on disk": "staged",
    "serves": "activated",
    "kept": "healthy",
    "kept idle": "unexercised",
    "given up": "failed",
    "gone back": "rolled_back",
    "too old": "refused",
}


def _stays(phase: Phase, *said: Said) -> dict[Said, Phase]:
    """Reports that change nothing in a phase; all others are taken at their word."""
    return {**_TAKEN_AT_ITS_WORD, **dict.fromkeys(said, phase)}


_TRIES_AGAIN: Final[tuple[Said, ...]] = (
    "elsewhere", "pinned", "heads for it", "fetches", "on disk", "serves", "too old",
)  # fmt: skip

TABLE: Final[Mapping[Phase, Mapping[Said, Phase]]] = {
    "targeted": _TAKEN_AT_ITS_WORD,
    "reached": _TAKEN_AT_ITS_WORD,
    "downloading": _TAKEN_AT_ITS_WORD,
    "staged": _TAKEN_AT_ITS_WORD,
    # Once it has served, a pin hides no end: the device stays counted as what it was.
    "activated": _stays("activated", "pinned"),
    "healthy": _stays("healthy", "pinned"),
    "unexercised": _stays("unexercised", "pinned"),
    # What was given up stays given up through every further try, also of a device that was reset,
    # until the candidate is kept.
    "failed": _stays("failed", *_TRIES_AGAIN),
    "rolled_back": _stays("rolled_back", *_TRIES_AGAIN),
    "refused": _TAKEN_AT_ITS_WORD,
    # It is back as soon as it heads for the candidate; what kept it out is looked at again
    # whenever its document changes.
    "excluded": _stays("excluded", "elsewhere", "pinned", "too old"),
}
"""Phase before -> what the newest report says -> phase after.

`silent` has no row: no report makes a device silent, time does, and any contact ends it.
"""
