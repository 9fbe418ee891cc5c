"""One device, everything that decides what it runs, and whoever speaks to it.

Bytes go through `Orders`, as the agent's supervisor hands them on, so that refusals are those that
the device reports; and `decide` is asked what it would do then.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from edge_agent.desired import Run, Trusted, decide
from edge_agent.journal import Journal
from edge_agent.orders import Orders
from protocol.approval import Approved
from protocol.bundle import Facts
from protocol.identifiers import Digest
from protocol.plan import Local
from protocol.topics import TUF_ROLES
from tests.fakes.fleet_trust import DEVICE, TOPICS, Device, Machine
from tests.fakes.quorum import quorum_fleet

Retained: TypeAlias = Mapping[str, bytes]
MODEL = "digits"
PATIENCE_S = 6.0
"""After so long, what does not fit together is reported."""


class Siege:
    """A fleet with quorums has approved and planned v1, and the device has heard of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = quorum_fleet(folder)
        self.v1 = self.fleet.approve(f"{MODEL}/v1")
        self.fleet.plan(MODEL, self.v1)
        self.fleet.broker[TOPICS.document(DEVICE)] = self.fleet.document(1)
        self.fleet.publish()
        self.now_s = 0.0
        self.become(Device(folder / "device", self.fleet.root))
        self.hear(self.fleet.broker)

    @property
    def told(self) -> dict[str, bytes]:
        """A copy of what the honest fleet says now."""
        return dict(self.fleet.broker)

    # --- the device -----------------------------------------------------------------------------

    def become(self, device: Device) -> None:
        """From now on it is about this device."""
        self.device = device
        self._load()

    def newcomer(self, *, knows_the_time: bool = True) -> None:
        """A device that has just been enrolled."""
        wall_ms = self.fleet.now_ms if knows_the_time else 0
        machine = Machine(wall_ms, synchronised=knows_the_time)
        self.become(Device(self.folder / "newcomer", self.fleet.root, machine))

    def restart(self) -> None:
        self.device.restart()
        self._load()

    def _load(self) -> None:
        self.orders = Orders(
            self.device.trust,
            self.device.clock,
            TOPICS,
            DEVICE,
            self.device.directory / "documents",
            random.Random(1).random,
        )
        self.orders.load()

    def hear(self, retained: Retained) -> None:
        """All of it, as often as another root makes more of it of use; then wait for the rest."""
        before = -1
        while before != self.device.trust.root_version:
            before = self.device.trust.root_version
            for topic, data in retained.items():
                self.orders.on_message(topic, data)
            self.now_s += PATIENCE_S
            self.orders.settle((), self.now_s)
        self.now_s += PATIENCE_S
        self.orders.settle((), self.now_s)

    def carry(self, retained: Retained) -> None:
        """The same by hand: a person brings it on a stick."""
        roles = {role: retained[TOPICS.tuf(role)] for role in TUF_ROLES}
        known = self.device.trust.root_version
        roots = {
            int(topic.rpartition("/")[2]): data
            for topic, data in retained.items()
            if "/root/" in topic
        }
        self.device.trust.carry({n: data for n, data in roots.items() if n > known}, roles)
        plans = {MODEL: retained[TOPICS.plan(MODEL)]}
        document, deny = retained[TOPICS.document(DEVICE)], retained[TOPICS.deny]
        self.orders.carry(document, deny, plans, ())

    @property
    def refused(self) -> dict[str, str]:
        """Codes that the device reports, by what it refuses."""
        return {what: entry.code for what, entry in self.orders.refused.items()}

    @property
    def trusted(self) -> tuple[object, ...]:
        trust, orders = self.device.trust, self.orders
        return (
            trust.state(),
            dict(trust.approvals),
            dict(orders.plans),
            orders.deny,
            orders.document,
        )

    def later(self, **duration: float) -> None:
        """Time passes for everybody."""
        self.fleet.later(**duration)
        self.device.machine.wall_ms = self.fleet.now_ms

    # --- what it would do -----------------------------------------------------------------------

    def heads_for(self, *committed: Digest) -> tuple[Digest | None, str]:
        """`(bundle, problem code of what keeps it from starting now)`, with these bundles, newest
        first, committed before."""
        trust, now_ms = self.device.trust, self.device.clock.now_ms()
        issued = trust.issued_ms if trust.timestamp_fresh() else None
        trusted = Trusted(
            self.orders.plans.get(MODEL),
            self.orders.document,
            trust.approvals,
            self.orders.deny.digests if self.orders.deny is not None else frozenset(),
            trust.models_expired(),
            None if issued is None else (now_ms - issued) / 1000,
        )
        current, previous = (*committed, None, None)[:2]
        journal = Journal(MODEL, current=current, previous=previous)
        local = Local(now_ms, Facts(), current=current, previous=previous)
        desired = decide(MODEL, trusted, local, journal, agent="1").desired
        if not isinstance(desired, Run):
            return None, ""
        return desired.digest, desired.hindrance.reason if desired.hindrance is not None else ""

    # --- the honest fleet -----------------------------------------------------------------------

    def next_publication(self) -> Digest:
        """v1 is revoked, v2 is approved and planned. Heard of by nobody yet."""
        self.later(hours=1)
        self.fleet.approve(f"{MODEL}/v1", Approved(state="revoked"))
        v2 = self.fleet.approve(f"{MODEL}/v2")
        self.fleet.plan(MODEL, v2)
        self.fleet.publish()
        return v2

    def sign_document(self, **values: Any) -> None:
        """The device's document, of a version that follows from the time."""
        version = self.fleet.now_ms // 60_000
        self.fleet.broker[TOPICS.document(DEVICE)] = self.fleet.document(version, **values)

    def tell_the_truth(self) -> None:
        """The next honest word, in which something is new."""
        self.later(hours=1)
        self.fleet.plan(MODEL, self.fleet.approve(f"{MODEL}/v9"))
        self.sign_document()
        self.fleet.publish()
        self.hear(self.fleet.broker)

    @property
    def converged(self) -> bool:
        """Whether it believes what a device would that was never lied to."""
        honest = Device(self.folder / "honest", self.fleet.root)
        honest.machine.wall_ms = self.fleet.now_ms
        honest.read({topic: data for topic, data in self.told.items() if "/tuf/" in topic})
        same = honest.trust.state() == self.device.trust.state()
        return same and honest.trust.approvals == self.device.trust.approvals and not self.refused
