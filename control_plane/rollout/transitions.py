"""Moves a rollout from one status to the next: the row, what follows from it, and the event."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal

from control_plane.rollout import plan
from control_plane.rollout.spec import ENDED, TRANSITIONS, Status
from control_plane.store import Store
from control_plane.store.plans import Assignment
from control_plane.store.rollouts import Rollout
from protocol.errors import InvalidRequest
from protocol.plan import Ended


def move(
    store: Store,
    rollout: Rollout,
    status: Status,
    now_ms: int,
    *,
    who: str,
    why: str = "",
    evidence: str = "",
    quiet_before_ms: int = 0,
    about: Mapping[str, Any] | None = None,
) -> Rollout:
    """One transaction. Raises `InvalidRequest`: OUT-R202 (it has ended), OUT-R204 (not from here).

    Completed: the candidate is stable for the selector. Aborted: what was stable still is.
    """
    if rollout.ended:
        raise InvalidRequest("OUT-R202", f"{rollout.id} is {rollout.status}")
    if status not in TRANSITIONS[rollout.status]:
        raise InvalidRequest("OUT-R204", f"{rollout.id} is {rollout.status}")
    moved = dataclasses.replace(rollout, status=status, why=why)
    with store.write():
        if status in ENDED:
            moved = dataclasses.replace(moved, ended_ms=now_ms)
            store.rollouts.members.freeze(rollout.id, quiet_before_ms)
            # Before its first wave no device has heard of it, so none needs to hear of its end.
            if rollout.wave > 0:
                end = _END[status]
                store.plans.set_ended(rollout.model, Ended(rollout.id, rollout.candidate, end))
        if status == "completed":
            _make_stable(store, rollout)
        store.rollouts.put(moved)
        data = {"wave": rollout.wave, **(about or {})}
        store.happened(
            who,
            rollout.topic,
            f"rollout.{_EVENT[status]}",
            data,
            now_ms,
            before=rollout.status,
            after=status,
            why=why,
            evidence=evidence,
        )
    return moved


_END: Final[dict[Status, Literal["completed", "aborted"]]] = {
    "completed": "completed",
    "aborted": "aborted",
}
_EVENT: Final[dict[Status, str]] = {
    "preparing": "resumed",
    "running": "resumed",
    "paused": "paused",
    "completed": "completed",
    "aborted": "aborted",
}


def stables(store: Store, model: str) -> tuple[plan.Stable, ...]:
    return tuple(plan.Stable(each.selector, each.stable) for each in store.plans.assignments(model))


def _make_stable(store: Store, rollout: Rollout) -> None:
    after = plan.completed(stables(store, rollout.model), rollout.selector, rollout.candidate)
    store.plans.assign(rollout.model, [Assignment(each.selector, each.digest) for each in after])
