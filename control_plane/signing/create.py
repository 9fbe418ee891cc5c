"""The first metadata of a fleet: all roles, their keys, thresholds and expiries.

The offline ceremony and `init --dev` make the same roles and files; they differ in who holds the
keys and how many must sign. Role names are for life: a role can never leave the snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets
from tuf.api.serialization.json import JSONSerializer

from control_plane.signing import durable, keys
from protocol.errors import InvalidRequest

ROOT_EXPIRES: Final = timedelta(days=365)
TARGETS_EXPIRES: Final = timedelta(days=400)
"""Not root's date, so that both never lapse together."""
MODELS_EXPIRES: Final = timedelta(days=90)
"""The bound on how long stolen online keys can hide a revocation."""

ROOT_KEY: Final = "root-1.pem"
APPROVER_KEY: Final = "approver-dev.pem"
ROLLOUTS_KEY: Final = "online-rollouts.pem"
SNAPSHOT_KEY: Final = "online-snapshot.pem"
ONLINE: Final = ("rollouts", "snapshot")
"""Who holds these keys is the server. The second one signs timestamp too."""

_PERSON: Final = re.compile(r"[a-z][a-z0-9]{0,31}")
"""A name that is also a file name, and never one of the files above: they have a hyphen."""


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
    holders = [signer.public_key for signer in ceremony.root.keys]
    root = make_root(1, holders, ceremony.root.threshold, ceremony.snapshot.public_key, now)
    (directory / "root").mkdir(parents=True, exist_ok=True)
    write(directory / "root" / "1.json", Metadata(root), ceremony.root.keys)
    targets = Targets(expires=now + TARGETS_EXPIRES, delegations=delegations(ceremony))
    write(directory / "targets.json", Metadata(targets), ceremony.root.keys)
    models = Targets(expires=now + MODELS_EXPIRES)
    write(directory / "models.json", Metadata(models), ceremony.approvers.keys)


def make_root(
    version: int, holders: Sequence[Key], threshold: int, snapshot: Key, now: datetime
) -> Root:
    """The holders also sign targets; snapshot and timestamp always have the same key."""
    root = Root(version=version, expires=now + ROOT_EXPIRES, consistent_snapshot=False)
    for role in ("root", "targets"):
        for key in holders:
            root.add_key(key, role)
        root.roles[role].threshold = threshold
    for role in ("snapshot", "timestamp"):
        root.add_key(snapshot, role)
    return root


def delegations(ceremony: Ceremony) -> Delegations:
    approvers = [signer.public_key for signer in ceremony.approvers.keys]
    return delegate(approvers, ceremony.approvers.threshold, ceremony.rollouts.public_key)


def delegate(approvers: Sequence[Key], threshold: int, rollouts: Key) -> Delegations:
    """Approvers say which bundles may run; the online key only chooses among them."""
    keyids = [key.keyid for key in approvers]
    roles = {
        "models": DelegatedRole("models", keyids, threshold, True, paths=["models/*/*"]),
        "rollouts": DelegatedRole("rollouts", [rollouts.keyid], 1, True, paths=["rollouts/*"]),
    }
    return Delegations(keys={key.keyid: key for key in (*approvers, rollouts)}, roles=roles)


def dev_ceremony(keys_directory: Path, approvers: Sequence[str] = ()) -> Ceremony:
    """Everybody is this machine: for development only.

    With names of approvers each has a key and more than half of them must sign; without, one
    signature is enough. Raises `InvalidRequest` (OUT-T117) for names that are no two people's,
    `FileExistsError` if there are keys already.
    """
    for name in approvers:
        if not _PERSON.fullmatch(name) or approvers.count(name) > 1:
            raise InvalidRequest("OUT-T117", f"approver {name!r:.40}: small letters, each once")
    holder = Signers([keys.generate(keys_directory / ROOT_KEY, "dev root")], 1)
    files = {f"{name}.pem": name for name in approvers} or {APPROVER_KEY: "dev keys"}
    signers = [keys.generate(keys_directory / file, name) for file, name in files.items()]
    approver = Signers(signers, len(signers) // 2 + 1)
    return Ceremony(
        root=holder,
        approvers=approver,
        rollouts=keys.generate(keys_directory / ROLLOUTS_KEY, "rollouts"),
        snapshot=keys.generate(keys_directory / SNAPSHOT_KEY, "snapshot"),
    )


def dev_approver_keys(keys_directory: Path) -> tuple[Path, ...]:
    """The keys of approvers that `dev_ceremony` made here, in the order of their names."""
    return tuple(
        sorted(
            path
            for path in keys_directory.glob("*.pem")
            if path.name != ROOT_KEY and not path.name.startswith("online-")
        )
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
