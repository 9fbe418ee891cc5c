"""Moves a rollout on: the row, what follows from it, and the event that says who did it and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal

from control_plane.rollout import plan
from control_plane.rollout.spec import ENDED, TRANSITIONS, Status
from control_plane.rollout.wanted import stables
from control_plane.store import Store
from control_plane.store.plans import Assignment
from control_plane.store.rollouts import Rollout, WaveStory
from protocol.errors import InvalidRequest
from protocol.plan import Ended

GATE: Final = "gate"
TICKER: Final = "ticker"
"""Who did it, in the audit trail, where it was no person."""


def begin_wave(
    store: Store, rollout: Rollout, wave: int, now_ms: int, *, who: str, why: str = ""
) -> Rollout:
    """Its devices are asked from the next plan on. One transaction."""
    with store.write():
        story = _closed(rollout.history, now_ms)
        begun = dataclasses.replace(
            rollout,
            status="running",
            wave=wave,
            wave_ms=now_ms,
            soak_ms=None,
            shadowing=rollout.spec.shadow is not None,
            # What a person said was about the wave before.
            accepted=False,
            approved=False,
            asks="",
            why="",
            history=(*story, WaveStory(wave, now_ms)),
        )
        store.rollouts.put(begun)
        about = {
            "wave": wave,
            "of": len(rollout.waves),
            "devices": rollout.waves[wave - 1].devices,
            "shadowing": begun.shadowing,
        }
        store.happened(
            who,
            rollout.topic,
            "rollout.wave",
            about,
            now_ms,
            before=rollout.wave,
            after=wave,
            why=why,
            evidence=rollout.evidence,
        )
    return begun


def lift_shadow(store: Store, rollout: Rollout, now_ms: int, why: str) -> Rollout:
    """Devices of the wave may activate what they have run beside the current version."""
    with store.write():
        lifted = dataclasses.replace(
            rollout, shadowing=False, history=_newest(rollout.history, lifted_ms=now_ms)
        )
        store.rollouts.put(lifted)
        store.happened(
            GATE,
            rollout.topic,
            "rollout.shadowed",
            {"wave": rollout.wave},
            now_ms,
            before="shadowing",
            after="activating",
            why=why,
            evidence=rollout.evidence,
        )
    return lifted


def start_soak(store: Store, rollout: Rollout, now_ms: int) -> Rollout:
    """As many devices have activated as the wave is judged from: its soak counts from now on."""
    soaking = dataclasses.replace(
        rollout, soak_ms=now_ms, history=_newest(rollout.history, soak_ms=now_ms)
    )
    store.rollouts.put(soaking)
    return soaking


def move(
    store: Store,
    rollout: Rollout,
    status: Status,
    now_ms: int,
    *,
    who: str,
    why: str = "",
    asks: str = "",
    keep: bool = False,
    superseded_by: str = "",
    about: Mapping[str, Any] | None = None,
) -> Rollout:
    """One transaction. Raises `InvalidRequest`: OUT-R202 (it has ended), OUT-R204 (not from here).

    Completed: the candidate is stable for the selector, and what earlier rollouts of the model
    left behind follows the plan again. Aborted: what was stable still is; with `keep`, devices
    that run the candidate stay with it. `asks`: the problem code of what a person has to decide.
    """
    if rollout.ended:
        raise InvalidRequest("OUT-R202", f"{rollout.id} is {rollout.status}")
    if status not in TRANSITIONS[rollout.status]:
        raise InvalidRequest("OUT-R204", f"{rollout.id} is {rollout.status}")
    moved = dataclasses.replace(rollout, status=status, why=why, asks=asks)
    with store.write():
        if status in ENDED:
            moved = dataclasses.replace(
                moved,
                ended_ms=now_ms,
                shadowing=False,
                # Before its first wave no device has heard of it, so none has anything to keep.
                kept=keep and status == "aborted" and rollout.wave > 0,
                superseded_by=superseded_by,
                history=_closed(rollout.history, now_ms),
            )
            store.rollouts.members.freeze(rollout.id)
            if rollout.wave > 0:
                end = _END[status]
                store.plans.set_ended(rollout.model, Ended(rollout.id, rollout.candidate, end))
        if status == "completed":
            _make_stable(store, rollout)
            store.rollouts.release(rollout.model)
        store.rollouts.put(moved)
        said: dict[str, Any] = {"wave": rollout.wave, **(about or {})}
        if status == "aborted":
            said["keep"] = moved.kept
        if asks:
            said["asks"] = asks
        if superseded_by:
            said["superseded_by"] = superseded_by
        store.happened(
            who,
            rollout.topic,
            f"rollout.{_EVENT[status]}",
            said,
            now_ms,
            before=rollout.status,
            after=status,
            why=why,
            evidence=rollout.evidence,
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


def judged(rollout: Rollout, verdict: Mapping[str, Any], evidence: str) -> Rollout:
    """With its newest verdict, also in the story of its wave."""
    said = {name: verdict[name] for name in ("verdict", "id", "sentence")}
    return dataclasses.replace(
        rollout,
        verdict=dict(verdict),
        evidence=evidence,
        history=_newest(rollout.history, **said, evidence=evidence),
    )


def _newest(history: tuple[WaveStory, ...], **changes: Any) -> tuple[WaveStory, ...]:
    if not history:
        return ()
    return (*history[:-1], dataclasses.replace(history[-1], **changes))


def _closed(history: tuple[WaveStory, ...], now_ms: int) -> tuple[WaveStory, ...]:
    return _newest(history, ended_ms=now_ms)


def _make_stable(store: Store, rollout: Rollout) -> None:
    after = plan.completed(stables(store, rollout.model), rollout.selector, rollout.candidate)
    store.plans.assign(rollout.model, [Assignment(each.selector, each.digest) for each in after])
