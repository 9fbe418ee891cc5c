"""What a device holds against bundles, what lifts it, and how often it may try something new.

A definite denial yields to a greater rollout attempt, to a greater number in the document's
`allow`, and, for reasons of loading and probing, to another agent version. A pin never lifts one.
An unclear reason only keeps a bundle away for a while. So does having stopped working well after it
was committed, for twice as long each time: that damps flapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edge_agent import backoff
from edge_agent.journal import Journal, Note, Revocation
from protocol.approval import Approvals
from protocol.identifiers import Digest

DISK_FULL: Final = "OUT-D201"
MEMORY_SHORT: Final = "OUT-D202"
PROBE: Final = "OUT-D301"
CONTRACT: Final = "OUT-D302"
HEALTH: Final = "OUT-D310"
CRASHES: Final = "OUT-D311"
INTERRUPTED: Final = "OUT-D312"
TIMEOUT: Final = "OUT-D313"
SUPERSEDED: Final = "OUT-D314"
REVOKED: Final = "OUT-D315"
CORRUPT: Final = "OUT-D316"
DEGRADED: Final = "OUT-D318"
RESCUED: Final = "OUT-D320"
GUARDED: Final = "OUT-D340"
FLAPPING: Final = "OUT-D341"
MAINTENANCE: Final = "OUT-D343"
SHADOWING: Final = "OUT-D344"
NO_MODEL: Final = "OUT-D350"
RULES_ANSWER: Final = "OUT-D351"
REFUSES: Final = "OUT-D352"

DEFINITE: Final = frozenset({PROBE, CONTRACT, HEALTH, CRASHES})
"""Reasons that speak about the bundle itself; all others may pass."""

CALM_MS: Final = 7 * 24 * 60 * 60 * 1000
"""A bundle that worked well for so long begins again with the shortest hold."""

GUARD_GAP_MS: Final = 15 * 60 * 1000
GUARD_DAY_MS: Final = 24 * 60 * 60 * 1000
GUARD_PER_DAY: Final = 8


def lifted(note: Note, *, attempt: int, allow: int, agent: str) -> bool:
    """Whether something that may lift a denial has come since it was noted."""
    if attempt > note.attempt or allow > note.allow:
        return True
    before_serving = note.reason in (PROBE, CONTRACT) or (
        note.reason == CRASHES and not note.activated
    )
    return before_serving and note.agent != agent


def left(note: Note, now_ms: int, random: float) -> tuple[int, int]:
    """How often a bundle has now been left by itself, and until when (trusted ms) it is on hold.

    10 minutes, then twice as long each time up to 24 hours, ± jitter; after a calm week it begins
    again. A clock that was set back does not prolong anything.
    """
    recent = note.returns and now_ms - note.returned_ms < CALM_MS
    returns = note.returns + 1 if recent else 1
    return returns, now_ms + backoff.pause_ms(returns - 1, random)


def away(
    journal: Journal, attempts: Mapping[Digest, int], allow: Mapping[Digest, int], now_ms: int
) -> tuple[Digest, Digest] | None:
    """A bundle that was left for its signed fallback, and that fallback, while the hold lasts; and
    beyond it while the fallback is on trial, which is not given up half-way."""
    for bundle, note in reversed(journal.notes):
        if note.toward is None or note.reason is None:
            continue
        if attempts.get(bundle, 0) > note.attempt or allow.get(bundle, 0) > note.allow:
            continue
        if (note.until_ms or 0) > now_ms or note.definite or journal.note(note.toward).trying:
            return bundle, note.toward
    return None


def standing(
    journal: Journal, attempts: Mapping[Digest, int], allow: Mapping[Digest, int], agent: str
) -> frozenset[Digest]:
    """Bundles with a definite denial that nothing lifts, and those once seen revoked.

    `attempts` holds, per bundle, the attempt of the rollout that would bring it here now.
    """
    denied = set()
    for bundle, note in journal.notes:
        numbers = (attempts.get(bundle, 0), allow.get(bundle, 0))
        definite = note.reason is not None and note.definite
        if definite and not lifted(note, attempt=numbers[0], allow=numbers[1], agent=agent):
            denied.add(bundle)
    return frozenset(denied)


def revocations(
    approvals: Approvals, journal: Journal, bundles: Iterable[Digest]
) -> dict[Digest, Revocation]:
    """What approvers said against `bundles`, of those it concerns: `stop` or `fallback`.

    A bundle that trusted `models` no longer lists counts as `fallback`. Without any trusted
    `models` (a lost cache) only what was noted counts, and a noted `stop` outlives a delisting.
    """
    found: dict[Digest, Revocation] = {}
    for bundle in bundles:
        noted = journal.note(bundle).revoked
        listed = approvals.get(bundle)
        if listed is not None:
            if listed.revoked and listed.terms.on_device != "report":
                found[bundle] = listed.terms.on_device
        elif noted is not None:
            found[bundle] = noted
        elif approvals:
            found[bundle] = "fallback"
    return found


def guarded_until(journal: Journal, bundle: Digest, now_ms: int) -> int | None:
    """When the thrash guard lets a trial of `bundle` begin; None: now.

    The bundle of the last trial may always go on. Times more than a day ahead of the clock are
    leftovers of a clock that was wrong, and hold nothing back.
    """
    if bundle == journal.tried:
        return None
    times = sorted(
        at for at in journal.trials if now_ms - GUARD_DAY_MS < at < now_ms + GUARD_DAY_MS
    )
    waits = [at + GUARD_GAP_MS for at in times[-1:]]
    if len(times) >= GUARD_PER_DAY:
        waits.append(times[-GUARD_PER_DAY] + GUARD_DAY_MS)
    until = max(waits, default=0)
    return until if until > now_ms else None
