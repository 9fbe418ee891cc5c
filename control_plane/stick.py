"""What belongs on a stick for these devices: plans, bundles, variants, payloads.

Decides with `resolve()`, the same reading of plans that devices use: a device finds on the stick
what the plan leads it to, and what it would fall back to. Reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane.rollout.plan import terms
from protocol.approval import Approvals
from protocol.bundle import Facts, Index, Needs
from protocol.device import DeviceDocument
from protocol.identifiers import Digest, ModelName
from protocol.payload import PLAIN_FEATURES, HintEntry
from protocol.plan import Local, Plan, resolve
from protocol.reported import ModelState
from protocol.selector import matches


@dataclass(frozen=True, slots=True)
class Carried:
    """One device that the stick is for, as the control plane knows it."""

    document: DeviceDocument
    facts: Facts = Facts()
    """Empty: it has not said yet what it is."""
    models: Mapping[ModelName, ModelState] | None = None
    """As it last reported them; None: it was never heard."""

    def state(self, model: ModelName) -> ModelState:
        return (self.models or {}).get(model, ModelState())


@dataclass(frozen=True, slots=True)
class Wanted:
    """One bundle that belongs on the stick, and what the devices are that want it."""

    bundle: Digest
    model: ModelName
    facts: frozenset[Facts]


def plans_for(devices: Iterable[Carried], plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Plans that concern any of the devices: whose selector matches, or whose model it has."""
    devices = tuple(devices)
    return tuple(plan for plan in plans if any(_concerns(plan, each) for each in devices))


def bundles_for(
    devices: Iterable[Carried],
    plans: Iterable[Plan],
    approvals: Approvals,
    denied: frozenset[Digest],
    fallback_of: Callable[[Digest], Digest | None],
    now_ms: int,
) -> tuple[Wanted, ...]:
    """Everything that plan or pins lead these devices to, and the signed fallbacks of that.

    `fallback_of` tells the fallback in a bundle's policy. What is not approved, revoked or denied
    is left out: a device would refuse it.
    """
    by_model = {plan.model: plan for plan in plans}
    found: dict[Digest, Wanted] = {}
    for device in devices:
        for model in sorted({*by_model, *device.document.pins}):
            for bundle in _headed_for(
                device, by_model.get(model), model, approvals, denied, now_ms
            ):
                for each in _with_fallbacks(bundle, approvals, denied, fallback_of):
                    facts = found[each].facts if each in found else frozenset()
                    found[each] = Wanted(each, approvals[each].model, facts | {device.facts})
    return tuple(found[bundle] for bundle in sorted(found))


def variants_for(index: Index, facts: Iterable[Facts]) -> tuple[Digest, ...]:
    """Manifests of the variants that devices with these facts choose; all of them for a device
    that has not said what it is."""
    chosen: set[Digest] = set()
    for each in facts:
        if each == Facts():
            chosen.update(variant.digest for variant in index.variants)
        elif (variant := index.choose(each)) is not None:
            chosen.add(variant.digest)
    return tuple(v.digest for v in index.variants if v.digest in chosen)


def entries_for(entries: Sequence[HintEntry], bases: Collection[Digest]) -> tuple[HintEntry, ...]:
    """Payloads of one file: deltas whose base a device has, the smallest full one, and the
    smallest that every agent can read, since nobody knows who else will meet the stick.

    Empty if there is no full one: then the stick would be of use to nobody new.
    """
    full = sorted((e for e in entries if e.base is None), key=lambda e: e.size)
    plain = [e for e in full if not e.features & ~PLAIN_FEATURES]
    if not full:
        return ()
    deltas = (e for e in entries if e.base is not None and e.base in bases)
    return tuple(dict.fromkeys((*deltas, full[0], *plain[:1])))


def bundles_held(devices: Iterable[Carried]) -> frozenset[Digest]:
    """What the devices said they have: deltas may start from it."""
    held = {
        bundle
        for device in devices
        for state in (device.models or {}).values()
        for bundle in (state.current, state.previous)
        if bundle is not None
    }
    return frozenset(held)


def _concerns(plan: Plan, device: Carried) -> bool:
    mine = matches(terms(plan).selector, device.document.selectable)
    return mine or plan.model in (device.models or {})


def _headed_for(
    device: Carried,
    plan: Plan | None,
    model: ModelName,
    approvals: Approvals,
    denied: frozenset[Digest],
    now_ms: int,
) -> tuple[Digest, ...]:
    state = device.state(model)
    local = Local(
        now_ms,
        device.facts,
        current=state.current,
        previous=state.previous,
        trial=state.serving if state.serving != state.current else None,
    )
    known = approvals if device.facts != Facts() else _without_needs(approvals)
    resolution = resolve(plan, device.document, known, denied, local, model)
    return tuple(candidate.digest for candidate in resolution.candidates)


def _without_needs(approvals: Approvals) -> Approvals:
    """Nobody is unfit as long as nobody knows what it is."""
    return {
        digest: replace(bundle, terms=replace(bundle.terms, needs=Needs()))
        for digest, bundle in approvals.items()
    }


def _with_fallbacks(
    bundle: Digest,
    approvals: Approvals,
    denied: frozenset[Digest],
    fallback_of: Callable[[Digest], Digest | None],
) -> tuple[Digest, ...]:
    found: list[Digest] = []
    each: Digest | None = bundle
    while each is not None and each not in found:
        approved = approvals.get(each)
        if approved is None or approved.revoked or each in denied:
            break
        found.append(each)
        each = fallback_of(each)
    return tuple(found)
