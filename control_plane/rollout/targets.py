"""Which devices of a selector a rollout may change, and in which wave each of them is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from control_plane.fleet.devices import has_committed, is_pinned
from control_plane.rollout.fitness import features_of, why_unfit
from control_plane.rollout.phase import MAY_LEAVE, Asked, Standing, step
from control_plane.rollout.waves import wave_of
from control_plane.store import Store
from control_plane.store.devices import Device
from control_plane.store.members import Member
from control_plane.store.rollouts import Rollout
from protocol.approval import Approvals
from protocol.bundle import Facts, Needs
from protocol.identifiers import Digest, ModelName
from protocol.selector import Selector, matches

_THERE = "already there"
_CHUNK = 500
"""Devices with their states that are held in memory together."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Devices that match, apart: `targets` may be changed, `excluded` counts the others."""

    targets: tuple[Device, ...]
    excluded: dict[str, int]


def choose(
    devices: Iterable[Device],
    selector: Selector | None,
    model: ModelName,
    candidate: Digest,
    needs: Needs,
    now_ms: int,
    *,
    settled: bool = False,
    features: Collection[str] = (),
) -> Chosen:
    """`settled`: devices that have the candidate already are targets too. `features`: what an
    agent must know to do what the rollout asks."""
    targets: list[Device] = []
    excluded: Counter[str] = Counter()
    for device in devices:
        if not matches(selector, device.selectable):
            continue
        why = _why_not(device, model, candidate, needs, features, now_ms)
        if why is None or (settled and why == _THERE):
            targets.append(device)
        else:
            excluded[why] += 1
    return Chosen(tuple(targets), dict(excluded))


def needs_of(approvals: Approvals, candidate: Digest) -> Needs:
    approved = approvals.get(candidate)
    return approved.terms.needs if approved is not None else Needs()


def follow_changes(store: Store, rollout: Rollout, approvals: Approvals, now_ms: int) -> int:
    """Bring the members in line with documents that changed since last time, and with no others.

    Whoever has not activated the candidate leaves with the selector, moves to another wave with
    its labels, and is excluded by a pin or when it cannot run what is asked; it comes back in the
    same way. Whoever has stays as it is until the end. Returns the fleet's sequence number up to
    which they are right now.
    """
    upto = store.devices.sequence()
    if upto == rollout.looked:
        return upto
    needs, features = needs_of(approvals, rollout.candidate), features_of(rollout.spec)
    after = rollout.looked
    while devices := store.devices.changed_after(after, _CHUNK):
        for device in devices:
            member = store.rollouts.members.get(rollout.id, device.id)
            if member is None or member.phase in MAY_LEAVE:
                _follow(store, rollout, device, member, needs, features, now_ms)
        after = devices[-1].changed
    return upto


def _follow(
    store: Store,
    rollout: Rollout,
    device: Device,
    member: Member | None,
    needs: Needs,
    features: Collection[str],
    now_ms: int,
) -> None:
    members = store.rollouts.members
    selected = matches(rollout.selector, device.selectable)
    joined = as_member(rollout, device, now_ms) if selected else None
    if joined is None:
        members.remove(rollout.id, device.id)
        return
    why = _why_not(device, rollout.model, rollout.candidate, needs, features, now_ms)
    if member is None:
        if why is None:
            members.add([joined])
        return
    if member.phase == "excluded" and why is None:
        members.remove(rollout.id, device.id)
        members.add([replace(joined, bets=joined.bets and member.bets)])
        return
    if joined.wave != member.wave or joined.bets < member.bets:
        # What is known of it stays: only its place is another one.
        members.place(rollout.id, device.id, joined.wave)
    if why is not None:
        members.exclude(rollout.id, device.id, why, now_ms)


def as_member(rollout: Rollout, device: Device, now_ms: int) -> Member | None:
    """Its place in a rollout; None if no wave ever takes it.

    What is held back to compare with is behind the last wave.
    """
    late = device.since > rollout.as_of
    labels, salt = device.selectable, rollout.salt
    wave = wave_of(rollout.waves, salt, device.id, labels, late=late, holdback=rollout.holdback)
    if wave is None and rollout.holdback:
        held = wave_of(rollout.waves, salt, device.id, labels, late=late) is not None
        wave = len(rollout.waves) + 1 if held else None
    if wave is None:
        return None
    asked = Asked(rollout.id, rollout.model, rollout.candidate, rollout.attempt)
    at = step(asked, Standing(), device.state)
    return Member(
        rollout.id, device.id, wave, at.phase, now_ms, at.reason, at.outcome, bets=not late
    )


def _why_not(
    device: Device,
    model: ModelName,
    candidate: Digest,
    needs: Needs,
    features: Collection[str],
    now_ms: int,
) -> str | None:
    if is_pinned(device, model, now_ms):
        return "pinned"
    if has_committed(device, model, candidate):
        return _THERE
    state = device.state
    facts, knows = (state.facts, state.features) if state is not None else (Facts(), ())
    return why_unfit(needs, features, facts, knows)
