"""What a device holds against bundles, what lifts it, and how often it may try something new.

A definite denial yields to a greater rollout attempt, to a greater number in the document's
`allow`, and, for reasons of loading and probing, to another agent version. A pin never lifts one.
An unclear reason only keeps a bundle away for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edge_agent.journal import Journal, Note, Revocation
from protocol.approval import Approvals
from protocol.identifiers import Digest

DISK_FULL: Final = "OUT-D201"
PROBE: Final = "OUT-D301"
CONTRACT: Final = "OUT-D302"
HEALTH: Final = "OUT-D310"
CRASHES: Final = "OUT-D311"
INTERRUPTED: Final = "OUT-D312"
TIMEOUT: Final = "OUT-D313"
SUPERSEDED: Final = "OUT-D314"
REVOKED: Final = "OUT-D315"
CORRUPT: Final = "OUT-D316"
RESCUED: Final = "OUT-D320"
GUARDED: Final = "OUT-D340"
NO_MODEL: Final = "OUT-D350"

DEFINITE: Final = frozenset({PROBE, CONTRACT, HEALTH, CRASHES})
"""Reasons that speak about the bundle itself; all others may pass."""

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
