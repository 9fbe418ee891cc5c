"""Starts rollouts: checks, fixes waves and devices, writes the rows. The ticker does the rest."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.fleet import grammar
from control_plane.fleet.devices import asked_runs, has_committed
from control_plane.rollout.checking import (
    as_running,
    chosen_of,
    find,
    in_the_way,
    longest_interval_s,
    nothing_would_change,
    over_of,
    refuse_hasty_silence,
    refuse_other_number,
    refuse_overlap,
    refuse_oversize,
    usable,
)
from control_plane.rollout.spec import MAX_FAILURE_LIMIT, NO_SCORES, RolloutSpec, WaveSpec
from control_plane.rollout.targets import Chosen, as_member, choose, needs_of
from control_plane.rollout.transitions import move
from control_plane.rollout.view import view
from control_plane.rollout.wanted import stables
from control_plane.rollout.waves import Target, check_names, lay_out
from control_plane.store import Store
from control_plane.store.devices import Device
from control_plane.store.rollouts import Rollout
from protocol.approval import Approvals
from protocol.codec import to_wire
from protocol.identifiers import Digest, FleetName, ModelName, Version
from protocol.selector import Selector, matches

Salt = Callable[[], str]
"""32 lower-case hex digits, new each time."""

EVERYONE: Final = (WaveSpec(percent=100),)
SILENT_AFTER_S: Final = 3 * 3600.0
"""Of a return, unless its devices report more rarely."""


def new_salt() -> str:
    return secrets.token_hex(16)


def start_rollout(
    store: Store,
    fleet: FleetName,
    spec: RolloutSpec,
    approvals: Approvals,
    now_ms: int,
    salt: Salt = new_salt,
    *,
    who: str,
    expect_devices: int | None = None,
) -> dict[str, Any]:
    """Write a rollout in status `preparing`; where `spec` says so, it ends another one with it.

    `expect_devices`: how many targets whoever asks has seen. Raises `InvalidRequest`: OUT-S110
    unknown model, version or rollout, OUT-T104 not approved, OUT-T105 revoked or denied, OUT-S101
    selector, OUT-S120 waves, OUT-R203 nothing would change, OUT-R206 another number of devices,
    OUT-R212 silent_after, OUT-R201 another rollout has some of these devices, OUT-R202 what it
    should supersede has ended. Nothing is written then.
    """
    with store.write():
        bundle = usable(store, spec.model, spec.version)
        selector = grammar.parse(spec.to)
        id = _next_id(store, spec.model)
        if spec.supersedes is not None:
            _supersede(store, find(store, spec.supersedes), id, now_ms, who)
        _freeze_runs(store, selector, now_ms)
        chosen = chosen_of(store.devices.all(), spec, selector, bundle.digest, approvals, now_ms)
        refuse_other_number(chosen.targets, expect_devices)
        refuse_hasty_silence(chosen.targets, spec)
        refuse_overlap(store, spec.model, chosen.targets)
        return _begin(store, fleet, spec, bundle.digest, selector, chosen, now_ms, salt(), who=who)


def return_to(
    store: Store,
    fleet: FleetName,
    model: ModelName,
    version: Version,
    approvals: Approvals,
    now_ms: int,
    salt: Salt = new_salt,
    *,
    who: str,
    to: str = "all",
    why: str = "",
    expect_devices: int | None = None,
) -> dict[str, Any]:
    """Bring every device of a selector to an approved version, now: one wave, no soak, no scores.

    It supersedes every active rollout of the model that has some of these devices. Devices that
    already run the version are part of it, since they may be on their way to another. Raises
    `InvalidRequest`: OUT-S110, OUT-T104, OUT-T105, OUT-S101, OUT-R203, OUT-R206.
    """
    with store.write():
        bundle = usable(store, model, version)
        selector = grammar.parse(to)
        id = _next_id(store, model)
        _freeze_runs(store, selector, now_ms)
        found = returning(store, model, bundle.digest, selector, approvals, now_ms)
        refuse_other_number(found.chosen.targets, expect_devices)
        for other in found.supersedes:
            _supersede(store, other, id, now_ms, who)
        spec = RolloutSpec(
            model,
            version,
            to=to,
            waves=EVERYONE,
            soak_s=0.0,
            # It is the way out of trouble: what goes wrong stops it for a person, never reverts it.
            on_failure="pause",
            unproven="proceed",
            gates=NO_SCORES,
            failure_limit=MAX_FAILURE_LIMIT,
            silent_after_s=max(SILENT_AFTER_S, 2.0 * longest_interval_s(found.chosen.targets)),
        )
        return _begin(
            store, fleet, spec, bundle.digest, selector, found.chosen, now_ms, salt(),
            who=who, why=why, about={"return": True},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Returning:
    """What a return would do: bring `chosen.targets` back, `changing` of which run another
    version now or may soon; `downloading` of them have it not on their disk any more."""

    chosen: Chosen
    changing: int
    downloading: int
    supersedes: tuple[Rollout, ...]


def preview_return(
    store: Store,
    model: ModelName,
    version: Version,
    approvals: Approvals,
    now_ms: int,
    to: str = "all",
) -> dict[str, Any]:
    """What `return_to` would do now. Raises the same; changes nothing."""
    bundle = usable(store, model, version)
    selector = grammar.parse(to)
    found = returning(store, model, bundle.digest, selector, approvals, now_ms)
    return {
        "model": model,
        "version": version,
        "to": grammar.format(selector),
        "matched": len(found.chosen.targets) + sum(found.chosen.excluded.values()),
        "targeted": len(found.chosen.targets),
        "excluded": found.chosen.excluded,
        "changing": found.changing,
        "downloading": found.downloading,
        "supersedes": [each.id for each in found.supersedes],
    }


def returning(
    store: Store,
    model: ModelName,
    candidate: Digest,
    selector: Selector | None,
    approvals: Approvals,
    now_ms: int,
) -> Returning:
    """Raises `InvalidRequest` OUT-R203 where every device runs it and nothing is about to change
    that."""
    devices = (as_running(store, device, selector) for device in store.devices.all())
    chosen = choose(
        devices, selector, model, candidate, needs_of(approvals, candidate), now_ms, settled=True
    )
    targets = chosen.targets
    on_disk = [device for device in targets if _has(device, model, candidate)]
    changing = sum(not has_committed(device, model, candidate) for device in targets)
    ahead = tuple(other for other, _ in in_the_way(store, model, targets))
    stable = all(
        any(
            each.digest == candidate
            for each in stables(store, model)
            if matches(each.selector, device.selectable)
        )
        for device in targets
    )
    if not targets or (not changing and not ahead and stable):
        raise nothing_would_change(chosen)
    return Returning(chosen, changing, len(targets) - len(on_disk), ahead)


def _begin(
    store: Store,
    fleet: FleetName,
    spec: RolloutSpec,
    candidate: Digest,
    selector: Selector | None,
    chosen: Chosen,
    now_ms: int,
    salt: str,
    *,
    who: str,
    why: str = "",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    if any(wave.names or wave.exclude for wave in spec.waves):
        check_names(spec.waves, {device.local for device in store.devices.all()})
    targets = [Target(device.id, device.selectable) for device in chosen.targets]
    layout = lay_out(spec, targets, salt)
    sequence = store.devices.sequence()
    rollout = Rollout(
        id=_next_id(store, spec.model),
        model=spec.model,
        number=store.rollouts.next_number(spec.model),
        attempt=store.rollouts.next_attempt(candidate),
        candidate=candidate,
        over=over_of(store, spec.model, chosen.targets),
        # With its waves: what suits the fleet now is not decided again when the fleet has grown.
        spec=layout.spec,
        selector=selector,
        salt=salt,
        as_of=sequence,
        waves=layout.waves,
        excluded=chosen.excluded,
        looked=sequence,
        started_ms=now_ms,
        holdback=layout.holdback,
        held=layout.held,
    )
    refuse_oversize(store, fleet, rollout)
    store.rollouts.put(rollout)
    members = (as_member(rollout, device, now_ms) for device in chosen.targets)
    store.rollouts.members.add(each for each in members if each is not None)
    said = {
        "version": spec.version,
        "to": spec.to,
        "devices": len(chosen.targets),
        "held": layout.held,
        "supersedes": spec.supersedes,
        **(about or {}),
    }
    spec_said = to_wire(layout.spec)
    store.happened(who, rollout.topic, "rollout.started", said, now_ms, after=spec_said, why=why)
    return view(store, rollout, now_ms)


def _next_id(store: Store, model: ModelName) -> str:
    return f"{model}-{store.rollouts.next_number(model)}"


def _supersede(store: Store, other: Rollout, by: str, now_ms: int, who: str) -> None:
    """Raises `InvalidRequest` OUT-R202 when it has ended."""
    why = f"superseded by {by}"
    move(store, other, "aborted", now_ms, who=who, why=why, superseded_by=by)


def _freeze_runs(store: Store, selector: Selector | None, now_ms: int) -> None:
    """What a selector asks with `runs.m` becomes labels, as it is now."""
    for device in store.devices.all() if asked_runs(selector) else ():
        store.devices.change(as_running(store, device, selector), now_ms)


def _has(device: Device, model: ModelName, bundle: Digest) -> bool:
    """Whether it reported to have it in one of its two slots."""
    state = device.state.models.get(model) if device.state else None
    return state is not None and bundle in (state.current, state.previous)
