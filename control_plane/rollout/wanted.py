"""From the store's rows to the one plan of a model that they want."""

from __future__ import annotations

from control_plane.rollout import plan
from control_plane.store import Store
from control_plane.store.rollouts import Rollout
from protocol.identifiers import FleetName, ModelName
from protocol.plan import Plan


def wanted_plan(store: Store, fleet: FleetName, model: ModelName) -> Plan:
    """Without its numbers. Raises `InvalidRequest` OUT-S120 when that is more than a plan holds."""
    begun = [each for each in store.rollouts.active(model) if each.wave > 0]
    return plan.make_plan(
        fleet,
        model,
        stables(store, model),
        [going_of(each, each.wave) for each in begun],
        store.plans.ended(model),
        kept=[kept_of(each) for each in store.rollouts.kept(model)],
    )


def stables(store: Store, model: ModelName) -> tuple[plan.Stable, ...]:
    return tuple(plan.Stable(each.selector, each.stable) for each in store.plans.assignments(model))


def going_of(rollout: Rollout, wave: int) -> plan.Going:
    """A rollout as its plan has it in one of its waves, from 1."""
    shadow = rollout.spec.shadow if rollout.shadowing else None
    return plan.Going(
        rollout.selector,
        rollout.id,
        rollout.attempt,
        rollout.candidate,
        rollout.salt,
        rollout.as_of,
        rollout.waves[wave - 1].wave,
        plan_max_age_s=rollout.spec.plan_max_age_s,
        holdback=rollout.holdback,
        require_shadow=shadow is not None,
        shadow_rows=shadow.rows if shadow is not None else 0,
        window=rollout.spec.maintenance_windows,
    )


def kept_of(rollout: Rollout) -> plan.Going:
    """A rollout that has ended and whose devices stay with what they run."""
    return plan.Going(
        rollout.selector,
        rollout.id,
        rollout.attempt,
        rollout.candidate,
        rollout.salt,
        rollout.as_of,
        plan.NOBODY,
        plan_max_age_s=rollout.spec.plan_max_age_s,
    )
