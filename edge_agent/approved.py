"""What an accepted set of metadata says, as our own types.

An entry that this agent does not understand is left out and reported; its neighbours stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tuf.api.metadata import Targets

from protocol.approval import ApprovedBundle
from protocol.errors import NotUnderstood, OutriderError, PeerError
from protocol.identifiers import Digest, ModelName
from protocol.reported import Refused
from protocol.targets import (
    DENY_LIST,
    PlanTarget,
    planned_model,
    read_bundle,
    read_digest,
    read_plan_target,
)

MAX_REFUSED = 32
"""Reported refusals: a state record has its limits."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What role models says."""

    approvals: dict[Digest, ApprovedBundle] = field(default_factory=dict)
    not_understood: frozenset[Digest] = frozenset()
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Ordered:
    """What role rollouts says."""

    plans: dict[ModelName, PlanTarget] = field(default_factory=dict)
    deny: PlanTarget | None = None
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Content:
    listed: Listed = Listed()
    ordered: Ordered = Ordered()

    @property
    def refused(self) -> tuple[Refused, ...]:
        return (*self.listed.refused, *self.ordered.refused)[:MAX_REFUSED]


def read_models(models: Targets) -> Listed:
    refused: list[Refused] = []
    approvals: dict[Digest, ApprovedBundle] = {}
    unread: set[Digest] = set()
    for path, target in sorted(models.targets.items()):
        sha256 = target.hashes.get("sha256")
        try:
            bundle = read_bundle(path, sha256, target.custom)
        except PeerError as error:
            refused.append(_refused(path, error))
            if isinstance(error, NotUnderstood):
                unread.add(read_digest(sha256))
            continue
        known = approvals.get(bundle.digest)
        # Listed twice: what takes away wins.
        if known is None or not known.revoked:
            approvals[bundle.digest] = bundle
    return Listed(approvals, frozenset(unread - set(approvals)), tuple(refused[:MAX_REFUSED]))


def read_rollouts(rollouts: Targets) -> Ordered:
    refused: list[Refused] = []
    plans: dict[ModelName, PlanTarget] = {}
    deny: PlanTarget | None = None
    for path, target in sorted(rollouts.targets.items()):
        try:
            model = planned_model(path)
            entry = read_plan_target(target.hashes.get("sha256"), target.length, target.custom)
        except (PeerError, ValueError) as error:
            refused.append(_refused(path, error))
            continue
        if path == DENY_LIST:
            deny = entry
        elif model is not None:
            plans[model] = entry
    return Ordered(plans, deny, tuple(refused[:MAX_REFUSED]))


def _refused(path: str, error: Exception) -> Refused:
    if isinstance(error, OutriderError):
        return Refused(path[:160], error.code, error.why[:200])
    return Refused(path[:160], "OUT-N210", str(error)[:200])
