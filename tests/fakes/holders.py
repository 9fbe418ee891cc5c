"""People with keys of their own, and a fleet whose root they made in a ceremony."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Key

from control_plane.signing import ceremony, keys, rotation
from control_plane.signing.ceremony import Holding, Proposal
from control_plane.signing.create import ONLINE
from control_plane.signing.installing import Install
from control_plane.signing.online_keys import OnlineKeys
from control_plane.signing.repository import Repository
from control_plane.signing.rotation import NOTHING, Change, majority
from tests.fakes.fleet_trust import FLEET, Fleet

HOLDERS = ("ana", "bo", "cy")
APPROVERS = ("dan", "eve", "fay")


class People:
    """`signer("ana")`: always the same key, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def signer(self, name: str) -> CryptoSigner:
        path = self.folder / f"{name}.pem"
        if not path.exists():
            keys.write_public(path.with_suffix(".pub"), keys.generate(path, name).public_key)
        return keys.load(path, name)

    def key(self, name: str) -> Key:
        return self.signer(name).public_key

    def keys(self, *names: str) -> list[Key]:
        return [self.key(name) for name in names]

    def holding(self, names: Sequence[str], threshold: int | None = None) -> Holding:
        found = {key.keyid: key for key in self.keys(*names)}
        return Holding(found, majority(found) if threshold is None else threshold)

    def sign(self, proposal: Proposal, *names: str) -> Proposal:
        for name in names:
            proposal = ceremony.sign(proposal, self.signer(name))
        return proposal


class HeldFleet(Fleet):
    """Root by two of ana, bo, cy; approvals by two of dan, eve, fay. Nothing is published yet."""

    def __init__(self, home: Path, people: People | None = None) -> None:
        super().__init__(home)
        self.people = people or People(home / "people")
        shutil.rmtree(self.tuf)
        shutil.rmtree(self.keys)
        for which in ONLINE:
            self.online.generate(which)
        proposal = self.people.sign(self.first(), "ana", "bo", "dan", "eve")
        self.repository = Repository.found(
            self.tuf, self.keys, FLEET, Install.of(proposal), self.now_ms
        )
        self.approvers = [self.people.signer(name) for name in APPROVERS]

    @property
    def online(self) -> OnlineKeys:
        return OnlineKeys(self.keys)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms // 1000, UTC)

    def first(
        self, holders: Sequence[str] = HOLDERS, approvers: Sequence[str] = APPROVERS, **more: Any
    ) -> Proposal:
        servers = self.online.wanted()
        return rotation.first(
            more.get("fleet", FLEET),
            self.people.holding(holders, more.get("root_threshold")),
            self.people.holding(approvers, more.get("approver_threshold")),
            rollouts=servers["rollouts"],
            snapshot=servers["snapshot"],
            now=self.now,
        )

    def proposed(
        self, *, root: Change = NOTHING, models: Change = NOTHING, online: Sequence[str] = ()
    ) -> Proposal:
        """`online`: roles whose keys are made anew."""
        for which in online:
            self.online.generate(which, following=True)
        servers = self.online.wanted()
        return rotation.rotate(
            FLEET,
            self.repository.in_force(),
            self.now,
            root=root,
            models=models,
            rollouts=servers["rollouts"],
            snapshot=servers["snapshot"],
        )

    def install(self, proposal: Proposal) -> bool:
        return self.repository.install(Install.of(proposal), self.now_ms)

    def replaced(self, out: str, new: str) -> Change:
        return Change([self.people.key(new)], [out])

    def rotate(self, *signers: str, **changes: Any) -> None:
        """Proposed, signed, installed, on the broker."""
        self.install(self.people.sign(self.proposed(**changes), *signers))
        self.publish()
