"""The approver's side: what exactly would I sign? Then sign it, with a key that stays here.

Nothing the server says is believed. The approver's own TUF client verifies the list in force,
and the draft is compared with it entry by entry; what cannot be shown cannot be signed. The trail
of what people did must go on from where approvers saw it last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater

from control_plane.audit import Anchor, Findings, Line, verify
from control_plane.audit import head_of as chain_head
from control_plane.signing import durable, keys
from control_plane.signing.review import Difference, Listed, anchors, compare, head_of
from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.errors import InvalidRequest, OutriderError, TrustError, Unavailable
from protocol.identifiers import Digest
from protocol.targets import read_bundle

LONGEST: Final = timedelta(days=100)
"""An approval list must not be valid much longer than the 90 days it is made for."""

_LOST: Final = "audit-lost.json"
_SCHEME = "api:/"
_INSIDE_MODELS = "models/any/any"


@dataclass(frozen=True, slots=True)
class Review:
    """Everything that the signature would say, against what is in force."""

    root: int
    trusted: int
    """Version of `models` in force."""
    version: int
    """Of the draft."""
    expires: datetime
    differences: tuple[Difference, ...]
    entries: Mapping[str, Listed]
    """What is in force, by path."""
    needed: int
    """Signatures that put it in force."""
    holders: Mapping[str, str]
    """Of who may sign: key id to name."""
    signed: frozenset[str]
    """Key ids of the signatures that the draft has."""
    draft: Metadata[Targets]

    @property
    def audit_head(self) -> str:
        """What the signature would anchor; "" for nothing. Raises `TrustError` OUT-T114."""
        try:
            return head_of(self.differences)
        except ValueError as error:
            raise TrustError("OUT-T114", str(error)) from error

    def find(self, bundle: Digest) -> Difference | None:
        return next(
            (each for each in self.differences if each.after and each.after.digest == bundle), None
        )


class Approver:
    """`directory` is the approver's own memory of what was trusted; `root` their own root.json."""

    def __init__(self, directory: Path, root: bytes) -> None:
        self._directory = directory
        self._root = root
        directory.mkdir(parents=True, exist_ok=True)

    def review(
        self,
        roots: Mapping[int, bytes],
        metadata: Mapping[str, bytes],
        draft: bytes,
        now: datetime,
    ) -> Review:
        """Verify what is in force, compare the draft.

        Raises `TrustError`: OUT-T101 if the metadata is refused, OUT-T114 if the draft says
        anything that is not a change of entries. `Unavailable` if metadata is missing.
        """
        updater = self._refreshed(roots, metadata, now)
        trusted = updater._trusted_set
        current = trusted["models"]
        targets = trusted.targets
        if not isinstance(current, Targets):
            raise TrustError("OUT-T101", "models is not a list of targets")
        proposed = _draft(draft)
        signed = proposed.signed
        if signed.version != current.version + 1:
            raise TrustError(
                "OUT-T114", f"it is models {signed.version}, in force is {current.version}"
            )
        if not now < signed.expires <= now + LONGEST:
            raise TrustError("OUT-T114", f"it expires {signed.expires:%Y-%m-%d}")
        entries = _entries(current.targets, signed.targets)
        differences = compare(entries, _entries(signed.targets, current.targets))
        role = targets.get_delegated_role("models")
        result = targets.get_verification_result(
            "models", proposed.signed_bytes, proposed.signatures
        )
        return Review(
            root=trusted.root.version,
            trusted=current.version,
            version=signed.version,
            expires=signed.expires,
            differences=differences,
            entries=entries,
            needed=role.threshold,
            holders={each: keys.holder(targets.get_key(each)) for each in role.keyids},
            signed=frozenset(result.signed),
            draft=proposed,
        )

    def sign(self, review: Review, key: CryptoSigner) -> tuple[str, str]:
        """`(key id, signature in hex)` over exactly what was reviewed.

        Raises `InvalidRequest` (OUT-T112) if the key is not one of an approver, `TrustError`
        (OUT-T114) for entries that anchor different heads.
        """
        if key.public_key.keyid not in review.holders:
            raise InvalidRequest("OUT-T112", f"key {key.public_key.keyid[:8]}")
        _ = review.audit_head  # Heads that contradict each other are not signed.
        signature = key.sign(review.draft.signed_bytes)
        return signature.keyid, signature.signature

    def approved(
        self, roots: Mapping[int, bytes], metadata: Mapping[str, bytes], now: datetime
    ) -> tuple[ApprovedBundle, ...]:
        """What is in force by this client's own verification. Raises like `review`.

        Entries in terms that are not known here are left out.
        """
        current = self._refreshed(roots, metadata, now)._trusted_set["models"]
        if not isinstance(current, Targets):
            raise TrustError("OUT-T101", "models is not a list of targets")
        return tuple(
            listed.bundle for listed in _entries(current.targets, current.targets).values()
        )

    def lost(self) -> frozenset[str]:
        """Heads of the audit trail that this approver knows to be lost: a backup was restored."""
        try:
            data = (self._directory / _LOST).read_bytes()
        except FileNotFoundError:
            return frozenset()
        return frozenset(codec.decode(data, list[str], limit=codec.MAX_TUF_ROLE))

    def note_lost(self, heads: Collection[str]) -> None:
        """Do not miss these heads again."""
        durable.replace(self._directory / _LOST, codec.encode(sorted({*heads, *self.lost()})))

    def _refreshed(
        self, roots: Mapping[int, bytes], metadata: Mapping[str, bytes], now: datetime
    ) -> Updater:
        files = {f"{number}.root.json": data for number, data in roots.items()}
        files |= {f"{role}.json": data for role, data in metadata.items()}
        try:
            updater = Updater(
                str(self._directory), _SCHEME, fetcher=_Given(files), bootstrap=self._root
            )
            # ngclient has no public way to pass a time; `tuf==7.0.*` is pinned for this.
            updater._trusted_set.reference_time = now
            updater.refresh()
            # An expired list is no reason to refuse: signing its successor is the remedy.
            updater._trusted_set.reference_time = datetime.fromtimestamp(0, UTC)
            updater.get_targetinfo(_INSIDE_MODELS)
        except (DownloadError, LengthOrHashMismatchError) as error:
            raise Unavailable("OUT-T109", str(error)) from error
        except RepositoryError as error:
            raise TrustError("OUT-T101", str(error)) from error
        return updater


class _Given(FetcherInterface):
    """Files that the API gave us, by name."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(_SCHEME)
        if name not in self._files:
            raise DownloadHTTPError(f"{name} was not given", 404)
        return iter((self._files[name],))


def _draft(data: bytes) -> Metadata[Targets]:
    if len(data) > codec.MAX_TUF_ROLE:
        raise TrustError("OUT-T114", f"{len(data):,} bytes")
    try:
        metadata = Metadata[Targets].from_bytes(data)
    except RepositoryError as error:
        raise TrustError("OUT-T114", str(error)) from error
    signed = metadata.signed
    if not isinstance(signed, Targets):
        raise TrustError("OUT-T114", f"it is a {signed.type}")
    if signed.delegations is not None or signed.unrecognized_fields:
        raise TrustError("OUT-T114", "it delegates, or says something that cannot be shown")
    return metadata


def audit(review: Review, trail: Iterable[Line], lost: Collection[str] = ()) -> Findings:
    """Check that the server's trail is whole up to the head that this signature would anchor, and
    goes on from every head that approvers have signed; but for those that are known to be `lost`.

    Raises `TrustError` OUT-S170.
    """
    known = [each for each in _known(review) if each.head not in lost]
    found = verify(trail, known)
    if found.problems:
        raise TrustError("OUT-S170", "; ".join(found.problems))
    if known and review.differences and not review.audit_head:
        raise TrustError("OUT-S170", "this draft says nothing of it, but earlier ones did")
    return found


def lost_heads(review: Review, trail: Iterable[Line]) -> frozenset[str]:
    """Heads that approvers have signed and that the trail does not have."""
    wanted = {each.head for each in anchors(review.entries.values())}
    for number, line in enumerate(trail, start=1):
        wanted.discard(chain_head(number, line.hash))
    return frozenset(wanted)


def _known(review: Review) -> Iterator[Anchor]:
    yield from anchors(review.entries.values())
    if review.audit_head:
        yield Anchor(review.audit_head, "this draft")


def _entries(
    targets: Mapping[str, TargetFile], others: Mapping[str, TargetFile]
) -> dict[str, Listed]:
    """What can be shown. What cannot must be the same in the other list: then it is not news."""
    found = {}
    for path, target in targets.items():
        try:
            found[path] = Listed(_bundle(target), target.length)
        except TrustError:
            if others.get(path) != target:
                raise
    return found


def _bundle(target: TargetFile) -> ApprovedBundle:
    if set(target.unrecognized_fields) - {"custom"} or set(target.hashes) != {"sha256"}:
        raise TrustError("OUT-T114", f"{target.path}: it says something that cannot be shown")
    try:
        bundle = read_bundle(target.path, target.hashes["sha256"], target.custom)
    except OutriderError as error:
        raise TrustError("OUT-T114", f"{target.path}: {error.why}") from error
    # Members that our types do not know would be signed without having been shown.
    if target.custom is not None and codec.to_wire(bundle.terms) != target.custom:
        raise TrustError("OUT-T114", f"{target.path}: its terms cannot be shown in full")
    return bundle
