"""The approver's side: what exactly would I sign? Then sign it, with a key that stays here.

Nothing the server says is believed. The approver's own TUF client verifies the list in force,
and the draft is compared with it entry by entry; what cannot be shown cannot be signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater

from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.errors import InvalidRequest, OutriderError, TrustError, Unavailable
from protocol.identifiers import Digest
from protocol.targets import read_bundle

LONGEST: Final = timedelta(days=100)
"""An approval list must not be valid much longer than the 90 days it is made for."""

_SCHEME = "api:/"
_INSIDE_MODELS = "models/any/any"

Kind = Literal["approved", "revoked", "restored", "removed", "re-pointed", "terms"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that the draft changes. `before` None: it was not listed; `after`: no longer."""

    kind: Kind
    path: str
    before: ApprovedBundle | None
    after: ApprovedBundle | None
    length: int
    """Bytes of the index, for whoever fetches and checks it."""


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
    needed: int
    """Signatures that put it in force."""
    keyids: tuple[str, ...]
    """Of who may sign."""
    draft: Metadata[Targets]

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
        role = targets.get_delegated_role("models")
        return Review(
            root=trusted.root.version,
            trusted=current.version,
            version=signed.version,
            expires=signed.expires,
            differences=tuple(_differences(current.targets, signed.targets)),
            needed=role.threshold,
            keyids=tuple(role.keyids),
            draft=proposed,
        )

    def sign(self, review: Review, key: CryptoSigner) -> tuple[str, str]:
        """`(key id, signature in hex)` over exactly what was reviewed.

        Raises `InvalidRequest` (OUT-T112) if the key is not one of an approver.
        """
        if key.public_key.keyid not in review.keyids:
            raise InvalidRequest("OUT-T112", f"key {key.public_key.keyid[:8]}")
        signature = key.sign(review.draft.signed_bytes)
        return signature.keyid, signature.signature

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


def _differences(
    before: Mapping[str, TargetFile], after: Mapping[str, TargetFile]
) -> Iterator[Difference]:
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        was = _bundle(old) if old is not None else None
        now = _bundle(new) if new is not None else None
        target = new if new is not None else old
        yield Difference(_kind(was, now), path, was, now, target.length if target else 0)


def _kind(was: ApprovedBundle | None, now: ApprovedBundle | None) -> Kind:
    if now is None:
        return "removed"
    if was is None:
        return "revoked" if now.revoked else "approved"
    if was.digest != now.digest:
        return "re-pointed"
    if was.revoked != now.revoked:
        return "revoked" if now.revoked else "restored"
    return "terms"


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
