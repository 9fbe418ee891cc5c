"""Carries out what is wanted: moves rollouts, writes plans, signs, hands over to the publisher.

One tick computes everything that should be from the store and the repository, so nothing depends
on a tick that came before it: whatever a crash left half done, the next tick does. It is the only
writer of plans and of online signatures.

    read approvals ─▶ offer bundles ─▶ collect evidence ─▶ sweep who is silent
       ─▶ [move rollouts, write plans, deny list] ─▶ sign ─▶ publish
                     one transaction
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from control_plane.fleet.devices import document_of
from control_plane.moving import Judging, Moving
from control_plane.offers import Keeper
from control_plane.rollout.plan import numbered, terms
from control_plane.rollout.transitions import TICKER
from control_plane.rollout.wanted import wanted_plan
from control_plane.signing.adopt import Adopted
from control_plane.store import Store
from control_plane.store.plans import DenyRow, PlanRow
from protocol import codec
from protocol.approval import Approvals
from protocol.device import DeviceDocument
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, FleetName, ModelName
from protocol.plan import DenyList, Plan, PlanTerms
from protocol.topics import Topics

log = logging.getLogger(__name__)

_YEAR_MINUTES = 366 * 24 * 60


class Repository(Protocol):
    @property
    def document_key(self) -> str: ...
    def approvals(self) -> Approvals: ...
    def roots(self) -> Mapping[int, bytes]: ...
    def metadata(self) -> Mapping[str, bytes]: ...
    def publish(
        self, plans: Mapping[ModelName, tuple[bytes, PlanTerms]], deny: bytes, now_ms: int
    ) -> bool: ...
    def sign_document(self, document: DeviceDocument) -> bytes: ...
    def adopt_retained(self, retained: Mapping[str, bytes], now_ms: int) -> Adopted: ...


class Publisher(Keeper, Protocol):
    @property
    def settled(self) -> bool: ...
    def withdraw(self, topic: str) -> None: ...
    def keep_metadata(self, roots: Mapping[int, bytes], roles: Mapping[str, bytes]) -> None: ...


class BundleOffers(Protocol):
    def offer(self, bundle: Digest, keeper: Keeper, now_ms: int) -> bool: ...


class Ticker:
    """`adopt` once, then `tick` again and again, from one thread."""

    def __init__(
        self,
        fleet: FleetName,
        store: Store,
        repository: Repository,
        publisher: Publisher,
        offers: BundleOffers,
        judge: Judging,
        *,
        listening_since_ms: Callable[[], int | None],
    ) -> None:
        """`listening_since_ms`: see `Moving`."""
        self._fleet = fleet
        self._topics = Topics(fleet)
        self._store = store
        self._repository = repository
        self._publisher = publisher
        self._offers = offers
        self._moving = Moving(store, judge, listening_since_ms)
        self._signed_with = ""
        """Key of the documents that were handed over; empty: none were."""

    def adopt(self, retained: Mapping[str, bytes], now_ms: int) -> Adopted:
        """Go on from max(store, broker): versions that the fleet has seen are never used again."""
        adopted = self._repository.adopt_retained(retained, now_ms)
        with self._store.write():
            for plan in adopted.plans.values():
                if not _within_reach(plan.version, now_ms, f"plan of {plan.model}"):
                    continue
                # What the store wants is written above it by the next tick.
                data = codec.encode(plan)
                self._store.plans.put(PlanRow(plan.model, plan.version, plan.number, data))
            deny = adopted.deny
            if deny is not None and _within_reach(deny.version, now_ms, "deny list"):
                row = DenyRow(deny.version, codec.encode(deny))
                self._store.plans.put_deny_list(row)
            for document in adopted.documents.values():
                if not _within_reach(document.version, now_ms, f"document of {document.device}"):
                    continue
                mine = self._store.devices.get(document.device)
                if mine is not None and document != document_of(self._fleet, mine):
                    self._store.devices.raise_version(document.device, document.version)
        return adopted

    def tick(self, now_ms: int) -> None:
        """Raises what the store, the repository and the publisher raise: the next one goes on."""
        key = self._repository.document_key
        if key != self._signed_with:
            # A new publisher knows of no document, and after a change of keys devices take none
            # of those that are out: in both cases all of them go out again.
            self._store.devices.unpublish_all()
            self._signed_with = key
        approvals = self._repository.approvals()
        self._note_approvals(approvals, now_ms)
        offered = {
            bundle
            for bundle, approved in approvals.items()
            if not approved.revoked and self._offers.offer(bundle, self._publisher, now_ms)
        }
        ready = offered if self._publisher.settled else set()
        self._moving.collect(now_ms)
        with self._store.write():
            self._moving.move(approvals, ready, now_ms)
            self._write_plans(now_ms)
            deny = self._write_deny_list(now_ms)
        plans = {row.model: (row.data, terms(_plan(row.data))) for row in self._store.plans.all()}
        self._repository.publish(plans, deny, now_ms)
        for model, (data, _) in plans.items():
            self._publisher.keep(self._topics.plan(model), data)
        self._publisher.keep(self._topics.deny, deny)
        self._publisher.keep_metadata(self._repository.roots(), self._repository.metadata())
        self._publish_documents()

    # --- approvals and documents ----------------------------------------------------------------

    def _note_approvals(self, approvals: Approvals, now_ms: int) -> None:
        for bundle, approved in approvals.items():
            row = self._store.bundles.get(bundle)
            state = "revoked" if approved.revoked else "approved"
            if row is None or row.state == state:
                continue
            with self._store.write():
                self._store.bundles.set_state(bundle, "revoked" if approved.revoked else "approved")
                about = {"version": row.version, "digest": bundle}
                topic = f"models/{row.model}"
                self._store.happened(TICKER, topic, f"model.{state}", about, now_ms)

    def _publish_documents(self) -> None:
        for retired in self._store.devices.to_withdraw():
            self._publisher.withdraw(self._topics.document(retired))
            self._store.devices.set_withdrawn(retired)
        while devices := self._store.devices.unpublished():
            with self._store.write():
                for device in devices:
                    try:
                        data = self._repository.sign_document(document_of(self._fleet, device))
                    except InvalidRequest:
                        # One document that is too large must not hold up all others.
                        log.exception("the document of %s cannot be sent", device.id)
                    else:
                        self._publisher.keep(self._topics.document(device.id), data)
                    self._store.devices.set_published(device.id, device.version)

    # --- plans ----------------------------------------------------------------------------------

    def _write_plans(self, now_ms: int) -> None:
        active = [each for each in self._store.rollouts.active() if each.wave > 0]
        models = {each.model for each in active} | set(self._store.plans.models())
        for model in sorted(models):
            row = self._store.plans.get(model)
            try:
                made = wanted_plan(self._store, self._fleet, model)
            except InvalidRequest:
                # The plan in force stays; other models, and other rollouts' aborts, go on.
                log.exception("no new plan for %s", model)
                continue
            plan = numbered(made, _plan(row.data) if row else None, now_ms)
            if plan is None:
                continue
            data = codec.encode(plan)
            self._store.plans.put(PlanRow(model, plan.version, plan.number, data))
            for rollout in active:
                if rollout.model == model:
                    self._store.rollouts.put(dataclasses.replace(rollout, asked=plan.version))

    def _write_deny_list(self, now_ms: int) -> bytes:
        """The deny list in force, new if it has changed."""
        row = self._store.plans.deny_list()
        denied = self._store.plans.denied()
        before = codec.decode_signed(row.data, DenyList, limit=codec.MAX_DENY_LIST) if row else None
        if row is not None and before is not None and before.denied == denied:
            return row.data
        version = max(row.version + 1 if row else 1, now_ms // 60_000)
        data = codec.encode(DenyList(self._fleet, version, denied))
        self._store.plans.put_deny_list(DenyRow(version, data))
        return data


def _within_reach(version: int, now_ms: int, what: str) -> bool:
    """Whether a version can come from an honest control plane: they follow the minutes.

    Only a thief of the key signs one near the end of all numbers. It is not followed: devices
    that took it go on with us once the key is replaced, and then there must be numbers left.
    """
    if version <= now_ms // 60_000 + _YEAR_MINUTES:
        return True
    log.error("%s %d was not made here: replace the key of role rollouts", what, version)
    return False


def _plan(data: bytes) -> Plan:
    return codec.decode_signed(data, Plan, limit=codec.MAX_PLAN)
