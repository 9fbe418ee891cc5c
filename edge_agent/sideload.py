"""What of a stick is to be done on this device, and what became of it. Decides; reads nothing.

A stick only replaces the link: what it brings was verified as if it had come over it before
anything here looks at it, and all that is relaxed is that nobody asks whether it is fresh.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from edge_agent.desired import Decision, Run
from edge_agent.journal import Journal
from protocol.approval import Approvals
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, FleetName, ModelName, short, split_device_id
from protocol.plan import Dropped
from protocol.reported import ModelState, TrustState
from protocol.stick import Stick
from protocol.topics import TUF_ROLES
from protocol.wording import date

_COMPARED: Final = ("models", "rollouts", "targets", "snapshot", "timestamp")
"""What people know best comes first."""
_SHOWN_DEVICES: Final = 3


@dataclass(frozen=True, slots=True)
class Papers:
    """Everything on a stick but the payloads, as it was read: nothing of it is verified."""

    stick: Stick
    roles: Mapping[str, bytes]
    document: bytes
    deny: bytes
    roots: Mapping[int, bytes] = field(default_factory=dict)
    plans: Mapping[ModelName, bytes] = field(default_factory=dict)


def require_for(stick: Stick, fleet: FleetName, device: str) -> None:
    """Raises `InvalidRequest` OUT-T119 for a stick that was made for others."""
    if stick.fleet != fleet:
        raise InvalidRequest("OUT-T119", f"it is of fleet {stick.fleet}, this device of {fleet}")
    if device not in stick.devices:
        names = [split_device_id(each)[1] for each in stick.devices[:_SHOWN_DEVICES]]
        more = f" and {len(stick.devices) - len(names)} more" if len(stick.devices) > 3 else ""
        whom = stick.chosen or (", ".join(names) + more if names else "nobody")
        raise InvalidRequest("OUT-T119", f"it was made for {whom}, this is {_local(device)}")


def versions(roles: Mapping[str, bytes]) -> dict[str, int]:
    """What unverified metadata says of itself: to tell people why it was refused."""
    found = {}
    for name, data in roles.items():
        try:
            version = json.loads(data)["signed"]["version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(version, int):
            found[name] = version
    return found


def older(theirs: Mapping[str, int], ours: TrustState) -> str | None:
    """In what a stick is behind this device, for people ("models 11; this device trusts 12")."""
    for name in _COMPARED:
        found, mine = theirs.get(name), getattr(ours, name)
        if found is not None and found < mine:
            return f"{name} {found}; this device trusts {mine}"
    return None


def newer(before: TrustState, after: TrustState) -> bool:
    return any(getattr(after, name) > getattr(before, name) for name in TUF_ROLES)


# --- what is to be done ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a bundle that the plan names is out of the question here."""

    digest: Digest
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Todo:
    """One model: `head` is what it should run, `bring` what must come from the stick for that."""

    model: ModelName
    head: Digest | None = None
    bring: tuple[Digest, ...] = ()
    """The bundle headed for first, then what its trial would go back to."""
    grant: tuple[Digest, ...] = ()
    """What may start from here although nothing is fresh."""
    refusal: Refusal | None = None
    outcome: int = 0
    """Number of the model's last outcome before anything was done."""

    @property
    def runs_already(self) -> bool:
        return self.head is not None and not self.bring and not self.grant


def todo(
    model: ModelName,
    decision: Decision,
    journal: Journal,
    here: Collection[Digest],
    offered: Collection[Digest],
) -> Todo:
    """`here`: bundles that are complete on this device; `offered`: those that the stick has.

    What the plan names first and what is dropped is a refusal, also when something else is left
    to run: whoever carried the stick wants to know. Raises `InvalidRequest` OUT-T119 when the
    bundle to head for is neither here nor on the stick.
    """
    desired = decision.desired
    run = desired if isinstance(desired, Run) else None
    outcome = max((each.number for each in journal.outcomes), default=0)
    refusal = _refusal(decision.resolution.dropped, run)
    if run is None:
        return Todo(model, refusal=refusal, outcome=outcome)
    head = run.digest
    if head not in here and head not in offered:
        raise InvalidRequest("OUT-T119", f"it lacks {model} {short(head)}, which the plan names")
    wanted = [head]
    may_run = {candidate.digest for candidate in decision.resolution.candidates}
    if run.stable in may_run and head != journal.current:
        wanted.append(run.stable)
    bring = tuple(each for each in wanted if each not in here and each in offered)
    ready = {*here, *offered}
    grant = tuple(each for each in wanted if each not in journal.slots and each in ready)
    return Todo(model, head, bring, grant, refusal, outcome)


_CODES: Final[Mapping[str, str]] = {
    "not approved": "OUT-T104",
    "revoked": "OUT-T105",
    "denied": "OUT-T105",
    "unfit": "OUT-D302",
}
_WORDS: Final[Mapping[str, str]] = {
    "not approved": "the plan names it, and no approver has signed it",
    "revoked": "approvers have revoked it",
    "denied": "it is on the fleet's deny list",
    "unfit": "this device is not what it needs",
}


def _refusal(dropped: tuple[Dropped, ...], run: Run | None) -> Refusal | None:
    """The first that is out, unless the device itself has given it up: status tells that."""
    for each in dropped:
        if each.origin == "fallback" and run is not None:
            continue
        if each.why in _CODES:
            return Refusal(each.digest, _CODES[each.why], _WORDS[each.why])
    return None


# --- what became of it ----------------------------------------------------------------------------

How = Literal["activated", "runs", "failed", "waits", "replaced"]


@dataclass(frozen=True, slots=True)
class Ended:
    how: How
    code: str = ""
    detail: str = ""


def ended(task: Todo, state: ModelState | None) -> Ended | None:
    """What became of a bundle that was brought; None while that is open."""
    if state is None or task.head is None:
        return None
    head, last = task.head, state.last
    if (
        last is not None
        and last.number > task.outcome
        and last.digest == head
        and last.result in ("rejected", "rolled_back")
    ):
        return Ended("failed", last.reason or "", last.detail)
    if state.serving == head:
        return Ended("runs" if state.current == head else "activated")
    if state.target is not None and state.target != head:
        return Ended("replaced", "OUT-D314", "the device was told something newer meanwhile")
    return None


def held_up(task: Todo, state: ModelState | None) -> Ended | None:
    """What a bundle that is here waits for, if anything is said to hold it."""
    if state is None or state.target != task.head or state.waiting is None:
        return None
    return Ended("waits", state.waiting, state.waiting_detail)


def name_of(bundle: Digest, model: ModelName, approvals: Approvals) -> str:
    approved = approvals.get(bundle)
    return f"{model}/{approved.version}" if approved is not None else f"{model} {short(bundle)}"


def made(stick: Stick, now_ms: int) -> str:
    """ "made 18 Nov 10:02 UTC for site = leeds"."""
    return f"made {date(stick.made_ms, now_ms)} for {stick.chosen or 'this device'}"


def _local(device: str) -> str:
    return split_device_id(device)[1]
