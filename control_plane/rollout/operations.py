"""What operators do with rollouts. Each call checks, writes, and returns the rollout's view."""

from __future__ import annotations

import dataclasses
import difflib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from control_plane.fleet import grammar
from control_plane.fleet.devices import asked_runs, with_runs
from control_plane.rollout import plan
from control_plane.rollout.spec import RolloutSpec, Status
from control_plane.rollout.targets import Chosen, as_member, choose, needs_of
from control_plane.rollout.transitions import move, stables
from control_plane.rollout.view import version_of, view
from control_plane.rollout.waves import Target, plan_waves
from control_plane.store import Store
from control_plane.store.bundles import BundleRow
from control_plane.store.devices import Device
from control_plane.store.rollouts import Rollout
from protocol.approval import Approvals
from protocol.codec import to_wire
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, FleetName, ModelName, Version
from protocol.selector import Selector, matches

Salt = Callable[[], str]
"""32 lower-case hex digits, new each time."""


def new_salt() -> str:
    return secrets.token_hex(16)


ACCEPTED = "accepted"
"""Member of a verdict that an operator has overruled."""


def preview(
    store: Store, spec: RolloutSpec, approvals: Approvals, now_ms: int, salt: Salt = new_salt
) -> dict[str, Any]:
    """What `start_rollout` would do now. Raises the same; changes nothing."""
    bundle = _usable(store, spec)
    selector = grammar.parse(spec.to)
    devices = [_as_running(store, device, selector) for device in store.devices.all()]
    chosen = _chosen(devices, spec, selector, bundle.digest, approvals, now_ms)
    planned = plan_waves(spec.waves, _targets(chosen), salt())
    over = _over(store, spec.model, chosen)
    return {
        "model": spec.model,
        "version": spec.version,
        "over": version_of(store, over),
        "to": grammar.format(selector),
        "matched": len(chosen.targets) + sum(chosen.excluded.values()),
        "targeted": len(chosen.targets),
        "excluded": chosen.excluded,
        "waves": [
            {"wave": n, "devices": each.devices, "soak_seconds": spec.soak_of(n)}
            for n, each in enumerate(planned, start=1)
        ],
        "bundle_size_bytes": bundle.size_bytes,
    }


def start_rollout(
    store: Store,
    fleet: FleetName,
    spec: RolloutSpec,
    approvals: Approvals,
    now_ms: int,
    salt: Salt = new_salt,
    *,
    who: str,
) -> dict[str, Any]:
    """Write a rollout in status `preparing`; the ticker does the rest.

    Raises `InvalidRequest`: OUT-S110 unknown model or version, OUT-T104 not approved, OUT-T105
    revoked or denied, OUT-S101 selector, OUT-S120 waves, OUT-R203 nothing would change, OUT-R201
    another rollout has some of these devices.
    """
    with store.write():
        bundle = _usable(store, spec)
        selector = grammar.parse(spec.to)
        for device in store.devices.all() if asked_runs(selector) else ():
            store.devices.change(_as_running(store, device, selector), now_ms)
        chosen = _chosen(store.devices.all(), spec, selector, bundle.digest, approvals, now_ms)
        _refuse_overlap(store, spec.model, chosen)
        number = store.rollouts.next_number(spec.model)
        sequence = store.devices.sequence()
        drawn = salt()
        rollout = Rollout(
            id=f"{spec.model}-{number}",
            model=spec.model,
            number=number,
            attempt=store.rollouts.next_attempt(bundle.digest),
            candidate=bundle.digest,
            over=_over(store, spec.model, chosen),
            spec=spec,
            selector=selector,
            salt=drawn,
            as_of=sequence,
            waves=plan_waves(spec.waves, _targets(chosen), drawn),
            excluded=chosen.excluded,
            looked=sequence,
            started_ms=now_ms,
        )
        _refuse_oversize(store, fleet, rollout)
        store.rollouts.put(rollout)
        members = (as_member(rollout, device, now_ms) for device in chosen.targets)
        store.rollouts.members.add(each for each in members if each is not None)
        about = {"version": spec.version, "to": spec.to, "devices": len(chosen.targets)}
        spec_said = to_wire(spec)
        store.happened(who, rollout.topic, "rollout.started", about, now_ms, after=spec_said)
        return view(store, rollout, 0)


def pause(store: Store, id: str, now_ms: int, why: str = "", *, who: str) -> dict[str, Any]:
    """No further wave; devices go on with what they have begun. Raises `InvalidRequest`."""
    with store.write():
        paused = move(store, find(store, id), "paused", now_ms, who=who, why=why)
        return _shown(store, paused, now_ms)


def resume(store: Store, id: str, now_ms: int, *, who: str) -> dict[str, Any]:
    """Go on after a pause; where the wave was inconclusive, go on all the same."""
    with store.write():
        rollout = find(store, id)
        verdict = rollout.verdict or {}
        if verdict.get("verdict") == "inconclusive":
            rollout = dataclasses.replace(rollout, verdict={**verdict, ACCEPTED: True})
        if not rollout.ended and rollout.status != "paused":
            raise InvalidRequest("OUT-R204", f"{id} is {rollout.status}")
        to: Status = "running" if rollout.wave else "preparing"
        goes_on = move(store, rollout, to, now_ms, who=who)
        return _shown(store, goes_on, now_ms)


def abort(store: Store, id: str, now_ms: int, why: str = "", *, who: str) -> dict[str, Any]:
    """Every device goes back to what was stable, from its own disk. Raises `InvalidRequest`."""
    with store.write():
        rollout = find(store, id)
        quiet = _quiet_before(rollout, now_ms)
        aborted = move(store, rollout, "aborted", now_ms, who=who, why=why, quiet_before_ms=quiet)
        return _shown(store, aborted, now_ms)


def status(store: Store, id: str, now_ms: int) -> dict[str, Any]:
    """Raises `InvalidRequest` OUT-S110."""
    return _shown(store, find(store, id), now_ms)


def find(store: Store, id: str) -> Rollout:
    found = store.rollouts.get(id)
    if found is None:
        known = [each.id for each in store.rollouts.page(limit=200).items]
        raise _not_found(f"no rollout named {id}", id, known)
    return found


def _shown(store: Store, rollout: Rollout, now_ms: int) -> dict[str, Any]:
    return view(store, rollout, _quiet_before(rollout, now_ms))


def _quiet_before(rollout: Rollout, now_ms: int) -> int:
    """As the last verdict saw it: only the ticker knows since when anybody has listened."""
    inputs: Mapping[str, Any] = (rollout.verdict or {}).get("inputs", {})
    said = inputs.get("quiet_before_ms", 0)
    return min(int(said), now_ms)


def _usable(store: Store, spec: RolloutSpec) -> BundleRow:
    model, version = spec.model, spec.version
    if store.bundles.count(model) == 0:
        raise _not_found(f"no model named {model}", model, store.bundles.models())
    bundle = store.bundles.version(model, version)
    if bundle is None:
        raise _not_found(f"no version {version} of {model}", version, _versions(store, model))
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


def _versions(store: Store, model: ModelName) -> list[Version]:
    return [each.version for each in store.bundles.page(model, limit=200).items]


def _not_found(why: str, name: str, known: list[str] | tuple[str, ...]) -> InvalidRequest:
    similar = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return InvalidRequest("OUT-S110", why, do=f"a similar name: {similar[0]}" if similar else "")


def _chosen(
    devices: list[Device] | tuple[Device, ...],
    spec: RolloutSpec,
    selector: Selector | None,
    candidate: Digest,
    approvals: Approvals,
    now_ms: int,
) -> Chosen:
    needs = needs_of(approvals, candidate)
    chosen = choose(devices, selector, spec.model, candidate, needs, now_ms)
    if not chosen.targets:
        matched = sum(chosen.excluded.values())
        others = [f"{number} {why}" for why, number in chosen.excluded.items()]
        because = f": {', '.join(others)}" if others else ""
        raise InvalidRequest("OUT-R203", f"{matched} devices match{because}")
    return chosen


def _targets(chosen: Chosen) -> list[Target]:
    return [Target(device.id, device.selectable) for device in chosen.targets]


def _as_running(store: Store, device: Device, selector: Selector | None) -> Device:
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


def _over(store: Store, model: ModelName, chosen: Chosen) -> Digest | None:
    """What is stable now for most of the targets."""
    assigned = stables(store, model)
    found: Counter[Digest] = Counter()
    for device in chosen.targets:
        for each in assigned:
            if matches(each.selector, device.selectable):
                found[each.digest] += 1
                break
    return found.most_common(1)[0][0] if found else None


def _refuse_overlap(store: Store, model: ModelName, chosen: Chosen) -> None:
    ids = [device.id for device in chosen.targets]
    for other in store.rollouts.active(model):
        shared = store.rollouts.members.overlap(other.id, ids)
        if shared:
            raise InvalidRequest(
                "OUT-R201",
                f"{shared} of your {len(ids)} devices are in {other.id} "
                f"(wave {other.wave} of {len(other.waves)})",
            )


def _refuse_oversize(store: Store, fleet: FleetName, rollout: Rollout) -> None:
    """The plan has room for every wave of the rollout, and for its end."""
    assigned = stables(store, rollout.model)
    others = store.rollouts.active(rollout.model)
    for wave in range(1, len(rollout.waves) + 1):
        going = [going_of(other, max(1, other.wave)) for other in others]
        ready = [*going, going_of(rollout, wave)]
        plan.make_plan(fleet, rollout.model, assigned, ready, None)
    after = plan.completed(assigned, rollout.selector, rollout.candidate)
    plan.make_plan(fleet, rollout.model, after, [], None)


def going_of(rollout: Rollout, wave: int) -> plan.Going:
    """A rollout as its plan has it in one of its waves, from 1."""
    return plan.Going(
        rollout.selector,
        rollout.id,
        rollout.attempt,
        rollout.candidate,
        rollout.salt,
        rollout.as_of,
        rollout.waves[wave - 1].wave,
        rollout.spec.plan_max_age_s,
    )
