"""The first metadata of a fleet: all roles, their keys, thresholds and expiries.

The offline ceremony and `init --dev` make the same roles and files; they differ in who holds the
keys and how many must sign. Role names are for life: a role can never leave the snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets
from tuf.api.serialization.json import JSONSerializer

from control_plane.signing import durable, keys

ROOT_EXPIRES: Final = timedelta(days=365)
TARGETS_EXPIRES: Final = timedelta(days=400)
"""Not root's date, so that both never lapse together."""
MODELS_EXPIRES: Final = timedelta(days=90)
"""The bound on how long stolen online keys can hide a revocation."""

ROOT_KEY: Final = "root-1.pem"
APPROVER_KEY: Final = "approver-dev.pem"
ROLLOUTS_KEY: Final = "online-rollouts.pem"
SNAPSHOT_KEY: Final = "online-snapshot.pem"


@dataclass(frozen=True, slots=True)
class Signers:
    """A role's holders and how many of them must sign."""

    keys: Sequence[CryptoSigner]
    threshold: int

    @property
    def keyids(self) -> list[str]:
        return [key.public_key.keyid for key in self.keys]


@dataclass(frozen=True, slots=True)
class Ceremony:
    """Everybody who signs for a fleet. `root` holders also sign targets."""

    root: Signers
    approvers: Signers
    rollouts: CryptoSigner
    snapshot: CryptoSigner
    """Also signs timestamp."""


def create(directory: Path, ceremony: Ceremony, now: datetime) -> None:
    """Write `root/1.json`, `targets.json` and an empty `models.json`; the rest is online."""
    root = Root(expires=now + ROOT_EXPIRES, consistent_snapshot=False)
    for role in ("root", "targets"):
        for signer in ceremony.root.keys:
            root.add_key(signer.public_key, role)
        root.roles[role].threshold = ceremony.root.threshold
    for role in ("snapshot", "timestamp"):
        root.add_key(ceremony.snapshot.public_key, role)
    (directory / "root").mkdir(parents=True, exist_ok=True)
    write(directory / "root" / "1.json", Metadata(root), ceremony.root.keys)
    targets = Targets(expires=now + TARGETS_EXPIRES, delegations=delegations(ceremony))
    write(directory / "targets.json", Metadata(targets), ceremony.root.keys)
    models = Targets(expires=now + MODELS_EXPIRES)
    write(directory / "models.json", Metadata(models), ceremony.approvers.keys)


def delegations(ceremony: Ceremony) -> Delegations:
    """Approvers say which bundles may run; the online key only chooses among them."""
    signers = [*ceremony.approvers.keys, ceremony.rollouts]
    rollouts_key = ceremony.rollouts.public_key.keyid
    approvers = ceremony.approvers
    models = DelegatedRole(
        "models", approvers.keyids, approvers.threshold, True, paths=["models/*/*"]
    )
    rollouts = DelegatedRole("rollouts", [rollouts_key], 1, True, paths=["rollouts/*"])
    return Delegations(
        keys={signer.public_key.keyid: signer.public_key for signer in signers},
        roles={"models": models, "rollouts": rollouts},
    )


def dev_ceremony(keys_directory: Path) -> Ceremony:
    """Everybody is this machine, one signature is enough: for development only.

    Raises `FileExistsError` if there are keys already.
    """
    holder = Signers([keys.generate(keys_directory / ROOT_KEY, "dev root")], 1)
    approver = Signers([keys.generate(keys_directory / APPROVER_KEY, "dev keys")], 1)
    return Ceremony(
        root=holder,
        approvers=approver,
        rollouts=keys.generate(keys_directory / ROLLOUTS_KEY, "rollouts"),
        snapshot=keys.generate(keys_directory / SNAPSHOT_KEY, "snapshot"),
    )


def write(path: Path, metadata: Metadata, signers: Sequence[CryptoSigner]) -> bytes:  # type: ignore[type-arg]  # any role
    """Sign, write durably, and return the bytes that were written."""
    for signer in signers:
        metadata.sign(signer, append=True)
    data = serialise(metadata)
    durable.replace(path, data)
    return data


def serialise(metadata: Metadata) -> bytes:  # type: ignore[type-arg]  # any role
    return metadata.to_bytes(JSONSerializer(compact=True))
