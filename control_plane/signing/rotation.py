"""Makes proposals: a fleet's first root, changes of keys and thresholds, renewal before expiry.

Pure. What comes out is unsigned; `ceremony` says who must sign it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Targets

from control_plane.signing import create, keys
from control_plane.signing.ceremony import (
    Holding,
    InForce,
    Powers,
    Proposal,
    powers,
)
from control_plane.signing.ceremony_rules import check, require_threshold
from protocol.errors import InvalidRequest, TrustError

_SHORTEST_ID = 8


@dataclass(frozen=True, slots=True)
class Change:
    """Of one role that people hold. `remove`: names, or beginnings of key ids."""

    add: Sequence[Key] = ()
    remove: Sequence[str] = ()
    threshold: int | None = None
    """None: as it is."""

    def apply(self, role: str, before: Holding) -> Holding:
        """Raises `InvalidRequest` (OUT-T117) for a name that is not there."""
        after = dict(before.keys)
        for name in self.remove:
            del after[_find(role, name, before.keys)]
        for key in self.add:
            if key.keyid in after:
                raise InvalidRequest("OUT-T117", f"{keys.holder(key)} is one of {role} already")
            after[key.keyid] = key
        threshold = before.threshold if self.threshold is None else self.threshold
        return Holding(after, threshold)


NOTHING = Change()


def majority(holders: Collection[object]) -> int:
    """The threshold unless another one is asked for."""
    return len(holders) // 2 + 1


def first(
    fleet: str,
    root: Holding,
    models: Holding,
    *,
    rollouts: Key,
    snapshot: Key,
    now: datetime,
) -> Proposal:
    """The first root of a fleet. Raises `InvalidRequest` (OUT-T117)."""
    proposal = Proposal(
        fleet,
        "init",
        now,
        root=create.serialise(
            Metadata(
                create.make_root(1, list(root.keys.values()), max(1, root.threshold), snapshot, now)
            )
        ),
        targets=_targets(1, models, rollouts, now),
        models=create.serialise(Metadata(Targets(expires=now + create.MODELS_EXPIRES))),
    )
    require_threshold("root", root)
    require_threshold("models", models)
    check(proposal, now)
    return proposal


def rotate(
    fleet: str,
    base: InForce,
    now: datetime,
    *,
    root: Change = NOTHING,
    models: Change = NOTHING,
    rollouts: Key | None = None,
    snapshot: Key | None = None,
) -> Proposal:
    """Change who may sign what. `rollouts`, `snapshot`: the server's keys as they should be.

    What the new keys have to sign again for devices to go on is part of it. Raises
    `InvalidRequest` (OUT-T117), `TrustError` (OUT-T124: it would change nothing).
    """
    before = powers(base)
    holders, approvers = root.apply("root", before.root), models.apply("models", before.models)
    require_threshold("root", holders)
    require_threshold("models", approvers)
    new_snapshot = snapshot or _only(before.snapshot)
    new_rollouts = rollouts or _only(before.rollouts)
    of_root = not holders.same(before.root)
    of_targets = not approvers.same(before.models) or new_rollouts.keyid not in before.rollouts.keys
    proposal = Proposal(fleet, "rotate", now, base)
    if of_root or new_snapshot.keyid not in before.snapshot.keys:
        proposal = dataclasses.replace(proposal, root=_root(before, holders, new_snapshot, now))
    if of_root or of_targets:
        version = before.versions["targets"] + 1
        proposal = dataclasses.replace(
            proposal, targets=_targets(version, approvers, new_rollouts, now)
        )
    if proposal.root is None and proposal.targets is None:
        raise TrustError("OUT-T124", "it would change nothing", do="outrider trust renew")
    if not _holds(proposal.targets or base.targets, base.models):
        # In the same publication: with a list that its own approvers did not sign, devices stick.
        proposal = dataclasses.replace(proposal, models=_models(base, before, now))
    check(proposal, now)
    return proposal


def renew(fleet: str, base: InForce, roles: Collection[str], now: datetime) -> Proposal:
    """The same again, valid from now. Raises `InvalidRequest`, `TrustError` like `rotate`."""
    before = powers(base)
    proposal = Proposal(fleet, "renew", now, base)
    if "root" in roles:
        proposal = dataclasses.replace(
            proposal, root=_root(before, before.root, _only(before.snapshot), now)
        )
    if "targets" in roles:
        version = before.versions["targets"] + 1
        targets = _targets(version, before.models, _only(before.rollouts), now)
        proposal = dataclasses.replace(proposal, targets=targets)
    if "models" in roles:
        proposal = dataclasses.replace(proposal, models=_models(base, before, now))
    check(proposal, now)
    return proposal


def _root(before: Powers, holders: Holding, snapshot: Key, now: datetime) -> bytes:
    version = before.versions["root"] + 1
    root = create.make_root(version, list(holders.keys.values()), holders.threshold, snapshot, now)
    return create.serialise(Metadata(root))


def _targets(version: int, approvers: Holding, rollouts: Key, now: datetime) -> bytes:
    delegations = create.delegate(
        list(approvers.keys.values()), max(1, approvers.threshold), rollouts
    )
    expires = now + create.TARGETS_EXPIRES
    return create.serialise(
        Metadata(Targets(version=version, expires=expires, delegations=delegations))
    )


def _models(base: InForce, before: Powers, now: datetime) -> bytes:
    """The same entries, to be signed again."""
    listed = Metadata[Targets].from_bytes(base.models).signed.targets
    version = before.versions["models"] + 1
    return create.serialise(
        Metadata(
            Targets(version=version, expires=now + create.MODELS_EXPIRES, targets=dict(listed))
        )
    )


def _holds(targets: bytes, models: bytes) -> bool:
    """Whether the list in force reaches the threshold of these approvers."""
    metadata = Metadata[Targets].from_bytes(models)
    delegator = Metadata[Targets].from_bytes(targets).signed
    try:
        delegator.verify_delegate("models", metadata.signed_bytes, metadata.signatures)
    except RepositoryError:
        return False
    return True


def _only(holding: Holding) -> Key:
    if len(holding.keys) != 1:
        raise TrustError("OUT-T124", "an online role has one key; name it")
    return next(iter(holding.keys.values()))


def _find(role: str, name: str, found: Mapping[str, Key]) -> str:
    by_name = [keyid for keyid, key in found.items() if keys.holder(key) == name]
    by_id = [keyid for keyid in found if len(name) >= _SHORTEST_ID and keyid.startswith(name)]
    chosen = by_name or by_id
    if len(chosen) != 1:
        names = ", ".join(keys.holders(found.values()))
        why = f"{name} is {'several' if chosen else 'none'} of {role}: {names}"
        raise InvalidRequest("OUT-T117", why)
    return chosen[0]
