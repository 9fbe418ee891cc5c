"""A rollout as people and programs are shown it."""

from __future__ import annotations

from typing import Any

from control_plane.rollout.phase import Counts, funnel, total
from control_plane.store import Store
from control_plane.store.rollouts import Rollout
from protocol.identifiers import Digest
from protocol.wording import rfc3339


def view(store: Store, rollout: Rollout, quiet_before_ms: int) -> dict[str, Any]:
    """The API body. `counts` are of the waves that have begun, `targeted` is of all.

    `quiet_before_ms`: no contact since then is silence (0: nobody is).
    """
    counts = store.rollouts.members.counts(rollout.id, 0 if rollout.ended else quiet_before_ms)
    begun = total(each for wave, each in counts.items() if wave <= rollout.wave)
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
        "excluded": rollout.excluded,
        "verdict": verdict.get("verdict"),
        "sentence": verdict.get("sentence", ""),
        "counts": funnel(begun),
        "reasons": store.rollouts.members.reasons(rollout.id),
        "why": rollout.why,
        "plan": plan.number if plan else None,
        "started": rfc3339(rollout.started_ms),
        "ended": rfc3339(rollout.ended_ms) if rollout.ended_ms is not None else None,
    }
    if rollout.status == "aborted":
        confirmed, of = store.rollouts.members.returned(rollout.id)
        shown["returning"] = {"confirmed": confirmed, "of": of}
    if rollout.status == "completed":
        shown["pending"] = begun.all - begun.judged
    return shown


def version_of(store: Store, bundle: Digest | None) -> str | None:
    row = store.bundles.get(bundle) if bundle is not None else None
    return row.version if row is not None else None


def _waves(rollout: Rollout, counts: dict[int, Counts]) -> list[dict[str, Any]]:
    shown = []
    for number, planned in enumerate(rollout.waves, start=1):
        mine = counts.get(number, Counts())
        if number > rollout.wave or rollout.wave == 0:
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
                "counts": funnel(mine),
            }
        )
    return shown
