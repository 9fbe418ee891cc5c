"""Which devices of a selector a rollout may change, and in which wave each of them is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from control_plane.fleet.devices import has_committed, is_pinned, why_unfit
from control_plane.rollout.phase import Asked, phase_of
from control_plane.rollout.waves import wave_of
from control_plane.store import Store
from control_plane.store.devices import Device
from control_plane.store.members import Member
from control_plane.store.rollouts import Rollout
from protocol.approval import Approvals
from protocol.bundle import Needs
from protocol.identifiers import Digest, ModelName
from protocol.selector import Selector, matches

_MAY_LEAVE = frozenset({"targeted", "reached", "staged"})
"""Who has activated the candidate stays in the rollout, whatever becomes of its labels."""


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
) -> Chosen:
    targets: list[Device] = []
    excluded: Counter[str] = Counter()
    for device in devices:
        if not matches(selector, device.selectable):
            continue
        why = _why_not(device, model, candidate, needs, now_ms)
        if why is None:
            targets.append(device)
        else:
            excluded[why] += 1
    return Chosen(tuple(targets), dict(excluded))


def needs_of(approvals: Approvals, candidate: Digest) -> Needs:
    approved = approvals.get(candidate)
    return approved.terms.needs if approved is not None else Needs()


def follow_changes(store: Store, rollout: Rollout, approvals: Approvals, now_ms: int) -> int:
    """Bring the members in line with documents that changed since last time.

    Returns the fleet's sequence number up to which they are right now.
    """
    upto = store.devices.sequence()
    members = store.rollouts.members
    needs = needs_of(approvals, rollout.candidate)
    for device in store.devices.changed_after(rollout.looked):
        member = members.get(rollout.id, device.id)
        if member is not None and member.phase not in _MAY_LEAVE:
            continue
        if member is not None:
            members.remove(rollout.id, device.id)
        if not matches(rollout.selector, device.selectable):
            continue
        if _why_not(device, rollout.model, rollout.candidate, needs, now_ms) is not None:
            continue
        joined = as_member(rollout, device, now_ms)
        if joined is not None:
            members.add([joined])
    return upto


def as_member(rollout: Rollout, device: Device, now_ms: int) -> Member | None:
    """Its place in a rollout; None if no wave takes it."""
    late = device.since > rollout.as_of
    wave = wave_of(rollout.waves, rollout.salt, device.id, device.selectable, late=late)
    if wave is None:
        return None
    asked = Asked(rollout.id, rollout.model, rollout.candidate, rollout.attempt)
    phase, reason = phase_of(asked, device.state)
    return Member(rollout.id, device.id, wave, phase, now_ms, reason)


def _why_not(
    device: Device, model: ModelName, candidate: Digest, needs: Needs, now_ms: int
) -> str | None:
    if is_pinned(device, model, now_ms):
        return "pinned"
    if has_committed(device, model, candidate):
        return "already there"
    if why_unfit(device, needs) is not None:
        return "unfit"
    return None
