"""A ceremony: metadata that is proposed, on top of what is in force, and who must still sign it.

Pure: bytes and the time come in, a verdict goes out. The same checks decide at every holder's
desk, before publication and on the server, so nobody signs what the next one would refuse.

    proposal = base (in force) + new root / targets / models, each with its signatures so far

Changes of keys never change what is approved: a proposal's models lists what is listed in force.

Long because every rule about what a proposal may say stands next to the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast, get_args

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, T, Targets, VerificationResult

from control_plane.signing import create, keys
from protocol import codec
from protocol.errors import InvalidRequest, TrustError

What = Literal["init", "rotate", "renew"]
WHATS: Final[tuple[What, ...]] = get_args(What)
PROPOSED: Final = ("root", "targets", "models")
"""Roles that people sign, in the order in which they are verified."""

_SLACK: Final = timedelta(days=1)
"""Clocks of holders and servers differ a little."""
_LONGEST: Final = {
    "root": create.ROOT_EXPIRES,
    "targets": create.TARGETS_EXPIRES,
    "models": create.MODELS_EXPIRES,
}


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

    def result(self) -> InForce:
        """What would be in force. Raises `TrustError` (OUT-T124) if a file is missing for that."""
        base = self.base
        roots = dict(base.roots) if base else {}
        if self.root is not None:
            roots[max(roots, default=0) + 1] = self.root
        targets = self.targets or (base.targets if base else None)
        models = self.models or (base.models if base else None)
        if not roots or targets is None or models is None:
            raise _refused("a first root comes with targets and models")
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
    root = _read(state.root, Root, "root")
    targets = _read(state.targets, Targets, "targets")
    models = _read(state.models, Targets, "models")
    if targets.delegations is None or targets.delegations.roles is None:
        raise _refused("targets delegates nothing")
    return Powers(
        root=_holding(root, "root"),
        models=_holding(targets, "models"),
        rollouts=_holding(targets, "rollouts"),
        snapshot=_holding(root, "snapshot"),
        versions={"root": root.version, "targets": targets.version, "models": models.version},
        expires={"root": root.expires, "targets": targets.expires, "models": models.expires},
        listed=len(models.targets),
    )


def _holding(delegator: Root | Targets, name: str) -> Holding:
    try:
        role = delegator.get_delegated_role(name)
        found = {keyid: delegator.get_key(keyid) for keyid in role.keyids}
    except (ValueError, KeyError) as error:
        raise _refused(f"nobody has the role {name}") from error
    return Holding(found, role.threshold)


def _metadata(data: bytes, kind: type[T], role: str) -> Metadata[T]:
    if len(data) > codec.MAX_TUF_ROLE:
        raise _refused(f"{role} has {len(data):,} bytes")
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise _refused(f"{role}: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise _refused(f"{role} is a {metadata.signed.type}")
    return cast("Metadata[T]", metadata)


def _read(data: bytes, kind: type[T], role: str) -> T:
    return _metadata(data, kind, role).signed


def _parsed(data: bytes, role: str) -> Metadata[Any]:
    return _metadata(data, Root if role == "root" else Targets, role)


# --- checking -------------------------------------------------------------------------------------


def check(proposal: Proposal, now: datetime) -> None:
    """Everything but the signatures that are still to come.

    Raises `TrustError` (OUT-T124) for what may not be proposed, `InvalidRequest` (OUT-T117) for
    keys that make no valid role.
    """
    base, result = proposal.base, proposal.result()
    if base is not None:
        check_in_force(base)
    if not any(proposal.file(role) for role in PROPOSED):
        raise _refused("it changes nothing")
    if base is None and not all(proposal.file(role) for role in PROPOSED):
        raise _refused("a first root comes with targets and models")
    before = powers(base) if base is not None else None
    after = powers(result)
    for role in PROPOSED:
        data = proposal.file(role)
        if data is not None:
            _check_version(role, after.versions[role], before)
            _check_time(role, after.expires[role], now)
    if proposal.root is not None:
        _check_root(_read(proposal.root, Root, "root"))
    if proposal.targets is not None:
        _check_targets(_read(proposal.targets, Targets, "targets"))
    if proposal.models is not None:
        _check_models(proposal.models, base)
    require_distinct(after)
    _check_what_stays(proposal, result)


def check_in_force(state: InForce) -> None:
    """One chain of roots, and lists that its holders signed. Raises `TrustError` (OUT-T124)."""
    numbers = sorted(state.roots)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise _refused("a root is missing")
    before: Root | None = None
    for number in numbers:
        metadata = _metadata(state.roots[number], Root, f"root {number}")
        if metadata.signed.version != number:
            raise _refused(f"root {number} says that it is {metadata.signed.version}")
        for delegator in (before or metadata.signed, metadata.signed):
            _verify(delegator, "root", metadata, f"root {number}")
        before = metadata.signed
    assert before is not None
    targets = _metadata(state.targets, Targets, "targets")
    _verify(before, "targets", targets, "targets")
    _verify(targets.signed, "models", _metadata(state.models, Targets, "models"), "models")


def require_distinct(after: Powers) -> None:
    """Raises `InvalidRequest` (OUT-T117)."""
    for role, holding in (("root", after.root), ("models", after.models)):
        if not 1 <= holding.threshold <= len(holding.keys):
            raise InvalidRequest(
                "OUT-T117", f"{role}: {holding.threshold} of {len(holding.keys)} keys cannot sign"
            )
        twice = sorted({name for name in holding.names if holding.names.count(name) > 1})
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


def _check_version(role: str, version: int, before: Powers | None) -> None:
    expected = before.versions[role] + 1 if before is not None else 1
    if version < expected:
        raise _refused(f"{role} {version} is older than what is in force, {role} {expected - 1}")
    if version > expected:
        raise _refused(f"{role} {version} does not follow {role} {expected - 1}")


def _check_time(role: str, expires: datetime, now: datetime) -> None:
    if expires <= now:
        raise _refused(f"{role} expired {expires:%Y-%m-%d}")
    if expires > now + _LONGEST[role] + _SLACK:
        raise _refused(f"{role} would be valid until {expires:%Y-%m-%d}")


def _check_root(root: Root) -> None:
    _require_sayable(root)
    if root.consistent_snapshot is not False:
        raise _refused("root asks for consistent snapshots")
    for one, other in (("root", "targets"), ("snapshot", "timestamp")):
        if not _holding(root, one).same(_holding(root, other)):
            raise _refused(f"{one} and {other} always have the same keys")
    snapshot = _holding(root, "snapshot")
    if (len(snapshot.keys), snapshot.threshold) != (1, 1):
        raise _refused("snapshot has one key")
    used = {keyid for role in root.roles.values() for keyid in role.keyids}
    if any(role.unrecognized_fields for role in root.roles.values()) or set(root.keys) != used:
        raise _refused("root says something that cannot be shown")
    _require_sound(root.keys)


def _check_targets(targets: Targets) -> None:
    _require_sayable(targets)
    delegations = targets.delegations
    roles = delegations.roles if delegations is not None else None
    if delegations is None or roles is None or targets.targets:
        raise _refused("targets delegates models and rollouts, nothing else")
    holding = {name: _holding(targets, name) for name in ("models", "rollouts")}
    rollouts = holding["rollouts"]
    if (len(rollouts.keys), rollouts.threshold) != (1, 1):
        raise _refused("rollouts has one key")
    expected = create.delegate(
        list(holding["models"].keys.values()),
        max(1, holding["models"].threshold),
        next(iter(rollouts.keys.values())),
    )
    if list(roles) != ["models", "rollouts"] or delegations.to_dict() != expected.to_dict():
        raise _refused("targets says something that cannot be shown")
    _require_sound(delegations.keys)


def _check_models(data: bytes, base: InForce | None) -> None:
    models = _read(data, Targets, "models")
    _require_sayable(models)
    if models.delegations is not None:
        raise _refused("models delegates")
    listed = _read(base.models, Targets, "models").targets if base is not None else {}
    if models.targets != listed:
        raise _refused("it changes which versions are approved")


def _check_what_stays(proposal: Proposal, result: InForce) -> None:
    """What is not proposed anew must hold under the new keys too: else devices would be stuck."""
    if proposal.targets is None:
        root = _read(result.root, Root, "root")
        _verify(root, "targets", _metadata(result.targets, Targets, "targets"), _stuck("targets"))
    if proposal.models is None:
        targets = _read(result.targets, Targets, "targets")
        _verify(targets, "models", _metadata(result.models, Targets, "models"), _stuck("models"))


def _stuck(role: str) -> str:
    return f"{role} was not signed again, and the new keys did not sign the one in force"


def _verify(
    delegator: Root | Targets, name: str, metadata: Metadata[Any], what: str
) -> None:
    try:
        delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise _refused(f"{what}: {error}") from error


def _require_sayable(signed: Signed) -> None:
    if signed.unrecognized_fields:
        raise _refused(f"{signed.type} says something that cannot be shown")


def _require_sound(found: Mapping[str, Key]) -> None:
    for key in found.values():
        try:
            keys.require_sound(key)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest("OUT-T117", str(error)) from error


# --- signatures -----------------------------------------------------------------------------------


def needs(proposal: Proposal) -> tuple[Need, ...]:
    """All signatures that the proposal takes, and how far each file is."""
    return tuple(_needs(proposal))


def _needs(proposal: Proposal) -> Iterator[Need]:
    base, result = proposal.base, proposal.result()
    root = _read(result.root, Root, "root")
    if proposal.root is not None:
        before = _read(base.root, Root, "root") if base is not None else root
        changed = not _holding(before, "root").same(_holding(root, "root"))
        if changed:
            yield _need(before, "root", proposal.root, f"holders of root {before.version}")
        by = f"holders of root {root.version}" if changed or base is None else "holders of root"
        yield _need(root, "root", proposal.root, by)
    if proposal.targets is not None:
        yield _need(root, "targets", proposal.targets, "holders of root")
    if proposal.models is not None:
        targets = _read(result.targets, Targets, "targets")
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


def sign(proposal: Proposal, signer: CryptoSigner) -> Proposal:
    """With this key's signatures. Raises `InvalidRequest` (OUT-T112) if it may sign nothing."""
    keyid = signer.public_key.keyid
    roles = signable(proposal, keyid)
    if not roles:
        names = sorted({name for need in needs(proposal) for name in (*need.signed, *need.missing)})
        raise InvalidRequest(
            "OUT-T112",
            f"key {keyid[: keys.SHORT]} may sign none of it",
            do=f"it takes the keys of {', '.join(names)}",
        )
    for role in roles:
        metadata = _parsed(cast(bytes, proposal.file(role)), role)
        metadata.sign(signer, append=True)
        proposal = dataclasses.replace(proposal, **{role: create.serialise(metadata)})
    return proposal


# --- a holder's own copy --------------------------------------------------------------------------


def require_continues(own: InForce, base: InForce) -> None:
    """What the ceremony starts from must follow from what its signer has seen themselves.

    Raises `TrustError` (OUT-T124): another chain of roots, or older than the signer's own copy.
    """
    joint = set(own.roots) & set(base.roots)
    if not joint:
        raise _refused("it has none of the roots of your own copy")
    for number in joint:
        mine = _metadata(own.roots[number], Root, f"root {number}")
        theirs = _metadata(base.roots[number], Root, f"root {number}")
        if mine.signed_bytes != theirs.signed_bytes:
            raise _refused(f"your own copy has another root {number}: another fleet, or a fork")
    mine_now, theirs_now = powers(own).versions, powers(base).versions
    for role in PROPOSED:
        if theirs_now[role] < mine_now[role]:
            raise _refused(
                f"it starts from {role} {theirs_now[role]}; your own copy is {mine_now[role]}"
            )


def _refused(why: str) -> TrustError:
    return TrustError("OUT-T124", why)
