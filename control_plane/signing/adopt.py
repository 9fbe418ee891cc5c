"""What a control plane learns from its own retained metadata when it starts.

A restored backup is older than the fleet. Whatever is signed by trusted keys and newer is what
the fleet has, so it is taken over; whatever is not is ignored, as the broker is not trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from protocol import codec
from protocol.device import PAYLOAD_TYPE, DeviceDocument
from protocol.errors import OutriderError
from protocol.identifiers import DeviceId, ModelName
from protocol.plan import DenyList, Plan
from protocol.targets import DENY_LIST, plan_path, planned_model
from protocol.topics import Topics


@dataclass(frozen=True, slots=True)
class Adopted:
    """Versions per role before and after, and the signed documents that the broker holds.

    The store goes on from these: the next plan of a model has a version and number above its
    `plans` entry, the next document of a device one above its `documents` entry.
    """

    before: dict[str, int]
    after: dict[str, int]
    plans: dict[ModelName, Plan] = field(default_factory=dict)
    deny: DenyList | None = None
    documents: dict[DeviceId, DeviceDocument] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    """Roles whose newer version the fleet trusts and nobody here has: signing is blocked."""

    @property
    def changed(self) -> bool:
        return self.before != self.after


def newer(role: str, data: bytes | None, version: int, delegator: Root | Targets) -> bytes | None:
    """The bytes, if they are this role's, properly signed and above `version`."""
    if data is None or len(data) > codec.MAX_TUF_ROLE:
        return None
    try:
        metadata: Metadata[Targets] = Metadata.from_bytes(data)
        expected = role if role in ("snapshot", "timestamp") else "targets"
        if metadata.signed.type != expected or metadata.signed.version <= version:
            return None
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return None
    return data


def read_adopted(
    retained: Mapping[str, bytes],
    topics: Topics,
    *,
    before: dict[str, int],
    after: dict[str, int],
    rollouts: Targets | None,
    delegations: Targets,
    listed: Mapping[str, int],
) -> Adopted:
    plans: dict[ModelName, Plan] = {}
    deny: DenyList | None = None
    for path, target in (rollouts.targets if rollouts is not None else {}).items():
        if path == DENY_LIST:
            deny = _listed(retained.get(topics.deny), target, DenyList)
        elif (model := planned_model(path)) is not None:
            plan = _listed(retained.get(topics.plan(model)), target, Plan)
            if plan is not None and plan_path(plan.model) == path:
                plans[model] = plan
    return Adopted(
        before=before,
        after=after,
        plans=plans,
        deny=deny,
        documents=_documents(retained, topics, delegations),
        missing={role: version for role, version in listed.items() if after[role] < version},
    )


def _listed(data: bytes | None, target: TargetFile, into: type[codec.T]) -> codec.T | None:
    if data is None:
        return None
    try:
        target.verify_length_and_hashes(data)
        return codec.decode_signed(data, into, limit=codec.MAX_PLAN)
    except (LengthOrHashMismatchError, OutriderError):
        return None


def _documents(
    retained: Mapping[str, bytes], topics: Topics, delegations: Targets
) -> dict[DeviceId, DeviceDocument]:
    """Device documents signed by role rollouts, each on its own device's topic."""
    role = delegations.get_delegated_role("rollouts")
    keys = [delegations.get_key(keyid) for keyid in role.keyids]
    found: dict[DeviceId, DeviceDocument] = {}
    for topic, data in retained.items():
        if not topic.endswith("/document") or len(data) > codec.MAX_DEVICE_DOCUMENT:
            continue
        try:
            envelope = Envelope.from_dict(json.loads(data))
            envelope.verify(keys, role.threshold)
            document = codec.decode_signed(
                envelope.payload, DeviceDocument, limit=codec.MAX_DEVICE_DOCUMENT
            )
            own = topics.document(document.device) == topic
        except (
            OutriderError,
            FormatError,
            VerificationError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            # Not ours, or damaged: the store's own version stands and is published again.
            continue
        if own and envelope.payload_type == PAYLOAD_TYPE:
            found[document.device] = document
    return found
