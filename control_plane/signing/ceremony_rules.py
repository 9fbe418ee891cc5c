"""What a ceremony may propose: pure rules, the same at every holder's desk and on the server.

What cannot be shown cannot be proposed, and what devices could not follow either: roots follow one
another, snapshot and timestamp have one key, models are signed again when their keys change.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Targets

from control_plane.signing import create, keys
from control_plane.signing.ceremony import (
    PROPOSED,
    Holding,
    InForce,
    Powers,
    Proposal,
    holding,
    metadata_of,
    powers,
    read_role,
    refused,
)
from protocol.errors import InvalidRequest

_SLACK: Final = timedelta(days=1)
"""Clocks of holders and servers differ a little."""
_LONGEST: Final = {
    "root": create.ROOT_EXPIRES,
    "targets": create.TARGETS_EXPIRES,
    "models": create.MODELS_EXPIRES,
}


def check(proposal: Proposal, now: datetime) -> None:
    """Everything but the signatures that are still to come.

    Raises `TrustError` (OUT-T124) for what may not be proposed, `InvalidRequest` (OUT-T117) for
    keys that make no valid role.
    """
    base, result = proposal.base, proposal.result()
    if base is not None:
        check_in_force(base)
    if not any(proposal.file(role) for role in PROPOSED):
        raise refused("it changes nothing")
    if base is None and not all(proposal.file(role) for role in PROPOSED):
        raise refused("a first root comes with targets and models")
    before = powers(base) if base is not None else None
    after = powers(result)
    for role in PROPOSED:
        data = proposal.file(role)
        if data is not None:
            _check_version(role, after.versions[role], before)
            _check_time(role, after.expires[role], now)
    if proposal.root is not None:
        _check_root(read_role(proposal.root, Root, "root"))
    if proposal.targets is not None:
        _check_targets(read_role(proposal.targets, Targets, "targets"))
    if proposal.models is not None:
        _check_models(proposal.models, base)
    require_distinct(after)
    _check_what_stays(proposal, result)


def check_in_force(state: InForce) -> None:
    """One chain of roots, and lists that its holders signed. Raises `TrustError` (OUT-T124)."""
    numbers = sorted(state.roots)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise refused("a root is missing")
    before: Root | None = None
    for number in numbers:
        metadata = metadata_of(state.roots[number], Root, f"root {number}")
        if metadata.signed.version != number:
            raise refused(f"root {number} says that it is {metadata.signed.version}")
        for delegator in (before or metadata.signed, metadata.signed):
            _verify(delegator, "root", metadata, f"root {number}")
        before = metadata.signed
    assert before is not None
    targets = metadata_of(state.targets, Targets, "targets")
    _verify(before, "targets", targets, "targets")
    _verify(targets.signed, "models", metadata_of(state.models, Targets, "models"), "models")


def require_distinct(after: Powers) -> None:
    """Raises `InvalidRequest` (OUT-T117)."""
    for role, held in (("root", after.root), ("models", after.models)):
        require_threshold(role, held)
        twice = sorted({name for name in held.names if held.names.count(name) > 1})
        if twice:
            raise InvalidRequest("OUT-T117", f"{role}: two keys are called {twice[0]}")
    for one, other, why in (
        ("models", "root", "approves versions and changes who may; nobody does both"),
        ("rollouts", "root", "is the server's and root's"),
        ("rollouts", "models", "is the server's and an approver's"),
        ("snapshot", "root", "is the server's and root's"),
        ("snapshot", "models", "is the server's and an approver's"),
        ("snapshot", "rollouts", "signs snapshot and rollouts; the server has one for each"),
    ):
        both = set(after.of(one).keys) & set(after.of(other).keys)
        if both:
            name = keys.holder(after.of(one).keys[min(both)])
            raise InvalidRequest("OUT-T117", f"the key of {name} {why}")


def require_threshold(role: str, held: Holding) -> None:
    """Raises `InvalidRequest` (OUT-T117)."""
    if not 1 <= held.threshold <= len(held.keys):
        why = f"{role}: {held.threshold} of {len(held.keys)} keys cannot sign"
        raise InvalidRequest("OUT-T117", why)


def _check_version(role: str, version: int, before: Powers | None) -> None:
    expected = before.versions[role] + 1 if before is not None else 1
    if version < expected:
        raise refused(f"{role} {version} is older than what is in force, {role} {expected - 1}")
    if version > expected:
        raise refused(f"{role} {version} does not follow {role} {expected - 1}")


def _check_time(role: str, expires: datetime, now: datetime) -> None:
    if expires <= now:
        raise refused(f"{role} expired {expires:%Y-%m-%d}")
    if expires > now + _LONGEST[role] + _SLACK:
        raise refused(f"{role} would be valid until {expires:%Y-%m-%d}")


def _check_root(root: Root) -> None:
    _require_sayable(root)
    if root.consistent_snapshot is not False:
        raise refused("root asks for consistent snapshots")
    for one, other in (("root", "targets"), ("snapshot", "timestamp")):
        if not holding(root, one).same(holding(root, other)):
            raise refused(f"{one} and {other} always have the same keys")
    snapshot = holding(root, "snapshot")
    if (len(snapshot.keys), snapshot.threshold) != (1, 1):
        raise refused("snapshot has one key")
    used = {keyid for role in root.roles.values() for keyid in role.keyids}
    if any(role.unrecognized_fields for role in root.roles.values()) or set(root.keys) != used:
        raise refused("root says something that cannot be shown")
    _require_sound(root.keys)


def _check_targets(targets: Targets) -> None:
    _require_sayable(targets)
    delegations = targets.delegations
    roles = delegations.roles if delegations is not None else None
    if delegations is None or roles is None or targets.targets:
        raise refused("targets delegates models and rollouts, nothing else")
    models, rollouts = holding(targets, "models"), holding(targets, "rollouts")
    if (len(rollouts.keys), rollouts.threshold) != (1, 1):
        raise refused("rollouts has one key")
    expected = create.delegate(
        list(models.keys.values()),
        max(1, models.threshold),
        next(iter(rollouts.keys.values())),
    )
    if list(roles) != ["models", "rollouts"] or delegations.to_dict() != expected.to_dict():
        raise refused("targets says something that cannot be shown")
    _require_sound(delegations.keys)


def _check_models(data: bytes, base: InForce | None) -> None:
    models = read_role(data, Targets, "models")
    _require_sayable(models)
    if models.delegations is not None:
        raise refused("models delegates")
    listed = read_role(base.models, Targets, "models").targets if base is not None else {}
    if models.targets != listed:
        raise refused("it changes which versions are approved")


def _check_what_stays(proposal: Proposal, result: InForce) -> None:
    """What is not proposed anew must hold under the new keys too: else devices would be stuck."""
    if proposal.targets is None:
        root = read_role(result.root, Root, "root")
        _verify(root, "targets", metadata_of(result.targets, Targets, "targets"), _stuck("targets"))
    if proposal.models is None:
        targets = read_role(result.targets, Targets, "targets")
        _verify(targets, "models", metadata_of(result.models, Targets, "models"), _stuck("models"))


def _stuck(role: str) -> str:
    return f"{role} was not signed again, and the new keys did not sign the one in force"


def _verify(delegator: Root | Targets, name: str, metadata: Metadata[Any], what: str) -> None:
    try:
        delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise refused(f"{what}: {error}") from error


def _require_sayable(signed: Signed) -> None:
    if signed.unrecognized_fields:
        raise refused(f"{signed.type} says something that cannot be shown")


def _require_sound(found: Mapping[str, Key]) -> None:
    for key in found.values():
        try:
            keys.require_sound(key)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest("OUT-T117", str(error)) from error
