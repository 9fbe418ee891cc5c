"""A rollout as people and programs are shown it.

It costs the same for a large fleet as for a small one, but for what returns after an abort.
"""

from __future__ import annotations

from typing import Any, Final

from control_plane.rollout.checking import version_of
from control_plane.rollout.phase import Counts, funnel, total
from control_plane.store import Store
from control_plane.store.rollouts import Rollout, WaveStory
from protocol.problems import problem
from protocol.wording import rfc3339

NAMED: Final = 5
"""So many devices that were not reached are named; the others are counted."""


def view(store: Store, rollout: Rollout, now_ms: int) -> dict[str, Any]:
    """The API body. `counts` are of the waves that have begun, `targeted` is of all devices."""
    counts = store.rollouts.members.counts(rollout.id)
    begun = total(counts.get(wave, Counts()) for wave in range(1, rollout.wave + 1))
    verdict = rollout.verdict or {}
    plan = store.plans.get(rollout.model)
    shown: dict[str, Any] = {
        "id": rollout.id,
        "model": rollout.model,
        "version": rollout.spec.version,
        "over": version_of(store, rollout.over),
        "candidate": rollout.candidate,
        "to": rollout.spec.to,
        "status": rollout.status,
        "attempt": rollout.attempt,
        "wave": rollout.wave,
        "waves": _waves(rollout, counts),
        "targeted": sum(each.all for each in counts.values()),
        "held": rollout.held,
        "excluded": rollout.excluded,
        "verdict": verdict.get("verdict"),
        "verdict_id": verdict.get("id"),
        "sentence": verdict.get("sentence", ""),
        "evidence": rollout.evidence or None,
        "gates": verdict.get("gates", []),
        "counts": funnel(begun),
        "reasons": store.rollouts.members.reasons(rollout.id),
        "control": _control(store, rollout, counts),
        "soak": _soak(rollout, now_ms),
        "shadow": _shadow(store, rollout),
        "not_reached": _not_reached(store, rollout, begun, now_ms),
        "waits_for": _waits_for(rollout),
        "why": rollout.why,
        "superseded_by": rollout.superseded_by or None,
        "plan": plan.number if plan else None,
        "started": rfc3339(rollout.started_ms),
        "ended": _moment(rollout.ended_ms),
    }
    if rollout.status == "aborted":
        shown["kept"] = rollout.kept
        shown["returning"] = _returning(store, rollout)
    if rollout.status == "completed":
        everyone = total(counts.values())
        shown["pending"] = everyone.all - everyone.judged
    return shown


def _waves(rollout: Rollout, counts: dict[int, Counts]) -> list[dict[str, Any]]:
    stories = {story.wave: story for story in rollout.history}
    shown = []
    for number, planned in enumerate(rollout.waves, start=1):
        story = stories.get(number)
        if number > rollout.wave:
            state = "waiting"
        else:
            state = "running" if number == rollout.wave and not rollout.ended else "done"
        shown.append(
            {
                "wave": number,
                "state": state,
                # As planned, with the waves before it; `counts` is of this wave alone, as it is.
                "devices": planned.devices,
                "soak_seconds": rollout.spec.soak_of(number),
                "approve": rollout.spec.waves[number - 1].approve,
                "counts": funnel(counts.get(number, Counts())),
                **_story(story),
            }
        )
    return shown


def _story(story: WaveStory | None) -> dict[str, Any]:
    """When a wave began and ended, and how it was judged last."""
    if story is None:
        return {"began": None, "ended": None, "verdict": None, "sentence": "", "evidence": None}
    return {
        "began": rfc3339(story.began_ms),
        "ended": _moment(story.ended_ms),
        "verdict": story.verdict or None,
        "sentence": story.sentence,
        "evidence": story.evidence or None,
    }


def _control(store: Store, rollout: Rollout, counts: dict[int, Counts]) -> dict[str, Any]:
    """Devices that wait for a later wave or are held back: what the others are compared with."""
    waiting = [each for wave, each in counts.items() if not 1 <= wave <= rollout.wave]
    together = Counts() if rollout.ended else total(waiting)
    return {
        "version": version_of(store, rollout.over),
        "devices": together.all,
        "reporting": together.waited_for,
    }


def _soak(rollout: Rollout, now_ms: int) -> dict[str, Any] | None:
    """Of the current wave; None where it has none, or the rollout has ended."""
    if rollout.wave == 0 or rollout.ended:
        return None
    seconds = rollout.spec.soak_of(rollout.wave)
    if not seconds:
        return None
    since_ms = rollout.soak_ms
    if since_ms is None:
        return {"seconds": seconds, "since": None, "left_seconds": None}
    left = max(0.0, seconds - (now_ms - since_ms) / 1000)
    return {"seconds": seconds, "since": rfc3339(since_ms), "left_seconds": left}


def _shadow(store: Store, rollout: Rollout) -> dict[str, Any] | None:
    """How far the current wave is with running beside; None where that is not asked for."""
    wanted = rollout.spec.shadow
    if wanted is None:
        return None
    found = store.shadows.total(rollout.id, rollout.wave)
    return {
        "active": rollout.shadowing,
        "rows_wanted": wanted.rows,
        "agreement_wanted": wanted.agreement,
        "devices": found.devices,
        "with_rows": found.with_rows,
        "rows": found.rows,
        "agreed": found.agreed,
    }


def _not_reached(store: Store, rollout: Rollout, begun: Counts, now_ms: int) -> dict[str, Any]:
    """How many devices of the waves so far know of nothing, and those that were heard last."""
    if begun.targeted == 0:
        return {"devices": 0, "newest": []}
    found = store.rollouts.not_reached(rollout.id, rollout.wave, NAMED)
    return {
        "devices": begun.targeted,
        "newest": [
            {
                "device": each.device,
                "last_contact": _moment(each.last_contact_ms),
                "silent_seconds": None
                if each.last_contact_ms is None
                else max(0, now_ms - each.last_contact_ms) / 1000,
            }
            for each in found
        ],
    }


def _waits_for(rollout: Rollout) -> dict[str, Any] | None:
    """What a person has to decide before it goes on: whether `wave` may begin, or activate."""
    if not rollout.asks:
        return None
    next_wave = rollout.wave if rollout.shadowing else rollout.wave + 1
    return {
        "code": rollout.asks,
        "wave": next_wave if next_wave <= len(rollout.waves) else None,
        "why": rollout.why,
        "help": problem(rollout.asks).help,
    }


def _returning(store: Store, rollout: Rollout) -> dict[str, int]:
    """After an abort: who had activated it, and serves something else again."""
    if rollout.kept:
        return {"confirmed": 0, "of": 0, "not_linked": 0}
    confirmed, of = store.rollouts.members.returned(rollout.id)
    away = store.rollouts.not_heard_since_end(rollout.id) if confirmed < of else 0
    return {"confirmed": confirmed, "of": of, "not_linked": away}


def _moment(at_ms: int | None) -> str | None:
    return rfc3339(at_ms) if at_ms is not None else None
