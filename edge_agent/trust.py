"""What this device trusts: approved bundles, plans, its document; and for how long.

Metadata arrives as retained messages in any order. `offer()` keeps them, `refresh()` verifies a
copy of the whole, and only a consistent set replaces the one in force. Nothing here stops
inference: without fresh metadata the last accepted set stays in force, and says so.

    <directory>/trusted.json   roots, and the set accepted last, in one atomic file
    <directory>/marks.json     high-water marks
    <directory>/grant.json     what a stick brought and may start although nothing is fresh

Long because everything that replaces the trusted set is easier to judge side by side.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Root

from edge_agent import documents, durable
from edge_agent.approved import Content, read_models, read_rollouts
from edge_agent.clock import Clock
from edge_agent.grants import Grants
from edge_agent.marks import Mark, MarksFile, key_set
from edge_agent.metadata import Verification, Verified, first_root, issued
from edge_agent.offers import Offers
from protocol import codec
from protocol.approval import Approvals
from protocol.device import DeviceDocument
from protocol.errors import PeerError, TrustError, Unavailable
from protocol.identifiers import DeviceId, Digest, FleetName, ModelName
from protocol.plan import DenyList, Plan
from protocol.reported import Refused, TrustState
from protocol.targets import PlanTarget
from protocol.topics import Topics

log = logging.getLogger(__name__)

MAX_KEPT: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """`trusted.json`. Roles were verified under root number `under`."""

    roots: dict[str, bytes] = field(default_factory=dict)
    under: int = 0
    roles: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(number.isdecimal() for number in self.roots):
            raise ValueError("roots are numbered")


class Trust:
    """Of one device; used by one thread. `root` is the root.json of its enrolment.

    Raises `TrustError` if that is no root, `OSError` if the directory cannot be used.
    """

    def __init__(self, directory: Path, root: bytes, fleet: FleetName, clock: Clock) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "trusted.json"
        self._bootstrap = root
        try:
            self._first_root = first_root(root)
        except (RepositoryError, ValueError) as error:
            raise TrustError("OUT-T101", f"root.json of the enrolment: {error}") from error
        self._fleet = fleet
        self._topics = Topics(fleet)
        self._clock = clock
        self._marks = MarksFile(directory / "marks.json")
        self._grants = Grants(directory / "grant.json")
        self._offers = Offers(self._topics)
        self._untried = False
        self._verified: Verified | None = None
        self._content = Content()
        self._kept = self._restored()

    # --- metadata arrives -----------------------------------------------------------------------

    def offer(self, topic: str, data: bytes) -> bool:
        """Keep a message if it is TUF metadata. Raises `PeerError` if it is too large."""
        mine, untried = self._offers.put(topic, data, self.root_version, self._kept.roles)
        self._untried = self._untried or untried
        return mine

    def refresh(self) -> bool:
        """Verify a copy of what was offered since; True if anything new is trusted.

        Raises `TrustError` (OUT-T101) for what no trusted signer said, `Unavailable` if something
        is missing or does not fit together yet (OUT-T109) or has expired (OUT-T121). What can be
        trusted is trusted all the same, so look at the properties either way.
        """
        if not self._untried:
            return False
        self._untried = False
        before = self._kept
        refusal: TrustError | None = None
        done = False
        while len(self._offers) and not done:
            offered = len(self._offers)
            try:
                self._attempt()
                done = True
            except TrustError as error:
                # What is at fault is no longer offered; the rest may do without it.
                refusal = refusal or error
                self._offers.doubt()
                done = len(self._offers) == offered
            except Unavailable as error:
                # Both may pass with the same bytes: once there is room, once the clock is right.
                self._untried = error.code in ("OUT-D201", "OUT-T121")
                if refusal is None:
                    raise
                done = True
            except OSError as error:
                self._untried = True
                raise Unavailable("OUT-D201", f"trusted metadata: {error}") from error
        if refusal is not None:
            raise refusal
        return self._kept != before

    def is_current(self, timestamp: bytes) -> bool:
        """Whether these are the very bytes of the trusted timestamp."""
        return self._kept.roles.get("timestamp") == timestamp

    def wanted(self) -> tuple[str, ...]:
        """Topics of metadata to fetch now: what the newest offered timestamp needs and is not
        here. Empty without a timestamp that is not trusted yet."""
        return self._offers.wanted(self._kept.roles)

    @property
    def undecided(self) -> bool:
        """Whether a newer timestamp is offered that could be neither trusted nor refused."""
        return "timestamp" in self._offers.roles()

    @property
    def standing(self) -> tuple[str, ...]:
        """Topics of metadata to be subscribed to always; changes when a root is trusted."""
        return self._topics.tuf("timestamp"), self._topics.root(self.root_version + 1)

    # --- metadata is carried here ---------------------------------------------------------------

    def carry(self, roots: Mapping[int, bytes], roles: Mapping[str, bytes]) -> bool:
        """Trust exactly this set, which a person brought; True if it is newer than what was.

        As `refresh`, but that expiry is judged at the clock's floor: signatures, thresholds,
        versions and high-water marks count as ever, and either all of it is trusted or nothing
        (a root counts by itself). Raises `TrustError`: OUT-T110 for an older set, OUT-T101 for
        what no trusted signer said; `Unavailable` OUT-D201 when the disk does not take it.
        """
        known = {int(n): data for n, data in self._kept.roots.items()}
        chain = known | {n: data for n, data in roots.items() if n > self.root_version}
        verification = Verification(self._bootstrap, chain, roles, self._kept.roles)
        before = self._kept
        try:
            try:
                verified = verification.run(_moment(self._clock.floor_ms))
            except (RepositoryError, DownloadError) as error:
                self._keep_roots(verification, chain)
                expired = isinstance(error, ExpiredMetadataError)
                if expired and self._clock.disown(_timekeepers(verification.root)):
                    return self.carry(roots, roles)
                raise _not_carried(error, verification.culprit) from error
            if (behind := self._behind_marks(verification, verified)) is not None:
                raise TrustError("OUT-T110", behind)
            if verification.accepted() != roles:
                # Of equal version, but not what this device trusts: both cannot be right.
                raise TrustError("OUT-T101", "it differs from what is trusted, in equal versions")
            self._accept(verification, verified, chain)
        except OSError as error:
            raise Unavailable("OUT-D201", f"trusted metadata: {error}") from error
        return self._kept != before

    def grant(self, bundle: Digest) -> None:
        """Let a bundle that came with the trusted set start although nothing is fresh.

        Durable on return. Raises `Unavailable`: OUT-T121 when approvals had expired already when
        the set was signed, or by what this device knows to have passed; OUT-D201.
        """
        if self._verified is None:
            raise Unavailable("OUT-T109", "nothing is trusted yet")
        floor = _moment(self._clock.floor_ms)
        at = max(floor, issued(self._verified.timestamp) or floor)
        if self._verified.models.is_expired(at):
            raise Unavailable("OUT-T121", "approvals had expired when the stick was made")
        try:
            self._grants.add(self._kept.roles["timestamp"], bundle)
        except OSError as error:
            raise Unavailable("OUT-D201", f"the stick's grant: {error}") from error

    def end_grants(self, bundles: Iterable[Digest]) -> None:
        """These are committed: going on with them, or back to them, takes no leave."""
        self._grants.end(bundles)

    @property
    def granted(self) -> frozenset[Digest]:
        return self._grants.under(self._kept.roles.get("timestamp"))

    @property
    def approvals_needed(self) -> int:
        """Signatures of approvers that trusted `models` has at least."""
        return self._verified.keys_of("models")[1] if self._verified is not None else 0

    # --- what is trusted ------------------------------------------------------------------------

    @property
    def known(self) -> bool:
        """Whether any set was ever accepted. Without one, no approval means nothing."""
        return self._verified is not None

    @property
    def root_version(self) -> int:
        return max([self._first_root, *map(int, self._kept.roots)])

    @property
    def approvals(self) -> Approvals:
        """Of the last trusted `models`, expired or not; revoked bundles are in it."""
        return self._content.listed.approvals

    @property
    def not_understood(self) -> frozenset[Digest]:
        """Bundles that `models` lists in terms this agent does not know: neither approved nor
        delisted. Nothing new may start from them; what runs goes on."""
        return self._content.listed.not_understood

    @property
    def plans(self) -> Mapping[ModelName, PlanTarget]:
        return self._content.ordered.plans

    @property
    def deny_target(self) -> PlanTarget | None:
        return self._content.ordered.deny

    @property
    def refused(self) -> tuple[Refused, ...]:
        """Signed entries that this agent does not use, for the reported state."""
        return self._content.refused

    @property
    def marks_intact(self) -> bool:
        return self._marks.intact

    def models_expired(self) -> bool:
        """Whether nothing new may start because approvals are unknown or out of date."""
        return self._verified is None or self._verified.models.is_expired(self._now())

    def timestamp_fresh(self) -> bool:
        return self._verified is not None and not self._verified.timestamp.is_expired(self._now())

    @property
    def issued_ms(self) -> int | None:
        """When the trusted timestamp was signed (Unix ms), by its own word but never later than
        now: plans in force were confirmed then. None before anything is trusted."""
        moment = issued(self._verified.timestamp) if self._verified is not None else None
        return None if moment is None else min(_ms(moment), self._clock.now_ms())

    def state(self) -> TrustState:
        if self._verified is None:
            return TrustState(root=self.root_version)
        return TrustState(
            root=self.root_version,
            **self._verified.versions(),
            fresh_until=_rfc3339(self._verified.timestamp.expires),
            models_until=_rfc3339(self._verified.models.expires),
        )

    # --- documents below the metadata -----------------------------------------------------------

    def verify_plan(self, model: ModelName, data: bytes) -> Plan:
        """A plan that arrived. Raises `TrustError` (OUT-T106) unless it is what trusted rollouts
        lists, for this fleet and model and not older than the last; `PeerError` for malformed
        ones, `NotUnderstood` for those from the future."""
        target = self.plans.get(model)
        plan, mark = documents.plan(data, target, self._fleet, model, self._rollouts_keys())
        documents.require_follows(self._marks.marks.plans.get(model), mark, f"plan of {model}")
        self._marks.put_plan(model, mark)
        return plan

    def verify_deny(self, data: bytes) -> DenyList:
        """Like `verify_plan`."""
        deny, mark = documents.deny(data, self.deny_target, self._fleet, self._rollouts_keys())
        documents.require_follows(self._marks.marks.deny, mark, "deny list")
        self._marks.put_deny(mark)
        return deny

    def verify_document(self, envelope: bytes, device: DeviceId) -> DeviceDocument:
        """The device document. Raises `TrustError` (OUT-T102), `PeerError`, `NotUnderstood`;
        `Unavailable` before any set is trusted, since then nobody's keys are known."""
        document, mark = self._signed_document(envelope, device)
        documents.require_newer_document(self._marks.marks.document, mark)
        self._marks.put_document(mark)
        return document

    def carried_document(self, envelope: bytes, device: DeviceId) -> DeviceDocument | None:
        """Like `verify_document`, for one that a person brought; None if it is genuine and older
        than the last: that has come by another way since."""
        document, mark = self._signed_document(envelope, device)
        old = self._marks.marks.document
        if old is not None and old.keys == mark.keys and old.version > mark.version:
            return None
        documents.require_newer_document(old, mark)
        self._marks.put_document(mark)
        return document

    def _signed_document(self, envelope: bytes, device: DeviceId) -> tuple[DeviceDocument, Mark]:
        if self._verified is None:
            raise Unavailable("OUT-T109", "no trusted targets yet")
        role = self._verified.targets.get_delegated_role("rollouts")
        keys = [self._verified.targets.get_key(keyid) for keyid in role.keyids]
        return documents.device(
            envelope, keys, role.threshold, self._fleet, device, self._rollouts_keys()
        )

    def recall_plan(self, model: ModelName, data: bytes) -> Plan:
        """A plan from this device's own disk: the very bytes verified last (or just before, if the
        power went before the last were written), whether or not rollouts still lists them. Raises
        like `verify_plan`."""
        return documents.recall(self._marks.marks.plans.get(model), data, Plan, codec.MAX_PLAN)

    def recall_deny(self, data: bytes) -> DenyList:
        return documents.recall(self._marks.marks.deny, data, DenyList, codec.MAX_DENY_LIST)

    def recall_document(self, envelope: bytes) -> DeviceDocument:
        """The document from this device's own disk: whose payload was verified last."""
        return documents.recall_device(self._marks.marks.document, envelope)

    # --- inside ---------------------------------------------------------------------------------

    def _attempt(self) -> None:
        roots = {int(n): data for n, data in self._kept.roots.items()}
        roots |= {n: data for n, data in self._offers.roots().items() if n not in roots}
        verification = Verification(self._bootstrap, roots, self._offers.roles(), self._kept.roles)
        try:
            verified = verification.run(self._now())
            self._require_marks(verification, verified)
        except ExpiredMetadataError as error:
            self._keep_roots(verification, roots)
            if self._clock.disown(_timekeepers(verification.root)):
                return self._attempt()
            raise Unavailable("OUT-T121", str(error)) from error
        except (DownloadError, LengthOrHashMismatchError) as error:
            self._keep_roots(verification, roots)
            raise Unavailable("OUT-T109", str(error)) from error
        except RepositoryError as error:
            self._keep_roots(verification, roots)
            culprit = verification.culprit
            if self._forget(culprit):
                raise TrustError("OUT-T101", f"{culprit}: {error}") from error
            # What is trusted does not fit the newest root: its successors are on their way.
            raise Unavailable("OUT-T109", f"{culprit}: {error}") from error
        return self._accept(verification, verified, roots)

    def _require_marks(self, verification: Verification, verified: Verified) -> None:
        marks = self._marks.marks
        if verification.root_version < marks.root:
            missing = verification.root_version + 1
            raise DownloadError(f"root {missing} is missing, {marks.root} was trusted before")
        if (behind := self._behind_marks(verification, verified)) is not None:
            self._offers.drop_roles()
            raise TrustError("OUT-T101", behind)

    def _behind_marks(self, verification: Verification, verified: Verified) -> str | None:
        """What of a verified set is older than what was trusted before."""
        marks = self._marks.marks
        if verification.root_version < marks.root:
            return f"root {verification.root_version} is older than {marks.root}, trusted before"
        for role, mark in _role_marks(verified).items():
            old = marks.roles.get(role)
            if old is not None and not old.allows(mark):
                return f"{role} {mark.version} is older than {old.version}, trusted before"
        return None

    def _accept(
        self, verification: Verification, verified: Verified, roots: Mapping[int, bytes]
    ) -> None:
        """Order matters: a power cut between the writes leaves marks behind, never ahead of, what
        they protect, and reading makes up for that."""
        kept = Kept(
            roots=self._chain(verification, roots),
            under=verification.root_version,
            roles=verification.accepted(),
        )
        # Reading every entry is most of the work, and most refreshes are a new timestamp.
        known = self._kept.roles if self._verified is not None else {}
        listed, ordered = self._content.listed, self._content.ordered
        if known.get("models") != kept.roles["models"]:
            listed = read_models(verified.models)
        if known.get("rollouts") != kept.roles["rollouts"]:
            ordered = read_rollouts(verified.rollouts)
        if kept != self._kept:
            durable.replace(self._file, codec.encode(kept))
            self._kept = kept
        self._grants.keep_only(kept.roles["timestamp"])
        marks = self._marks.marks
        self._verified, self._content = verified, Content(listed, ordered)
        self._marks.write(
            dataclasses.replace(
                marks, root=max(marks.root, self.root_version), roles=_role_marks(verified)
            )
        )
        self._note_time(verified)
        self._offers.settle(self.root_version, kept.roles)

    def _note_time(self, verified: Verified) -> None:
        """What a signed timestamp says has passed, as far as approvers signed for it."""
        moment = issued(verified.timestamp)
        if moment is not None:
            at_ms = min(_ms(moment), _ms(verified.models.expires))
            self._clock.raise_floor(at_ms, _timekeepers(verified.root))

    def _keep_roots(self, verification: Verification, roots: Mapping[int, bytes]) -> None:
        """A root counts at once, whatever became of the rest: it may have revoked keys."""
        chain = self._chain(verification, roots)
        if len(chain) > len(self._kept.roots):
            kept = dataclasses.replace(self._kept, roots=chain)
            durable.replace(self._file, codec.encode(kept))
            self._kept = kept
            marks = self._marks.marks
            root = max(marks.root, verification.root_version)
            self._marks.write(dataclasses.replace(marks, root=root))
        self._offers.settle(self.root_version)

    def _chain(self, verification: Verification, roots: Mapping[int, bytes]) -> dict[str, bytes]:
        numbers = range(self._first_root + 1, verification.root_version + 1)
        return {str(number): roots[number] for number in numbers}

    def _forget(self, culprit: str) -> bool:
        """Drop what failed to verify; True if it had been offered."""
        number = culprit.removesuffix(".root")
        if number == culprit:
            return self._offers.drop(culprit)
        if self._offers.drop(f"root/{number}"):
            return True
        sound = {n: data for n, data in self._kept.roots.items() if int(n) < int(number)}
        self._kept = dataclasses.replace(self._kept, roots=sound)
        return False

    def _restored(self) -> Kept:
        """What was accepted before, expired or not. Unreadable: as if there had been nothing, but
        for the marks."""
        try:
            kept = codec.decode(self._file.read_bytes(), Kept, limit=MAX_KEPT)
        except FileNotFoundError:
            return Kept()
        except (OSError, PeerError) as error:
            log.warning("trusted metadata cannot be read, it is fetched again: %s", error)
            return Kept()
        self._kept = kept
        if not kept.roles:
            return kept
        under = {int(n): data for n, data in kept.roots.items() if int(n) <= kept.under}
        try:
            verification = Verification(self._bootstrap, under, {}, kept.roles)
            verified = verification.run(None)
        except (RepositoryError, DownloadError) as error:
            log.warning("trusted metadata is damaged, it is fetched again: %s", error)
            return dataclasses.replace(kept, under=0, roles={})
        self._verified = verified
        self._content = Content(read_models(verified.models), read_rollouts(verified.rollouts))
        try:
            self._restore_marks(verified, kept)
            self._note_time(verified)
        except (Unavailable, OSError) as error:
            # The set at hand says the same; the next refresh writes them.
            log.warning("%s", error)
        return kept

    def _restore_marks(self, verified: Verified, kept: Kept) -> None:
        """Raise marks that a power cut left behind; an older file must not lower any."""
        marks = self._marks.marks
        roles = dict(marks.roles)
        for role, mark in _role_marks(verified).items():
            old = roles.get(role)
            if old is None or (old.keys == mark.keys and old.version < mark.version):
                roles[role] = mark
        root = max([marks.root, *map(int, kept.roots)])
        self._marks.write(dataclasses.replace(marks, root=root, roles=roles))

    def _rollouts_keys(self) -> str:
        if self._verified is None:
            raise Unavailable("OUT-T109", "no trusted metadata yet")
        return key_set(*self._verified.keys_of("rollouts"))

    def _now(self) -> datetime:
        return _moment(self._clock.now_ms())


def _role_marks(verified: Verified) -> dict[str, Mark]:
    return {
        role: Mark(key_set(*verified.keys_of(role)), version)
        for role, version in verified.versions().items()
    }


def _not_carried(error: Exception, culprit: str) -> TrustError:
    """Why a set that was brought is not trusted."""
    if isinstance(error, BadVersionNumberError | ExpiredMetadataError):
        return TrustError("OUT-T110", f"{culprit}: {error}")
    return TrustError("OUT-T101", f"{culprit}: {error}")


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _timekeepers(root: Root) -> str:
    """Who may say how late it is, by this root."""
    role = root.get_delegated_role("timestamp")
    return key_set(role.keyids, role.threshold)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
