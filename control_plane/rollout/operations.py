"""What operators do with rollouts. Each call checks, writes, and returns the rollout's view."""

from __future__ import annotations

import dataclasses
from typing import Any

from control_plane.rollout.checking import find
from control_plane.rollout.phase import total
from control_plane.rollout.spec import Status
from control_plane.rollout.starting import preview_return, return_to, start_rollout
from control_plane.rollout.transitions import begin_wave, move
from control_plane.rollout.view import view
from control_plane.store import Store
from control_plane.store.rollouts import Rollout
from protocol.errors import InvalidRequest

__all__ = [
    "abort", "approve", "find", "pause", "preview_return", "promote", "resume", "retry",
    "return_to", "start_rollout", "status",
]  # fmt: skip

APPROVAL = "OUT-R205"
"""What a rollout asks when its next wave waits for a person; see `Rollout.asks`."""


def pause(store: Store, id: str, now_ms: int, why: str = "", *, who: str) -> dict[str, Any]:
    """No further wave; devices go on with what they have begun. Raises `InvalidRequest`."""
    with store.write():
        paused = move(store, find(store, id), "paused", now_ms, who=who, why=why)
        return view(store, paused, now_ms)


def resume(store: Store, id: str, now_ms: int, why: str = "", *, who: str) -> dict[str, Any]:
    """Go on after a pause; where the wave was unproven, go on all the same.

    Raises `InvalidRequest`: OUT-R202, OUT-R204 (not paused), OUT-R205 (it waits for approval, and
    would at once do so again).
    """
    with store.write():
        rollout = find(store, id)
        if not rollout.ended and rollout.status != "paused":
            raise InvalidRequest("OUT-R204", f"{id} is {rollout.status}")
        if rollout.asks == APPROVAL:
            raise InvalidRequest("OUT-R205", f"wave {rollout.wave + 1} of {id} waits for a person")
        accepted = rollout.accepted or (bool(rollout.asks) and not _failed(rollout))
        to: Status = "running" if rollout.wave else "preparing"
        goes_on = dataclasses.replace(rollout, accepted=accepted)
        return view(store, move(store, goes_on, to, now_ms, who=who, why=why), now_ms)


def promote(store: Store, id: str, now_ms: int, why: str = "", *, who: str) -> dict[str, Any]:
    """The next wave now, whatever was measured so far; after the last one: complete.

    Raises `InvalidRequest`: OUT-R202 (it has ended), OUT-R208 (it has not begun, or it failed).
    """
    with store.write():
        rollout = find(store, id)
        if rollout.ended:
            raise InvalidRequest("OUT-R202", f"{id} is {rollout.status}")
        if rollout.wave == 0 and rollout.asks != APPROVAL:
            raise InvalidRequest(
                "OUT-R208",
                f"{id} has not begun: wave 1 starts once its bundle lies with the broker",
                do=f"outrider rollout resume {id}" if rollout.status == "paused" else "wait for it",
            )
        if _failed(rollout):
            said = (rollout.verdict or {}).get("sentence", "")
            raise InvalidRequest(
                "OUT-R208", f"{id} has failed: {said}", do=f"abort it: outrider rollout abort {id}"
            )
        return view(store, _onwards(store, rollout, now_ms, who, why), now_ms)


def approve(store: Store, id: str, now_ms: int, why: str = "", *, who: str) -> dict[str, Any]:
    """Let a wave begin that waits for a person, or activate what has only run beside so far.

    Raises `InvalidRequest`: OUT-R202, OUT-R204 (nothing of it waits), OUT-R208 (it failed).
    """
    with store.write():
        rollout = find(store, id)
        if not rollout.ended and not rollout.asks:
            raise InvalidRequest(
                "OUT-R204",
                f"{id} does not wait for a person: it is {rollout.status}",
                do=f"to go on without waiting: outrider rollout promote {id}",
            )
        if rollout.shadowing:
            return resume(store, id, now_ms, why, who=who)
        return promote(store, id, now_ms, why, who=who)


def abort(
    store: Store, id: str, now_ms: int, why: str = "", *, who: str, keep: bool = False
) -> dict[str, Any]:
    """Every device goes back to what was stable, from its own disk; with `keep`, those that run
    the candidate stay with it and no other gets it. Raises `InvalidRequest` OUT-R202."""
    with store.write():
        aborted = move(store, find(store, id), "aborted", now_ms, who=who, why=why, keep=keep)
        return view(store, aborted, now_ms)


def retry(store: Store, id: str, now_ms: int, why: str = "", *, who: str) -> dict[str, Any]:
    """Devices that gave the candidate up try it again: what they hold against it is lifted.

    Raises `InvalidRequest`: OUT-R202 (it has ended), OUT-R207 (no device has given up).
    """
    with store.write():
        rollout = find(store, id)
        if rollout.ended:
            raise InvalidRequest(
                "OUT-R202",
                f"{id} is {rollout.status}",
                do="start it again, a new rollout has a higher attempt: "
                f"outrider rollout start {rollout.model}/{rollout.spec.version}",
            )
        counts = total(store.rollouts.members.counts(id).values())
        gave_up = counts.failed + counts.rolled_back
        if gave_up == 0:
            raise InvalidRequest("OUT-R207", f"{counts.ever_reached} devices of {id} were reached")
        attempt = store.rollouts.next_attempt(rollout.candidate)
        # What was judged of the attempt before says nothing of this one.
        again = dataclasses.replace(rollout, attempt=attempt, verdict=None, soak_ms=None, asks="")
        store.rollouts.put(again)
        store.rollouts.members.again(id, now_ms)
        store.shadows.forget(id)
        store.happened(
            who,
            rollout.topic,
            "rollout.retried",
            {"wave": rollout.wave, "devices": gave_up},
            now_ms,
            before=rollout.attempt,
            after=attempt,
            why=why,
            evidence=rollout.evidence,
        )
        return view(store, again, now_ms)


def status(store: Store, id: str, now_ms: int) -> dict[str, Any]:
    """Raises `InvalidRequest` OUT-S110."""
    return view(store, find(store, id), now_ms)


def _failed(rollout: Rollout) -> bool:
    return (rollout.verdict or {}).get("verdict") == "fail"


def _onwards(store: Store, rollout: Rollout, now_ms: int, who: str, why: str) -> Rollout:
    if rollout.wave == 0:
        # It still has to be published: the ticker begins as soon as everything lies ready.
        allowed = dataclasses.replace(rollout, approved=True)
        return move(store, allowed, "preparing", now_ms, who=who, why=why)
    if rollout.wave < len(rollout.waves):
        return begin_wave(store, rollout, rollout.wave + 1, now_ms, who=who, why=why)
    return move(store, rollout, "completed", now_ms, who=who, why=why)
