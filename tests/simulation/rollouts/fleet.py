"""A control plane with its real store, ticker, judge and ingest, and devices behind a bad network.

Whatever is random comes from one seed. The ticker's crashes have a seed of their own, so that the
same fleet can be played with and without them.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from control_plane.ingest import Ingest
from control_plane.judging import Judge
from control_plane.store import Store, connections
from control_plane.store.bundles import BundleRow, ManifestRow
from control_plane.store.plans import Assignment
from control_plane.ticker import Ticker
from protocol import codec
from protocol.device import DeviceDocument
from protocol.identifiers import Digest
from protocol.plan import DenyList, Plan
from protocol.telemetry import Ack
from protocol.topics import Topics
from tests.fakes.betting import PROFILE, manifest
from tests.fakes.ticked_fleet import (
    Death,
    FakeOffers,
    FakePublisher,
    FakeRepository,
    Killed,
    World,
)
from tests.fakes.virtual_fleet import approve, bundle
from tests.simulation.rollouts.device import MINUTE_MS, MODEL, WINDOW_MS, Began, Device

FLEET: Final = "north"
TOPICS: Final = Topics(FLEET)
VERSIONS: Final = ("v1", "v2", "v3")
V1, V2, V3 = (bundle(version) for version in VERSIONS)
STEP_MS: Final = 10 * MINUTE_MS
START_MS: Final = 20_000 * 24 * 60 * MINUTE_MS
SEASONS_MS: Final = 12 * WINDOW_MS
"""Of answers before the start: two seasons."""


class _Frail(connections._Connection):
    """A connection that dies at the n-th statement that writes, or commits."""

    death = Death()

    def execute(self, sql: str, *values: Any) -> Any:
        if sql.split(maxsplit=1)[0].upper() in ("INSERT", "UPDATE", "DELETE", "COMMIT"):
            self.death.reach()
        return super().execute(sql, *values)

    def executemany(self, sql: str, *values: Any) -> Any:
        self.death.reach()
        return super().executemany(sql, *values)


@contextlib.contextmanager
def frail() -> Iterator[None]:
    """Stores that are opened inside do not wait for the disk, and can be made to die."""
    before = connections._Connection, connections.SYNCHRONOUS
    connections._Connection, connections.SYNCHRONOUS = _Frail, "OFF"  # type: ignore[misc] # undone
    try:
        yield
    finally:
        connections._Connection, connections.SYNCHRONOUS = before  # type: ignore[misc] # undone


@dataclass(frozen=True, slots=True)
class Link:
    """What the network does to each message; nothing by itself."""

    lost: float = 0.0
    repeated: float = 0.0
    late_steps: int = 0
    """A message takes up to so many steps, so later ones overtake it."""


@dataclass
class Fleet:
    """`step` again and again: deliver, tick, let devices go on."""

    path: Path
    rng: random.Random
    crashes: random.Random | None = None
    link: Link = Link()
    now_ms: int = START_MS
    devices: dict[str, Device] = field(default_factory=dict)
    began: list[Began] = field(default_factory=list)
    rounds: int = 1
    """Of the ticker at each time. Several, and nothing is left that one more would do; so a round
    that dies and is made again is no different from one that does not die."""
    listening_since_ms: int | None = START_MS - 30 * 24 * 60 * MINUTE_MS
    crashed: int = 0
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    """Messages that ingest took, in order, since somebody cleared this."""
    retired: list[Device] = field(default_factory=list)
    _flying: list[tuple[int, int, str, bytes]] = field(default_factory=list)
    _sent: int = 0
    _plans: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(approvals=approve(*VERSIONS))
        self.versions = {bundle(version): version for version in VERSIONS}
        self.store = Store(self.path)
        for version in VERSIONS:
            variants = (ManifestRow(manifest(version), PROFILE),)
            row = BundleRow(bundle(version), MODEL, version, 1000, 1, "approved", variants)
            self.store.bundles.put(row)
        self.store.plans.assign(MODEL, [Assignment(None, V1)])
        self.ingest = ingest_of(self.store, lambda: self.now_ms)
        self.start()

    def start(self) -> None:
        """A new ticker: nothing is remembered but what the store and the broker have."""
        self.ticker = Ticker(
            FLEET,
            self.store,
            FakeRepository(self.world),
            FakePublisher(self.world),
            FakeOffers(self.world),
            Judge(self.store),
            listening_since_ms=lambda: self.listening_since_ms,
        )

    def enrol(self, name: str, site: str, *, past: bool = True) -> Device:
        """`past`: it has run v1 for days, and has said so."""
        id = f"{FLEET}-{name}"
        labels = {"site": site} if site else {}
        self.store.devices.enrol(id, labels, None, self.now_ms)
        device = self.devices[id] = Device(id, self.versions)
        device.window_ms = self.now_ms + self.rng.randrange(WINDOW_MS)
        if past:
            device.current = device.target = V1
            for hour in range(SEASONS_MS // WINDOW_MS):
                t0_ms = self.now_ms - SEASONS_MS + hour * WINDOW_MS
                device.add_window(V1, t0_ms + device.skew_ms, self.rng)
        return device

    # --- time -----------------------------------------------------------------------------------

    def step(self, ms: int = STEP_MS) -> None:
        self.now_ms += ms
        self.deliver()
        self.tick()
        self.go_on()

    def tick(self) -> None:
        """One round; where it dies in the middle, another ticker makes it at the same time."""
        if self.crashes is not None and self.crashes.random() < 0.25:
            death = Death(self.crashes.randrange(1, 60))
            self.world.death = _Frail.death = death
            try:
                self.ticker.tick(self.now_ms)
            except Killed:
                self.crashed += 1
            finally:
                self.world.death = _Frail.death = Death()
            self.start()
        for _ in range(self.rounds):
            self.ticker.tick(self.now_ms)
        data = self.world.retained.get(TOPICS.plan(MODEL))
        if data is not None and (not self._plans or self._plans[-1] != data):
            self._plans.append(data)

    def deliver(self) -> None:
        """Hand over what has arrived by now, if anybody listens; the broker keeps the rest."""
        if self.listening_since_ms is None:
            return
        arrived = sorted(each for each in self._flying if each[0] <= self.now_ms)
        self._flying = [each for each in self._flying if each[0] > self.now_ms]
        for _, _, topic, data in arrived:
            answer = self.ingest.handle(topic, data)
            self.delivered.append((topic, data))
            for ack in answer.acks:
                if self.rng.random() >= self.link.lost:
                    self._acked(ack.topic, ack.data)

    def _acked(self, topic: str, data: bytes) -> None:
        device = self.devices.get(topic.split("/")[-2])
        if device is None:
            return
        ack = codec.decode(data, Ack, limit=codec.MAX_DOWN)
        for each in ack.a:
            for lo, hi in each.have:
                device.acked(each.s, lo, hi)

    def go_on(self) -> None:
        """Devices read what is retained, go on with what they do, and send."""
        denied = self._denied()
        for device in self.devices.values():
            heard = device.linked and self.rng.random() >= self.link.lost
            if heard:
                self._read(device)
            device.step(self.world.approvals, denied, self.now_ms)
            device.count(self.rng, self.now_ms)
            device.state(self.now_ms, again=self.rng.random() < 0.1)
            self.began += device.began
            device.began.clear()
            # A probe when there is nothing to send is contact too.
            if device.linked and not device.dead:
                self._send(device)

    def _read(self, device: Device) -> None:
        document = self.world.retained.get(TOPICS.document(device.id))
        if document is not None:
            device.read_document(codec.decode_signed(document, DeviceDocument, limit=16_384))
        if self._plans:
            # With a bad link an old plan may come late, and no new one for a while.
            late = self.link.late_steps and self.rng.random() < 0.2
            data = self.rng.choice(self._plans) if late else self._plans[-1]
            device.read_plan(plan_of(data))

    def _denied(self) -> frozenset[Digest]:
        if not self.world.deny:
            return frozenset()
        return codec.decode_signed(self.world.deny, DenyList, limit=65_536).digests

    def _send(self, device: Device) -> None:
        if not device.outbox and self.rng.random() < 0.5:
            return
        data = device.upload(self.rng)
        if self.rng.random() < self.link.lost:
            return
        for _ in range(2 if self.rng.random() < self.link.repeated else 1):
            late_ms = self.rng.randrange(self.link.late_steps + 1) * STEP_MS
            self._sent += 1
            topic = TOPICS.up(device.id, "records")
            self._flying.append((self.now_ms + late_ms, self._sent, topic, data))

    # --- what is in force -----------------------------------------------------------------------

    @property
    def plan(self) -> Plan | None:
        return plan_of(self._plans[-1]) if self._plans else None

    def close(self) -> None:
        self.store.close()


_KNOWN_PLANS: dict[bytes, Plan] = {}


def plan_of(data: bytes) -> Plan:
    found = _KNOWN_PLANS.get(data)
    if found is None:
        if len(_KNOWN_PLANS) > 200:
            _KNOWN_PLANS.clear()
        found = _KNOWN_PLANS[data] = codec.decode_signed(data, Plan, limit=codec.MAX_PLAN)
    return found


def ingest_of(store: Store, now_ms: Any) -> Ingest:
    """As `serve` wires it."""
    return Ingest(
        TOPICS,
        store.records,
        accepts=store.devices.is_member,
        on_state=lambda device, state: _taken(store, device, state, now_ms()),
        on_contact=store.devices.contact,
        on_want=lambda device, want: None,
        now_ms=now_ms,
        rng=random.Random(0),
    )


def _taken(store: Store, device: str, state: Any, now_ms: int) -> None:
    store.devices.put_state(device, state, now_ms)
