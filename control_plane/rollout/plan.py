"""From what is stable and what rolls out to the one signed plan of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol import codec
from protocol.device import TransferWindow
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, FleetName, ModelName
from protocol.plan import (
    MAX_RULES,
    Ended,
    HealthOverride,
    Plan,
    PlanTerms,
    Rollout,
    Rule,
    Wave,
)
from protocol.selector import MAX_NODES, Selector, union

_PLAN: Final = ("plan/1", "selector/1")
_TERMS: Final = ("selector/1",)
WINDOW: Final = "window/1"
SHADOW: Final = "shadow/1"
NOBODY: Final = Wave(0)
"""Takes no device; one that runs the candidate keeps it."""


@dataclass(frozen=True, slots=True)
class Stable:
    """Devices of a selector (None: all) run `digest`; the first that matches counts."""

    selector: Selector | None
    digest: Digest


@dataclass(frozen=True, slots=True)
class Going:
    """A rollout that has begun, with the wave it is in."""

    selector: Selector | None
    id: str
    attempt: int
    candidate: Digest
    salt: str
    as_of: int
    wave: Wave
    plan_max_age_s: int = 86_400
    holdback: int = 0
    """Threshold of the control cohort at the upper end of positions."""
    require_shadow: bool = False
    shadow_rows: int = 0
    window: tuple[TransferWindow, ...] = ()
    health: HealthOverride = HealthOverride()

    @property
    def features(self) -> tuple[str, ...]:
        """What an agent must know beyond plans as such, since ignoring it would activate."""
        used = (SHADOW if self.require_shadow else "", WINDOW if self.window else "")
        return tuple(each for each in used if each)


def make_plan(
    fleet: FleetName,
    model: ModelName,
    stables: Sequence[Stable],
    going: Sequence[Going],
    ended: Ended | None,
    kept: Sequence[Going] = (),
) -> Plan:
    """The plan without its numbers (version 0, number 0); see `numbered`.

    A rollout's rules come before those of what is stable: one per stable bundle that it goes
    over, so that a device that returns finds its own. `kept` are rollouts that have ended and
    whose devices stay with the candidate: they take nobody, and come last. Raises
    `InvalidRequest` OUT-S120 when that is more than a plan holds.
    """
    rules: list[Rule] = []
    for each in going:
        rules.extend(_rules(each, stables))
    for stable in stables:
        rules.append(Rule(stable.selector, stable.digest))
        if stable.selector is None:
            break
    rules.extend(Rule(each.selector, None, _rollout(each)) for each in kept)
    if len(rules) > MAX_RULES:
        raise InvalidRequest("OUT-S120", f"{model} has more than {MAX_RULES} rules: too many parts")
    features = {feature for each in (*going, *kept) for feature in each.features}
    plan = Plan(fleet, model, 0, 0, tuple(rules), ended, (*_PLAN, *sorted(features)))
    if len(codec.encode(plan)) > codec.MAX_PLAN - 64:
        raise InvalidRequest("OUT-S120", f"the plan of {model} is larger than 64 KiB")
    return plan


def terms(plan: Plan) -> PlanTerms:
    """Whom a plan concerns, and what it needs of them."""
    needed = tuple(name for name in plan.must_understand if name not in _PLAN)
    return PlanTerms(union([rule.selector for rule in plan.rules]), (*_TERMS, *needed))


def numbered(plan: Plan, before: Plan | None, now_ms: int) -> Plan | None:
    """The plan with its version and number; None if it says what `before` says.

    Versions are max(previous + 1, Unix minutes).
    """
    if before is not None and content(plan) == content(before):
        return None
    version, number = (before.version, before.number) if before else (0, 0)
    return dataclasses.replace(plan, version=max(version + 1, now_ms // 60_000), number=number + 1)


def content(plan: Plan) -> bytes:
    return codec.encode(dataclasses.replace(plan, version=0, number=0))


def completed(
    stables: Sequence[Stable], selector: Selector | None, candidate: Digest
) -> tuple[Stable, ...]:
    """What is stable once a rollout to `selector` has completed."""
    if selector is None:
        return (Stable(None, candidate),)
    kept: list[Stable] = []
    for stable in stables:
        if stable.selector != selector:
            kept.append(stable)
    merged = [Stable(selector, candidate), *kept]
    # A rule right before a general one that says the same is not needed.
    while (
        len(merged) > 1 and merged[-1].selector is None and merged[-2].digest == merged[-1].digest
    ):
        del merged[-2]
    return tuple(merged)


def _rules(going: Going, stables: Sequence[Stable]) -> list[Rule]:
    rollout = _rollout(going)
    rules: list[Rule] = []
    for stable in stables:
        selector = both(stable.selector, going.selector)
        rules.append(Rule(selector, stable.digest, rollout))
        if selector == going.selector:
            return rules
    return [*rules, Rule(going.selector, None, rollout)]


def _rollout(going: Going) -> Rollout:
    return Rollout(
        going.id,
        going.attempt,
        going.candidate,
        going.salt,
        going.as_of,
        going.wave,
        going.holdback,
        going.require_shadow,
        going.window,
        going.plan_max_age_s,
        going.health,
        going.shadow_rows,
    )


def both(one: Selector | None, other: Selector | None) -> Selector | None:
    """Devices that both select. Raises `InvalidRequest` OUT-S120 when that is too large to say."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if 1 + one.size + other.size > MAX_NODES:
        raise InvalidRequest("OUT-S120", "the selector and those in force are too large together")
    return Selector("and", of=(one, other))
