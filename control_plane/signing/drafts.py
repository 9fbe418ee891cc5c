"""Drafts of role models: what approvers are asked to sign.

A draft is a set of changes to the list in force; without changes it is the same list for another
90 days. The server makes it and collects signatures; it can never complete it. When the list in
force changes first, the draft is made again on the new one and its signatures are gone: nobody
signed *that* list.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from tuf.api.metadata import Metadata, TargetFile, Targets

from control_plane.signing import durable
from control_plane.signing.create import MODELS_EXPIRES, serialise
from control_plane.signing.review import least
from protocol import codec
from protocol.approval import Approvals, Approved, ApprovedBundle
from protocol.bundle import Index
from protocol.identifiers import Count, Digest, ModelName, Version, digest_hex
from protocol.targets import bundle_path

MAX_BYTES: Final = 2 * codec.MAX_TUF_ROLE

DraftKind = Literal["approve", "restore", "revoke", "renew", "change"]
"""`restore` approves what is revoked; `change` is anything that no command of ours drafts."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the list as it should be. `terms` None takes the entry off the list."""

    model: ModelName
    version: Version
    digest: Digest
    """Of the bundle's index."""
    length: Count
    """Bytes of the index."""
    terms: Approved | None = Approved()

    @property
    def path(self) -> str:
        return bundle_path(self.model, self.version)


@dataclass(frozen=True, slots=True)
class Draft:
    """`data` is the whole file as it would be published, with the signatures so far.

    The audit head that its entries anchor is in `data` only: `changes`, and so the id, are the
    same whenever it is made.
    """

    id: str
    changes: tuple[Change, ...]
    base: Digest
    """Of the list in force that it was made from."""
    version: Count
    data: bytes
    by: str = ""
    """Who asked for it, and why: told to approvers, not signed."""
    why: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        return tuple(f"{each.model}/{each.version}" for each in self.changes)

    def metadata(self) -> Metadata[Targets]:
        return Metadata[Targets].from_bytes(self.data)

    def lapses_soon(self, now: datetime) -> bool:
        """Whether half the time for which it would be valid has gone by unsigned."""
        return self.metadata().signed.expires - now < MODELS_EXPIRES / 2


@dataclass(frozen=True, slots=True)
class SignatureStatus:
    """How far a draft is. `by` names holders, `missing` those who have not signed."""

    signed: int
    needed: int
    by: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return self.signed >= self.needed


def draft_id(changes: tuple[Change, ...]) -> str:
    """The same changes are the same draft."""
    return hashlib.sha256(codec.encode(changes)).hexdigest()[:16]


def make(
    changes: tuple[Change, ...],
    current: Metadata[Targets],
    base: Digest,
    version: int,
    now: datetime,
    audit_head: str = "",
) -> Draft:
    """`audit_head` is what the entries that it changes anchor."""
    signed = Targets(version=version, expires=now + MODELS_EXPIRES)
    signed.targets = dict(current.signed.targets)
    for change in changes:
        if change.terms is None:
            signed.targets.pop(change.path, None)
        else:
            head = audit_head or change.terms.audit_head
            terms = dataclasses.replace(change.terms, audit_head=head)
            signed.targets[change.path] = _target(change, terms)
    return Draft(draft_id(changes), changes, base, version, serialise(Metadata(signed)))


def kind(changes: Iterable[Change], listed: Approvals) -> DraftKind:
    """What a draft is for, seen from the list in force."""
    changes = tuple(changes)
    if not changes:
        return "renew"
    if len(changes) > 1 or changes[0].terms is None:
        return "change"
    if changes[0].terms.state == "revoked":
        return "revoke"
    before = listed.get(changes[0].digest)
    if before is None:
        return "approve"
    return "restore" if before.revoked else "change"


def is_moot(changes: Iterable[Change], listed: Approvals) -> bool:
    """Whether the list in force says all of it already. Renewing is never moot by what it says."""
    changes = tuple(changes)
    return bool(changes) and all(_says(change, listed) for change in changes)


def _says(change: Change, listed: Approvals) -> bool:
    there: ApprovedBundle | None = listed.get(change.digest)
    if change.terms is None or there is None:
        return change.terms is None and there is None
    return dataclasses.replace(there.terms, audit_head="") == change.terms


def _target(change: Change, terms: Approved) -> TargetFile:
    custom: dict[str, Any] = {"custom": codec.to_wire(terms)}
    return TargetFile(change.length, {"sha256": digest_hex(change.digest)}, change.path, custom)


def approval(index: Index, digest: Digest, length: int) -> Change:
    """The entry that approves a bundle as it was pushed."""
    needs = least(each.needs for each in index.variants)
    return Change(index.model, index.version, digest, length, Approved(needs=needs))


class Drafts:
    """One file per draft."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def all(self) -> tuple[Draft, ...]:
        return tuple(self._read(path) for path in sorted(self._directory.glob("*.json")))

    def get(self, identifier: str) -> Draft | None:
        path = self._path(identifier)
        return self._read(path) if path.exists() else None

    def put(self, draft: Draft) -> None:
        durable.replace(self._path(draft.id), codec.encode(draft))

    def remove(self, identifier: str) -> None:
        self._path(identifier).unlink(missing_ok=True)

    def _path(self, identifier: str) -> Path:
        if not identifier.isalnum():
            raise ValueError(f"not a draft: {identifier!r:.40}")
        return self._directory / f"{identifier}.json"

    def _read(self, path: Path) -> Draft:
        return codec.decode(path.read_bytes(), Draft, limit=MAX_BYTES)
