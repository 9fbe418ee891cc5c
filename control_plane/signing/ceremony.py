"""A ceremony: metadata that is proposed, on top of what is in force, and who must still sign it.

Pure: bytes and the time come in, a verdict goes out. The same checks decide at every holder's
desk, before publication and on the server, so nobody signs what the next one would refuse.

    proposal = base (in force) + new root / targets / models, each with its signatures so far

Changes of keys never change what is approved: a proposal's models lists what is listed in force.

What a proposal may say at all is in `ceremony_rules`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, T, Targets, VerificationResult

from control_plane.signing import create, keys
from protocol import codec
from protocol.errors import InvalidRequest, TrustError

What = Literal["init", "rotate", "renew"]
PROPOSED: Final = ("root", "targets", "models")
"""Roles that people sign, in the order in which they are verified."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What a fleet trusts: its roots by number, and the two lists that people sign, as files.

    Holders need not have every root: those from one that they know to the newest.
    """

    roots: Mapping[int, bytes]
    targets: bytes
    models: bytes

    @property
    def newest(self) -> int:
        return max(self.roots)

    @property
    def root(self) -> bytes:
        return self.roots[self.newest]


@dataclass(frozen=True, slots=True)
class Proposal:
    """`base` None: the first root of a fleet. A role that stays as it is is None."""

    fleet: str
    what: What
    made: datetime
    base: InForce | None = None
    root: bytes | None = None
    targets: bytes | None = None
    models: bytes | None = None

    def file(self, role: str) -> bytes | None:
        found: bytes | None = getattr(self, role)
        return found

    def with_file(self, role: str, data: bytes) -> Proposal:
        changed: dict[str, Any] = {role: data}
        return dataclasses.replace(self, **changed)

    def result(self) -> InForce:
        """What would be in force. Raises `TrustError` (OUT-T124) if a file is missing for that."""
        base = self.base
        roots = dict(base.roots) if base else {}
        if self.root is not None:
            roots[max(roots, default=0) + 1] = self.root
        targets = self.targets or (base.targets if base else None)
        models = self.models or (base.models if base else None)
        if not roots or targets is None or models is None:
            raise refused("a first root comes with targets and models")
        return InForce(roots, targets, models)


@dataclass(frozen=True, slots=True)
class Holding:
    """Who signs a role: key id to key, and how many of them it takes."""

    keys: Mapping[str, Key]
    threshold: int

    @property
    def names(self) -> tuple[str, ...]:
        return keys.holders(self.keys.values())

    @property
    def said(self) -> str:
        """ "2 of ana, bo, cy"."""
        return f"{self.threshold} of {', '.join(self.names)}"

    def same(self, other: Holding) -> bool:
        return (set(self.keys), self.threshold) == (set(other.keys), other.threshold)


@dataclass(frozen=True, slots=True)
class Powers:
    """Who may sign what, until when; `root` holders also sign targets."""

    root: Holding
    models: Holding
    rollouts: Holding
    snapshot: Holding
    """Also of timestamp."""
    versions: Mapping[str, int]
    expires: Mapping[str, datetime]
    listed: int
    """Entries in models."""

    def of(self, role: str) -> Holding:
        found: Holding = getattr(self, {"targets": "root", "timestamp": "snapshot"}.get(role, role))
        return found


@dataclass(frozen=True, slots=True)
class Need:
    """Signatures that one file needs from one set of keys."""

    role: str
    version: int
    by: str
    """Whose: "holders of root 1", "approvers"."""
    needed: int
    keyids: frozenset[str]
    signed: tuple[str, ...]
    missing: tuple[str, ...]
    """Names of those who may still sign."""

    @property
    def complete(self) -> bool:
        return len(self.signed) >= self.needed

    @property
    def file(self) -> str:
        return f"{self.role} {self.version}"

    @property
    def said(self) -> str:
        """ "1 of 2; bo or cy is missing"."""
        so_far = f"{len(self.signed)} of {self.needed}"
        if self.complete:
            return f"{so_far}: {', '.join(self.signed)}"
        more = self.needed - len(self.signed)
        if more == 1:
            return f"{so_far}; {' or '.join(self.missing)} is missing"
        return f"{so_far}; {more} of {', '.join(self.missing)} are missing"


# --- reading --------------------------------------------------------------------------------------


def powers(state: InForce) -> Powers:
    """Raises `TrustError` (OUT-T124)."""
    root = read_role(state.root, Root, "root")
    targets = read_role(state.targets, Targets, "targets")
    models = read_role(state.models, Targets, "models")
    if targets.delegations is None or targets.delegations.roles is None:
        raise refused("targets delegates nothing")
    return Powers(
        root=holding(root, "root"),
        models=holding(targets, "models"),
        rollouts=holding(targets, "rollouts"),
        snapshot=holding(root, "snapshot"),
        versions={"root": root.version, "targets": targets.version, "models": models.version},
        expires={"root": root.expires, "targets": targets.expires, "models": models.expires},
        listed=len(models.targets),
    )


def holding(delegator: Root | Targets, name: str) -> Holding:
    try:
        role = delegator.get_delegated_role(name)
        found = {keyid: delegator.get_key(keyid) for keyid in role.keyids}
    except (ValueError, KeyError) as error:
        raise refused(f"nobody has the role {name}") from error
    return Holding(found, role.threshold)


def metadata_of(data: bytes, kind: type[T], role: str) -> Metadata[T]:
    if len(data) > codec.MAX_TUF_ROLE:
        raise refused(f"{role} has {len(data):,} bytes")
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise refused(f"{role}: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise refused(f"{role} is a {metadata.signed.type}")
    return cast("Metadata[T]", metadata)


def read_role(data: bytes, kind: type[T], role: str) -> T:
    return metadata_of(data, kind, role).signed


def _parsed(data: bytes, role: str) -> Metadata[Any]:
    return metadata_of(data, Root if role == "root" else Targets, role)


# --- signatures -----------------------------------------------------------------------------------


def needs(proposal: Proposal) -> tuple[Need, ...]:
    """All signatures that the proposal takes, and how far each file is."""
    return tuple(_needs(proposal))


def _needs(proposal: Proposal) -> Iterator[Need]:
    base, result = proposal.base, proposal.result()
    root = read_role(result.root, Root, "root")
    if proposal.root is not None:
        before = read_role(base.root, Root, "root") if base is not None else root
        changed = not holding(before, "root").same(holding(root, "root"))
        if changed:
            yield _need(before, "root", proposal.root, f"holders of root {before.version}")
        by = f"holders of root {root.version}" if changed else "holders of root"
        yield _need(root, "root", proposal.root, by)
    if proposal.targets is not None:
        yield _need(root, "targets", proposal.targets, "holders of root")
    if proposal.models is not None:
        targets = read_role(result.targets, Targets, "targets")
        yield _need(targets, "models", proposal.models, "approvers")


def _need(delegator: Root | Targets, role: str, data: bytes, by: str) -> Need:
    metadata = _parsed(data, role)
    result: VerificationResult = delegator.get_verification_result(
        role, metadata.signed_bytes, metadata.signatures
    )
    return Need(
        role=role,
        version=metadata.signed.version,
        by=by,
        needed=result.threshold,
        keyids=frozenset({*result.signed, *result.unsigned}),
        signed=keys.holders(result.signed.values()),
        missing=keys.holders(result.unsigned.values()),
    )


def require_complete(proposal: Proposal) -> None:
    """Raises `TrustError` (OUT-T123)."""
    lacking = [need for need in needs(proposal) if not need.complete]
    if lacking:
        why = "; ".join(f"{need.file} has {need.said}" for need in lacking)
        raise TrustError("OUT-T123", why)


def signable(proposal: Proposal, keyid: str) -> tuple[str, ...]:
    """Roles of which this key may sign the proposed file."""
    asked = {need.role for need in needs(proposal) if keyid in need.keyids}
    return tuple(role for role in PROPOSED if role in asked)


def require_signable(proposal: Proposal, keyid: str) -> tuple[str, ...]:
    """Like `signable`. Raises `InvalidRequest` (OUT-T112) if that is nothing."""
    roles = signable(proposal, keyid)
    if not roles:
        names = sorted({name for need in needs(proposal) for name in (*need.signed, *need.missing)})
        raise InvalidRequest(
            "OUT-T112",
            f"key {keyid[: keys.SHORT]} may sign none of it",
            do=f"it takes the keys of {', '.join(names)}",
        )
    return roles


def sign(proposal: Proposal, signer: CryptoSigner) -> Proposal:
    """With this key's signatures. Raises `InvalidRequest` (OUT-T112) if it may sign nothing."""
    roles = require_signable(proposal, signer.public_key.keyid)
    for role in roles:
        metadata = _parsed(cast(bytes, proposal.file(role)), role)
        metadata.sign(signer, append=True)
        proposal = proposal.with_file(role, create.serialise(metadata))
    return proposal


def expires(data: bytes) -> datetime:
    """Of any role's file. Raises `TrustError` (OUT-T124)."""
    try:
        signed: Signed = Metadata.from_bytes(data).signed
        return signed.expires
    except RepositoryError as error:
        raise refused(str(error)) from error


def content(proposal: Proposal, role: str) -> bytes:
    """What signatures are over."""
    return _parsed(cast(bytes, proposal.file(role)), role).signed_bytes


def same_content(one: bytes, other: bytes) -> bool:
    """Whether two roots differ in nothing but their signatures."""
    return _parsed(one, "root").signed_bytes == _parsed(other, "root").signed_bytes


# --- a holder's own copy --------------------------------------------------------------------------


def require_continues(own: InForce, base: InForce) -> None:
    """What the ceremony starts from must follow from what its signer has seen themselves.

    Raises `TrustError` (OUT-T124): another chain of roots, or older than the signer's own copy.
    """
    joint = set(own.roots) & set(base.roots)
    if not joint:
        raise refused("it has none of the roots of your own copy")
    for number in joint:
        if not same_content(own.roots[number], base.roots[number]):
            raise refused(f"your own copy has another root {number}: another fleet, or a fork")
    mine_now, theirs_now = powers(own).versions, powers(base).versions
    for role in PROPOSED:
        if theirs_now[role] < mine_now[role]:
            raise refused(
                f"it starts from {role} {theirs_now[role]}; your own copy is {mine_now[role]}"
            )


def refused(why: str) -> TrustError:
    return TrustError("OUT-T124", why)
