"""The fleet's TUF repository: what is in force, and the signatures made online.

    <directory>/root/<n>.json  targets.json  models.json     made offline, or by approvers
    <directory>/rollouts.json  snapshot.json  timestamp.json  signed here
    <directory>/drafts/
    <directory>/install.json   new root, targets, models on their way to the files above

Only the ticker calls what signs. Files are written role by role, timestamp last; `restamp()`
mends what a power cut left half done, and `metadata()` never shows a half. What no key in force
signed counts as if it were not there: after stolen keys were replaced, what they signed neither
is published nor raises a version.

Long because reading, drafts, online signatures and new metadata share one lock and one set of
files; what they decide is in create, ceremony, online, drafts and adopt.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
    VerificationResult,
)

from control_plane.signing import create, durable, expiry, installing, keys, online
from control_plane.signing.adopt import Adopted, newer, read_adopted
from control_plane.signing.ceremony import InForce
from control_plane.signing.drafts import Change, Draft, Drafts, SignatureStatus, draft_id, make
from control_plane.signing.expiry import Expiring
from control_plane.signing.installing import Install
from control_plane.signing.online_keys import OnlineKeys
from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.device import PAYLOAD_TYPE, DeviceDocument
from protocol.errors import Failed, InvalidRequest, OutriderError, PeerError, TrustError
from protocol.identifiers import Digest, FleetName, ModelName, digest_of
from protocol.plan import PlanTerms
from protocol.targets import DENY_LIST, plan_path, read_bundle
from protocol.topics import TUF_ROLES, Topics

log = logging.getLogger(__name__)

_LISTED: Final = ("targets", "models", "rollouts")
_ONLINE: Final = ("rollouts", "snapshot", "timestamp")


class Repository:
    """Thread-safe: routes read and add signatures while the ticker publishes."""

    def __init__(
        self, directory: Path, fleet: FleetName, online_keys: OnlineKeys, *, signs: bool = True
    ) -> None:
        """Raises `InvalidRequest` (OUT-T116) without a root, `TrustError` if the files are no
        repository or, if it `signs`, name other online keys."""
        self._directory = directory
        self._fleet = fleet
        self._topics = Topics(fleet)
        self._keys = online_keys
        self._lock = threading.RLock()
        self._pending = installing.pending(directory)
        require_root(directory)
        if self._pending is not None:
            installing.write(directory, self._pending)
            self._pending = None
        self._drafts = Drafts(directory / "drafts")
        self._roots = {
            int(path.stem): path.read_bytes() for path in (directory / "root").glob("*.json")
        }
        self._files = {
            role: path.read_bytes()
            for role in TUF_ROLES
            if (path := directory / f"{role}.json").exists()
        }
        self._soundness: dict[str, tuple[bytes, bytes, bool]] = {}
        self._check(signs=signs)
        self._settle_keys()
        self._published = dict(self._files) if self._consistent() else {}

    @classmethod
    def create_dev(
        cls,
        directory: Path,
        keys_directory: Path,
        fleet: FleetName,
        now_ms: int,
        approvers: Sequence[str] = (),
    ) -> Repository:
        """All keys on this machine: `init --dev`. Raises what `create.dev_ceremony` raises."""
        ceremony = create.dev_ceremony(keys_directory, approvers)
        create.create(directory, ceremony, online.moment(now_ms))
        return cls.open(directory, keys_directory, fleet)

    @classmethod
    def open(
        cls, directory: Path, keys_directory: Path, fleet: FleetName, *, signs: bool = True
    ) -> Self:
        """Needs the online keys only; not even these unless it `signs`: a ceremony may replace
        keys that were lost. Raises `InvalidRequest` (OUT-T113 a key, OUT-T116 no root),
        `TrustError`."""
        return cls(directory, fleet, OnlineKeys(keys_directory), signs=signs)

    @classmethod
    def found(
        cls, directory: Path, keys_directory: Path, fleet: FleetName, files: Install, now_ms: int
    ) -> Self:
        """A fleet's first root, in a home that has none. All of it or, after a power cut, nothing.

        Raises `TrustError`: OUT-T123 signatures are missing, OUT-T124 it is refused;
        `InvalidRequest` OUT-T117.
        """
        if has_root(directory):
            raise TrustError("OUT-T124", "this control plane has a root of trust already")
        proposal = files.on(None, fleet, online.moment(now_ms))
        installing.verify(proposal, OnlineKeys(keys_directory), online.moment(now_ms))
        directory.mkdir(parents=True, exist_ok=True)
        installing.begin(directory, files)
        return cls.open(directory, keys_directory, fleet)

    # --- reading --------------------------------------------------------------------------------

    def roots(self) -> dict[int, bytes]:
        """Every root since the first: all of them stay retained for ever."""
        with self._lock:
            return dict(sorted(self._roots.items()))

    def metadata(self) -> dict[str, bytes]:
        """Role to bytes: the last consistent set, in the order in which it is published
        (timestamp last). Empty before the first `publish`."""
        with self._lock:
            return {role: self._published[role] for role in reversed(TUF_ROLES) if self._published}

    def approvals(self) -> dict[Digest, ApprovedBundle]:
        """What `models` lists in force, revoked bundles included."""
        with self._lock:
            targets = self._load("models").signed.targets
        found: dict[Digest, ApprovedBundle] = {}
        for path, target in sorted(targets.items()):
            try:
                bundle = read_bundle(path, target.hashes.get("sha256"), target.custom)
            except PeerError as error:
                # Signed with newer tools than this server's: as on devices, not offered to anyone.
                log.warning("models lists %s in terms unknown here: %s", path, error)
                continue
            # As on devices: of a bundle listed twice, what takes away wins.
            if bundle.digest not in found or not found[bundle.digest].revoked:
                found[bundle.digest] = bundle
        return found

    def in_force(self) -> InForce:
        """What people signed: who may sign what, and what is approved."""
        with self._lock:
            return InForce(dict(self._roots), self._files["targets"], self._files["models"])

    def expiring(self, now_ms: int) -> tuple[Expiring, ...]:
        """Roles that will expire soon, the most urgent one first."""
        with self._lock:
            roles = {role: self._load(role).signed.expires for role in self._files}
            expires = {"root": self._root().expires, **roles}
        return expiry.expiring(expires, online.moment(now_ms))

    @property
    def document_key(self) -> str:
        """Id of the key that signs device documents. When it is another one, devices will not
        take what the former signed, and all documents have to go out again."""
        with self._lock:
            return self._delegator("rollouts").get_delegated_role("rollouts").keyids[0]

    # --- who may sign what ----------------------------------------------------------------------

    def install(self, files: Install, now_ms: int) -> bool:
        """Put a finished ceremony in force, all of it or nothing; False if it is already.

        Online roles are signed again where their keys or what they list changed. Raises
        `TrustError`: OUT-T123 signatures are missing, OUT-T124 it is refused, for instance since
        it was made from older metadata; `InvalidRequest` OUT-T117. Then nothing has changed.
        """
        now = online.moment(now_ms)
        with self._lock:
            self._mend()
            state = self.in_force()
            fresh = files.without(state)
            if fresh.empty:
                return False
            installing.verify(fresh.on(state, self._fleet, now), self._keys, now)
            installing.begin(self._directory, fresh)
            self._pending = fresh
            try:
                self._mend()
                self.restamp(now_ms)
            except (OSError, OutriderError):
                # It is in force all the same; the ticker goes on with it.
                log.exception("new metadata is in force, the online roles are not signed yet")
            return True

    # --- drafts ---------------------------------------------------------------------------------

    def draft(
        self,
        changes: tuple[Change, ...],
        now_ms: int,
        audit_head: str = "",
        *,
        by: str = "",
        why: str = "",
    ) -> Draft:
        """The draft of these changes; made again, without signatures, if the list in force has
        moved on or half of the draft's own time has passed. A newer `audit_head` alone is no
        reason to. Who asked for it first, and why, is kept."""
        with self._lock:
            self._mend()
            base = digest_of(self._files["models"])
            now = online.moment(now_ms)
            before = self._drafts.get(draft_id(changes))
            if before is not None and before.base == base and not before.lapses_soon(now):
                return before
            current: Metadata[Targets] = self._load("models")
            version = max(current.signed.version, self._listed_version("models")) + 1
            draft = make(changes, current, base, version, now, audit_head)
            said = before or Draft(draft.id, changes, base, version, b"", by, why)
            draft = dataclasses.replace(draft, by=said.by, why=said.why)
            self._drafts.put(draft)
            return draft

    def drafts(self) -> tuple[Draft, ...]:
        """All open drafts as they were made last; `draft()` brings one up to date."""
        with self._lock:
            return self._drafts.all()

    def close_draft(self, identifier: str) -> None:
        """Reject a draft: its signatures are discarded."""
        with self._lock:
            self._drafts.remove(identifier)

    def status(self, draft: Draft) -> SignatureStatus:
        with self._lock:
            result = self._verification(draft.metadata())
        return SignatureStatus(
            signed=len(result.signed),
            needed=result.threshold,
            by=keys.holders(result.signed.values()),
            missing=keys.holders(result.unsigned.values()),
        )

    def add_signature(
        self, identifier: str, version: int, keyid: str, signature: str
    ) -> SignatureStatus:
        """Add one approver's signature (hex); at the threshold the draft becomes `models`.

        It reaches devices with the ticker's next `publish` or `restamp`. Raises `InvalidRequest`:
        OUT-T111 if the draft is gone or another one by now, OUT-T112 for a signature that no
        approver made.
        """
        with self._lock:
            self._mend()
            draft = self._drafts.get(identifier)
            if draft is None or draft.base != digest_of(self._files["models"]):
                raise InvalidRequest("OUT-T111", "the list of approved versions has changed")
            if draft.version != version:
                raise InvalidRequest("OUT-T111", f"it is models {draft.version}, not {version}")
            metadata = draft.metadata()
            metadata.signatures[keyid] = Signature(keyid, signature)
            if keyid not in self._verification(metadata).signed:
                raise InvalidRequest("OUT-T112", f"key {keyid[:8]!r}")
            signed = dataclasses.replace(draft, data=create.serialise(metadata))
            status = self.status(signed)
            if status.complete:
                self._write("models", signed.data)
                self._drafts.remove(identifier)
            else:
                self._drafts.put(signed)
            return status

    # --- signing online: the ticker only --------------------------------------------------------

    def publish(
        self, plans: Mapping[ModelName, tuple[bytes, PlanTerms]], deny: bytes, now_ms: int
    ) -> bool:
        """Put these plans and this deny list in force; True if anything was signed.

        Raises `Failed` (OUT-T115) rather than sign what the fleet would refuse as too old.
        """
        targets = {
            plan_path(model): online.target(plan_path(model), *plan)
            for model, plan in plans.items()
        }
        targets[DENY_LIST] = online.target(DENY_LIST, deny, PlanTerms())
        with self._lock:
            self._mend()
            return self._sign(targets, online.moment(now_ms))

    def restamp(self, now_ms: int) -> bool:
        """Re-sign what is due, and mend what was left half done. Raises like `publish`."""
        with self._lock:
            self._mend()
            if not self._has("rollouts"):
                return False
            return self._sign(self._load("rollouts").signed.targets, online.moment(now_ms))

    def sign_document(self, document: DeviceDocument) -> bytes:
        """A DSSE envelope as devices read it. Raises `InvalidRequest` (OUT-N211) if too large."""
        if document.fleet != self._fleet:
            raise InvalidRequest("OUT-N210", f"{document.device} is not of fleet {self._fleet}")
        envelope = Envelope(codec.encode(document), PAYLOAD_TYPE, {})
        with self._lock:
            signer = self._signer("rollouts")
        envelope.sign(signer)
        data = json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()
        if len(data) > codec.MAX_DEVICE_DOCUMENT:
            raise InvalidRequest("OUT-N211", f"{len(data):,} bytes for {document.device}")
        return data

    def adopt_retained(self, retained: Mapping[str, bytes], now_ms: int) -> Adopted:
        """Go on from max(store, broker): at start, before anything is signed.

        `retained` maps full topics to what the broker holds of this fleet. Only what is signed by
        trusted keys counts, so the broker's word is not taken for anything. What is newer there is
        taken over, and a consistent set above it is signed at once unless something is missing.
        The result says what the store has to catch up with before it publishes.
        """
        with self._lock:
            self._mend()
            versions = {role: self._version(role) for role in TUF_ROLES}
            while (data := retained.get(self._topics.root(max(self._roots) + 1))) is not None:
                if not self._adopt_root(data):
                    break
            for role in ("targets", "models", "rollouts", "snapshot", "timestamp"):
                data = newer(
                    role,
                    retained.get(self._topics.tuf(role)),
                    self._sound_version(role),
                    self._delegator(role),
                )
                if data is not None:
                    self._write(role, data)
            self._settle_keys()
            adopted = read_adopted(
                retained,
                self._topics,
                before=versions,
                after={role: self._version(role) for role in TUF_ROLES},
                rollouts=self._load("rollouts").signed if self._sound("rollouts") else None,
                delegations=self._load("targets").signed,
                listed={role: self._listed_version(role) for role in _LISTED},
            )
            if adopted.missing:
                # Publishing what is here would replace newer metadata on the broker.
                self._published = {}
            elif adopted.changed:
                self.restamp(now_ms)
            return adopted

    # --- inside ---------------------------------------------------------------------------------

    def _sign(self, targets: dict[str, TargetFile], now: datetime) -> bool:
        current: Targets | None = self._load("rollouts").signed if self._sound("rollouts") else None
        signed = current is None or current.targets != targets or online.due(current, now)
        if signed:
            above = max(self._sound_version("rollouts"), self._listed_version("rollouts"))
            key = self._signer("rollouts")
            self._write("rollouts", online.rollouts(targets, above, now, key))
        return self._seal(now) or signed

    def _seal(self, now: datetime) -> bool:
        """Snapshot and timestamp of what the files are, if they do not say so already."""
        behind = [
            f"{role} {self._listed_version(role)}"
            for role in _LISTED
            if self._version(role) < self._listed_version(role)
        ]
        if behind:
            raise Failed("OUT-T115", f"the fleet has {', '.join(behind)}")
        foreign = [role for role in ("targets", "models") if not self._sound(role)]
        if foreign:
            # Devices would keep what they have and take nothing more.
            raise Failed("OUT-T115", f"{' and '.join(foreign)}: not signed by keys in force")
        if self._consistent() and not self._stamps_due(now):
            # Also what was taken over from the broker.
            self._published = dict(self._files)
            return False
        meta = {f"{role}.json": self._meta(role) for role in _LISTED}
        stale = not self._sound("snapshot")
        if not stale:
            old: Snapshot = self._load("snapshot").signed
            stale = old.meta != meta or online.due(old, now)
        key = self._signer("snapshot")
        if stale:
            above = self._sound_version("snapshot")
            self._write("snapshot", online.snapshot(meta, above, now, key))
        above = self._sound_version("timestamp")
        self._write("timestamp", online.timestamp(self._meta("snapshot"), above, now, key))
        self._published = dict(self._files)
        return True

    def _stamps_due(self, now: datetime) -> bool:
        return any(online.due(self._load(role).signed, now) for role in ("snapshot", "timestamp"))

    def _consistent(self) -> bool:
        """Whether timestamp names the snapshot, and snapshot every role, by their very bytes, and
        all is signed by keys in force."""
        if set(self._files) != set(TUF_ROLES) or not all(map(self._sound, _ONLINE)):
            return False
        snapshot: Snapshot = self._load("snapshot").signed
        timestamp: Timestamp = self._load("timestamp").signed
        named = {"snapshot": timestamp.snapshot_meta}
        named |= {role: snapshot.meta[f"{role}.json"] for role in _LISTED}
        return all(meta == self._meta(role) for role, meta in named.items())

    def _verification(self, draft: Metadata[Targets]) -> VerificationResult:
        targets: Targets = self._load("targets").signed
        return targets.get_verification_result("models", draft.signed_bytes, draft.signatures)

    def _adopt_root(self, data: bytes) -> bool:
        number = max(self._roots) + 1
        try:
            metadata = Metadata[Root].from_bytes(data)
            for delegator in (self._root(), metadata.signed):
                delegator.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError):
            return False
        if metadata.signed.version != number:
            return False
        durable.replace(self._directory / "root" / f"{number}.json", data)
        self._roots[number] = data
        return True

    def _check(self, *, signs: bool) -> None:
        missing = {"targets", "models"} - set(self._files)
        if not self._roots or missing:
            raise TrustError("OUT-T101", f"{self._directory} is no repository")
        for role in _ONLINE if signs else ():
            try:
                self._signer(role)
            except Failed as error:
                raise TrustError("OUT-T101", f"the online key is not one of role {role}") from error

    def _mend(self) -> None:
        """Go on with an installation that something interrupted. Raises `OSError`."""
        if self._pending is None:
            return
        files = self._pending
        installing.write(self._directory, files)
        self._pending = None
        if files.root is not None:
            self._roots[max(self._roots) + 1] = files.root
        for role in ("targets", "models"):
            data: bytes | None = getattr(files, role)
            if data is not None:
                self._files[role] = data
        self._settle_keys()

    def _settle_keys(self) -> None:
        for which in create.ONLINE:
            self._keys.settle(which, self._delegator(which).get_delegated_role(which).keyids)

    def _signer(self, role: str) -> CryptoSigner:
        """The server's key of an online role. Raises `Failed` (OUT-T115) if it is not here."""
        which = "rollouts" if role == "rollouts" else "snapshot"
        return self._keys.signer(which, self._delegator(role).get_delegated_role(role).keyids)

    def _root(self) -> Root:
        return Metadata[Root].from_bytes(self._roots[max(self._roots)]).signed

    def _delegator(self, role: str) -> Root | Targets:
        if role in ("models", "rollouts"):
            delegator: Targets = self._load("targets").signed
            return delegator
        return self._root()

    def _meta(self, role: str) -> MetaFile:
        return MetaFile.from_data(self._version(role), self._files[role], ["sha256"])

    def _has(self, role: str) -> bool:
        return role in self._files

    def _load(self, role: str) -> Metadata[Any]:
        return Metadata.from_bytes(self._files[role])

    def _version(self, role: str) -> int:
        return self._load(role).signed.version if self._has(role) else 0

    def _sound(self, role: str) -> bool:
        """Whether the role is here and signed by keys in force. Asked often: remembered."""
        if not self._has(role):
            return False
        by_targets = role in ("models", "rollouts")
        by = self._files["targets"] if by_targets else self._roots[max(self._roots)]
        data = self._files[role]
        known = self._soundness.get(role)
        if known is None or known[:2] != (data, by):
            known = self._soundness[role] = (data, by, self._verifies(role))
        return known[2]

    def _verifies(self, role: str) -> bool:
        metadata = self._load(role)
        try:
            self._delegator(role).verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except RepositoryError:
            return False
        return True

    def _sound_version(self, role: str) -> int:
        return self._version(role) if self._sound(role) else 0

    def _listed_version(self, role: str) -> int:
        """The version that the snapshot at hand names: the fleet may know it already."""
        if not self._sound("snapshot"):
            return 0
        meta = self._load("snapshot").signed.meta.get(f"{role}.json")
        return meta.version if meta is not None else 0

    def _write(self, role: str, data: bytes) -> None:
        durable.replace(self._directory / f"{role}.json", data)
        self._files[role] = data


def has_root(directory: Path) -> bool:
    """Whether a repository was ever founded here."""
    founded = directory / "root" / "1.json", directory / installing.FILE
    return any(path.exists() for path in founded)


def require_root(directory: Path) -> None:
    """Raises `InvalidRequest` OUT-T116."""
    if not has_root(directory):
        raise InvalidRequest("OUT-T116", f"there is none in {directory}")
