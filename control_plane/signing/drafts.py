"""Drafts of role models: what approvers are asked to sign.

A draft is a set of changes to the list in force. The server makes it and collects signatures; it
can never complete it. When the list in force changes first, the draft is made again on the new
one and its signatures are gone: nobody signed *that* list.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import Metadata, TargetFile, Targets

from control_plane.signing import durable
from control_plane.signing.create import MODELS_EXPIRES, serialise
from protocol import codec
from protocol.approval import Approved
from protocol.identifiers import Count, Digest, ModelName, Version, digest_hex
from protocol.targets import bundle_path

MAX_BYTES: Final = 2 * codec.MAX_TUF_ROLE


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
    """`data` is the whole file as it would be published, with the signatures so far."""

    id: str
    changes: tuple[Change, ...]
    base: Digest
    """Of the list in force that it was made from."""
    version: Count
    data: bytes

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
) -> Draft:
    signed = Targets(version=version, expires=now + MODELS_EXPIRES)
    signed.targets = dict(current.signed.targets)
    for change in changes:
        if change.terms is None:
            signed.targets.pop(change.path, None)
        else:
            signed.targets[change.path] = _target(change, change.terms)
    return Draft(draft_id(changes), changes, base, version, serialise(Metadata(signed)))


def _target(change: Change, terms: Approved) -> TargetFile:
    custom: dict[str, Any] = {"custom": codec.to_wire(terms)}
    return TargetFile(change.length, {"sha256": digest_hex(change.digest)}, change.path, custom)


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
