"""What is looked at before a rollout may start: its version, its devices, and who has them now."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from control_plane.fleet.devices import asked_runs, with_runs
from control_plane.rollout import plan
from control_plane.rollout.fitness import features_of
from control_plane.rollout.spec import RolloutSpec
from control_plane.rollout.targets import Chosen, choose, needs_of
from control_plane.rollout.wanted import going_of, kept_of, stables
from control_plane.store import Store
from control_plane.store.bundles import BundleRow
from control_plane.store.devices import Device
from control_plane.store.rollouts import Rollout
from protocol.approval import Approvals
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, FleetName, ModelName, Version
from protocol.selector import Selector, matches
from protocol.wording import duration

STATE_INTERVAL_S: Final = 3600
"""Between two reports of a device whose document does not say otherwise."""


def find(store: Store, id: str) -> Rollout:
    """Raises `InvalidRequest` OUT-S110."""
    found = store.rollouts.get(id)
    if found is None:
        known = [each.id for each in store.rollouts.page(limit=200).items]
        raise not_found(f"no rollout named {id}", id, known)
    return found


def usable(store: Store, model: ModelName, version: Version) -> BundleRow:
    """A version that devices may be sent. Raises `InvalidRequest`: OUT-S110, T104, T105."""
    if store.bundles.count(model) == 0:
        raise not_found(f"no model named {model}", model, store.bundles.models())
    bundle = store.bundles.version(model, version)
    if bundle is None:
        raise not_found(f"no version {version} of {model}", version, _versions(store, model))
    draft = bundle.state == "draft"
    if bundle.state not in ("approved", "revoked"):
        raise InvalidRequest(
            "OUT-T104",
            f"{bundle.reference} is {'a draft' if draft else bundle.state}",
            do=f"an approver runs: outrider model approve {bundle.reference}" if draft else "",
        )
    if bundle.state == "revoked":
        because = f": {bundle.why}" if bundle.why else ""
        raise InvalidRequest("OUT-T105", f"{bundle.reference} was revoked by approvers{because}")
    if any(each.digest == bundle.digest for each in store.plans.denied()):
        raise InvalidRequest("OUT-T105", f"{bundle.reference} is denied by an operator")
    return bundle


def not_found(why: str, name: str, known: Sequence[str]) -> InvalidRequest:
    similar = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return InvalidRequest("OUT-S110", why, do=f"a similar name: {similar[0]}" if similar else "")


def chosen_of(
    devices: Iterable[Device],
    spec: RolloutSpec,
    selector: Selector | None,
    candidate: Digest,
    approvals: Approvals,
    now_ms: int,
) -> Chosen:
    """Devices that would change. Raises `InvalidRequest` OUT-R203 if none would."""
    needs = needs_of(approvals, candidate)
    features = features_of(spec)
    chosen = choose(devices, selector, spec.model, candidate, needs, now_ms, features=features)
    if not chosen.targets:
        raise nothing_would_change(chosen)
    return chosen


def nothing_would_change(chosen: Chosen) -> InvalidRequest:
    matched = len(chosen.targets) + sum(chosen.excluded.values())
    others = [f"{number} {why}" for why, number in chosen.excluded.items()]
    if chosen.targets:
        others.insert(0, f"{len(chosen.targets)} already there")
    because = f": {', '.join(others)}" if others else ""
    return InvalidRequest("OUT-R203", f"{matched} devices match{because}")


def as_running(store: Store, device: Device, selector: Selector | None) -> Device:
    """The device with labels for what a selector asks with `runs.m`, frozen as of now."""
    asked = asked_runs(selector)
    if not asked:
        return device
    states = device.state.models if device.state else {}
    runs = [
        (model, version_of(store, states[model].serving if model in states else None))
        for model in sorted(asked)
    ]
    return dataclasses.replace(device, labels=with_runs(device, runs))


def version_of(store: Store, bundle: Digest | None) -> str | None:
    row = store.bundles.get(bundle) if bundle is not None else None
    return row.version if row is not None else None


def over_of(store: Store, model: ModelName, targets: Iterable[Device]) -> Digest | None:
    """What is stable now for most of the targets."""
    assigned = stables(store, model)
    found: Counter[Digest] = Counter()
    for device in targets:
        for each in assigned:
            if matches(each.selector, device.selectable):
                found[each.digest] += 1
                break
    return found.most_common(1)[0][0] if found else None


def refuse_other_number(targets: Sequence[Device], expected: int | None) -> None:
    """Raises `InvalidRequest` OUT-R206 when it is not as many as whoever asks has seen."""
    if expected is not None and len(targets) != expected:
        raise InvalidRequest("OUT-R206", f"{len(targets)} devices match now, not {expected}")


def longest_interval_s(targets: Iterable[Device]) -> int:
    """The longest time that one of the devices may take between two reports.

    Devices of a development fleet live faster, and are there to be played with: they are not
    looked at.
    """
    return max(
        (
            each.settings.state_interval_s or STATE_INTERVAL_S
            for each in targets
            if each.state is None or not each.state.dev
        ),
        default=0,
    )


def refuse_hasty_silence(targets: Sequence[Device], spec: RolloutSpec) -> None:
    """Raises `InvalidRequest` OUT-R212 when a device that is well could be called silent."""
    longest_s = longest_interval_s(targets)
    if spec.silent_after_s < 2 * longest_s:
        raise InvalidRequest(
            "OUT-R212",
            f"silent_after is {duration(spec.silent_after_s)}; "
            f"devices of this rollout report every {duration(longest_s)}",
            do=f"silent_after: {2 * longest_s}s, or a shorter state_interval_s for these devices",
        )


def in_the_way(
    store: Store, model: ModelName, targets: Iterable[Device]
) -> tuple[tuple[Rollout, int], ...]:
    """Active rollouts that have some of these devices, and how many of them."""
    ids = [device.id for device in targets]
    found = (
        (other, store.rollouts.members.overlap(other.id, ids))
        for other in store.rollouts.active(model)
    )
    return tuple((other, shared) for other, shared in found if shared)


def refuse_overlap(store: Store, model: ModelName, targets: Sequence[Device]) -> None:
    """Raises `InvalidRequest` OUT-R201 for the first active rollout that has some of these."""
    for other, shared in in_the_way(store, model, targets):
        raise InvalidRequest(
            "OUT-R201",
            f"{shared} of your {len(targets)} devices are in {other.id} "
            f"({other.status}, wave {other.wave} of {len(other.waves)})",
            do=f"abort {other.id}, or supersede it: --supersede {other.id}",
        )


def refuse_oversize(store: Store, fleet: FleetName, rollout: Rollout) -> None:
    """Raises `InvalidRequest` OUT-S120 unless the plan has room for every wave, and the end."""
    assigned = stables(store, rollout.model)
    others = [
        going_of(each, max(1, each.wave)) for each in store.rollouts.active(rollout.model)
    ]  # fmt: skip
    kept = [kept_of(each) for each in store.rollouts.kept(rollout.model)]
    for wave in range(1, len(rollout.waves) + 1):
        going = [*others, going_of(rollout, wave)]
        plan.make_plan(fleet, rollout.model, assigned, going, None, kept)
    after = plan.completed(assigned, rollout.selector, rollout.candidate)
    plan.make_plan(fleet, rollout.model, after, others, None, kept)


def _versions(store: Store, model: ModelName) -> list[Version]:
    return [each.version for each in store.bundles.page(model, limit=200).items]
