"""One verification of a set of TUF metadata: `tuf.ngclient` over files in memory.

MQTT has no requests, so nothing is downloaded: the client sees what was offered, and what was not
offered is "404". Its cache is memory too, seeded with the set accepted last: its rollback checks
hold, a half-arrived set leaves nothing behind, and a full disk stops no device from starting.

Everything that touches the inside of `tuf.ngclient` is here; hence `tuf==7.0.*`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

from tuf.api.exceptions import (
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from protocol.codec import MAX_TUF_ROLE

ROLES: Final = ("timestamp", "snapshot", "targets", "models", "rollouts")
MAX_ROOT: Final = 256 * 1024
LIMITS: Final = {
    "timestamp": 16 * 1024,
    "snapshot": 64 * 1024,
    "targets": MAX_TUF_ROLE,
    "models": MAX_TUF_ROLE,
    "rollouts": MAX_TUF_ROLE,
}

_CONFIG: Final = UpdaterConfig(
    root_max_length=MAX_ROOT,
    timestamp_max_length=LIMITS["timestamp"],
    snapshot_max_length=LIMITS["snapshot"],
    targets_max_length=MAX_TUF_ROLE,
)
_SCHEME = "offered:/"
_NOWHERE = "/dev/null"  # below a file no file can be: the one path that ngclient opens itself
_WITHOUT_EXPIRY: Final = datetime.fromtimestamp(0, UTC)
# A path that only this role may list makes the client load it.
_INSIDE: Final = {"models": "models/any/any", "rollouts": "rollouts/any"}


@dataclass(frozen=True, slots=True)
class Verified:
    """A consistent set: every role verified against its delegator and the others' versions."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    models: Targets
    rollouts: Targets

    def versions(self) -> dict[str, int]:
        return {name: getattr(self, name).version for name in ROLES}

    def keys_of(self, role: str) -> tuple[list[str], int]:
        """`(key ids, threshold)` of who may sign a role."""
        delegator: Root | Targets = self.targets if role in _INSIDE else self.root
        delegated = delegator.get_delegated_role(role)
        return list(delegated.keyids), delegated.threshold


class _Offered(FetcherInterface):
    """What was offered, by file name; remembers what was asked for last."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self.last = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.last = url.removeprefix(_SCHEME)
        if self.last not in self._files:
            raise DownloadHTTPError(f"{self.last} was not offered", 404)
        return iter((self._files[self.last],))


class Client(Updater):
    """ngclient with its cache in memory, and expiry judged at the time that its caller believes;
    nothing else is changed. Starts from `bootstrap`, never from a cached root on its own word.

    `cache` holds roles by name: those accepted last, and then what was accepted since, also when a
    later step failed. Raises TUF's `RepositoryError` if `bootstrap` is not a root.
    """

    def __init__(
        self,
        fetcher: FetcherInterface,
        bootstrap: bytes,
        cache: Mapping[str, bytes],
        *,
        base: str = _SCHEME,
    ) -> None:
        self.cache = dict(cache)
        self.roots: dict[int, bytes] = {}
        """The chain as far as it was verified, `bootstrap` first."""
        super().__init__(_NOWHERE, base, fetcher=fetcher, config=_CONFIG, bootstrap=bootstrap)

    def judge_expiry_at(self, now: datetime) -> None:
        # ngclient reads the wall clock in its constructor and offers no way to pass a time.
        self._trusted_set.reference_time = now

    @property
    def trusted(self) -> TrustedMetadataSet:
        return self._trusted_set

    def _load_local_metadata(self, rolename: str) -> bytes:
        if rolename not in self.cache:
            raise FileNotFoundError(rolename)
        return self.cache[rolename]

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self.cache[rolename] = data

    def _persist_root(self, version: int, data: bytes) -> None:
        self.roots[version] = data

    def _update_root_symlink(self) -> None:
        """There is no directory."""


class Verification:
    """One run over a copy of what was offered. `roots` maps versions to bytes.

    Raises TUF's `RepositoryError` if `bootstrap` is not a root.
    """

    def __init__(
        self,
        bootstrap: bytes,
        roots: Mapping[int, bytes],
        roles: Mapping[str, bytes],
        accepted: Mapping[str, bytes],
    ) -> None:
        files = {f"{number}.root.json": data for number, data in roots.items()}
        # The client insists on "downloading" a timestamp; the others it takes from its cache.
        files |= {f"{role}.json": accepted[role] for role in accepted if role == "timestamp"}
        files |= {f"{role}.json": data for role, data in roles.items()}
        self._fetcher = _Offered(files)
        self._client = Client(self._fetcher, bootstrap, accepted)

    @property
    def root(self) -> Root:
        """The newest that the chain reached, also when the rest failed."""
        return self._client.trusted.root

    @property
    def root_version(self) -> int:
        return self.root.version

    def accepted(self) -> dict[str, bytes]:
        """The very bytes that were verified, after a successful run.

        Not necessarily what was offered: a timestamp of equal version does not replace.
        """
        return {role: self._client.cache[role] for role in ROLES}

    @property
    def culprit(self) -> str:
        """File that was read last: the one at fault if the run failed."""
        return self._fetcher.last.removesuffix(".json")

    def run(self, now: datetime | None) -> Verified:
        """Verify the whole set. Raises TUF's `RepositoryError` and `DownloadError`.

        Expiry is judged at `now`; None judges none (what is on disk was judged when it came).
        That of role models never refuses the set: an expired list still revokes and still tells
        what may be gone back to, and callers ask separately whether something new may start.
        """
        self._client.judge_expiry_at(now or _WITHOUT_EXPIRY)
        self._client.refresh()
        self._client.judge_expiry_at(_WITHOUT_EXPIRY)
        for path in _INSIDE.values():
            self._client.get_targetinfo(path)
        trusted = self._client.trusted
        rollouts = cast(Targets, trusted["rollouts"])
        if now is not None and rollouts.is_expired(now):
            raise ExpiredMetadataError("rollouts.json is expired")
        return Verified(
            root=trusted.root,
            timestamp=trusted.timestamp,
            snapshot=trusted.snapshot,
            targets=trusted.targets,
            models=cast(Targets, trusted["models"]),
            rollouts=rollouts,
        )


def first_root(data: bytes) -> int:
    """Version of a root that its own keys signed. Raises TUF's `RepositoryError`, `ValueError`."""
    metadata = Metadata[Root].from_bytes(data)
    if not isinstance(metadata.signed, Root):
        raise RepositoryError(f"it is a {metadata.signed.type}")
    metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    return metadata.signed.version


def issued(timestamp: Timestamp) -> datetime | None:
    """Signed `x-issued`; None if absent or not RFC 3339 with a zone."""
    value = timestamp.unrecognized_fields.get("x-issued")
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def follows(timestamp: bytes, trusted: bytes) -> bool:
    """Whether a timestamp says that it is newer than the trusted one. A hint: nothing is verified,
    and what nobody signed does not stay for long."""
    try:
        new, old = (Metadata[Timestamp].from_bytes(d).signed.version for d in (timestamp, trusted))
    except RepositoryError:
        return False
    return new > old


def behind(timestamp: bytes, held: Mapping[str, Sequence[bytes]]) -> tuple[str, ...]:
    """Roles to fetch for this timestamp, given the bytes at hand. A hint: nothing is verified.

    Without a matching snapshot only that is known to be missing. Raises TUF's `RepositoryError`
    for bytes that are no metadata.
    """
    stamp = Metadata[Timestamp].from_bytes(timestamp).signed
    if not isinstance(stamp, Timestamp):
        raise RepositoryError("not a timestamp")
    data = _matching(stamp.snapshot_meta, held.get("snapshot", ()))
    if data is None:
        return ("snapshot",)
    snapshot = Metadata[Snapshot].from_bytes(data).signed
    if not isinstance(snapshot, Snapshot):
        raise RepositoryError("not a snapshot")
    metas = {role: snapshot.meta.get(f"{role}.json") for role in ("targets", "models", "rollouts")}
    return tuple(
        role
        for role, meta in metas.items()
        if meta is not None and _matching(meta, held.get(role, ())) is None
    )


def _matching(meta: MetaFile, candidates: Sequence[bytes]) -> bytes | None:
    for data in candidates:
        try:
            meta.verify_length_and_hashes(data)
        except LengthOrHashMismatchError:
            continue
        return data
    return None
