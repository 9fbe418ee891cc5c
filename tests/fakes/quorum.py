"""A fleet whose root takes two of three holders and whose approvals take two of three approvers.

`replace_keys` is an honest ceremony, as short as it can be: whose keys count is all that attacks
ask of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from control_plane.signing import create, keys
from control_plane.signing.create import Ceremony, Signers
from control_plane.signing.repository import Repository
from tests.fakes.fleet_trust import FLEET, START_MS, Fleet
from tests.fakes.forgery import serialise

QUORUM = 2


def quorum_fleet(folder: Path) -> Fleet:
    """Its empty list of approvals is published."""
    fleet = Fleet(folder / "quorum")
    fleet.holders = new_keys(3)
    fleet.approvers = [keys.generate(folder / f"{name}.pem", name) for name in ("ana", "bo", "cy")]
    ceremony = Ceremony(
        root=Signers(fleet.holders, QUORUM),
        approvers=Signers(fleet.approvers, QUORUM),
        rollouts=fleet.signer(create.ROLLOUTS_KEY),
        snapshot=fleet.signer(create.SNAPSHOT_KEY),
    )
    create.create(fleet.tuf, ceremony, datetime.fromtimestamp(START_MS / 1000, UTC))
    fleet.repository = Repository.open(fleet.tuf, fleet.keys, FLEET)
    fleet.publish()
    return fleet


def new_keys(number: int) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(number)]


def next_root(
    fleet: Fleet, holders: Sequence[CryptoSigner], online: CryptoSigner | None = None
) -> Metadata[Root]:
    """The root after the last, with these holders (and this online key), signed by nobody yet."""
    roots = fleet.repository.roots()
    metadata = Metadata[Root].from_bytes(roots[max(roots)])
    root = metadata.signed
    root.version += 1
    for role in ("root", "targets"):
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        for holder in holders:
            root.add_key(holder.public_key, role)
    if online is not None:
        for role in ("snapshot", "timestamp"):
            root.revoke_key(root.roles[role].keyids[0], role)
            root.add_key(online.public_key, role)
    metadata.signatures.clear()
    return metadata


def replace_keys(
    fleet: Fleet,
    *,
    holders: Sequence[CryptoSigner] | None = None,
    approvers: Sequence[CryptoSigner] | None = None,
    online: bool = False,
) -> None:
    """Put a root on the broker in which these people hold the keys, and all that follows from it.

    `online` replaces the keys of the control plane.
    """
    before, after = list(fleet.holders), list(holders or fleet.holders)
    rollouts, snapshot = new_keys(2) if online else (None, None)
    root = next_root(fleet, after, snapshot)
    for holder in {id(each): each for each in (*before[:QUORUM], *after[:QUORUM])}.values():
        root.sign(holder, append=True)
    (fleet.tuf / "root" / f"{root.signed.version}.json").write_bytes(serialise(root))
    fleet.holders, fleet.approvers = after, list(approvers or fleet.approvers)
    if rollouts is not None and snapshot is not None:
        (fleet.keys / create.ROLLOUTS_KEY).write_bytes(rollouts.private_bytes)
        (fleet.keys / create.SNAPSHOT_KEY).write_bytes(snapshot.private_bytes)
        for role in ("rollouts", "snapshot", "timestamp"):
            (fleet.tuf / f"{role}.json").unlink()
    _delegate(fleet)
    _sign_again(fleet, "models", fleet.approvers)
    fleet.reopen()
    fleet.publish()


def _delegate(fleet: Fleet) -> None:
    """Role targets, with the keys as they are now."""
    path = fleet.tuf / "targets.json"
    metadata = Metadata[Targets].from_bytes(path.read_bytes())
    delegations = metadata.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.keys.clear()
    for role, signers in {
        "models": fleet.approvers,
        "rollouts": [fleet.signer(create.ROLLOUTS_KEY)],
    }.items():
        delegations.keys |= {each.public_key.keyid: each.public_key for each in signers}
        delegations.roles[role].keyids = [each.public_key.keyid for each in signers]
    path.write_bytes(serialise(metadata))
    _sign_again(fleet, "targets", fleet.holders)


def _sign_again(fleet: Fleet, role: str, signers: Sequence[CryptoSigner]) -> None:
    path = fleet.tuf / f"{role}.json"
    metadata = Metadata[Targets].from_bytes(path.read_bytes())
    metadata.signed.version += 1
    metadata.signatures.clear()
    for signer in signers[:QUORUM]:
        metadata.sign(signer, append=True)
    path.write_bytes(serialise(metadata))
