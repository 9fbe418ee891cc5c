"""A control plane and its virtual fleet: real store, real ticker, virtual time; no broker, no TUF.

What outlives the control plane's process is in `World`, so a test kills it wherever it likes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane.judging import Judge
from control_plane.rollout import operations
from control_plane.rollout.spec import read_spec
from control_plane.signing.adopt import Adopted
from control_plane.store import Store
from control_plane.store.bundles import BundleRow
from control_plane.ticker import Ticker
from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.device import DeviceDocument, Settings
from protocol.plan import Plan, PlanTerms
from protocol.topics import Topics
from tests.fakes.virtual_fleet import MODEL, VirtualDevice, approve, bundle

SALT = "5a" * 16
TOPICS = Topics("north")
V1, V2, V3 = (bundle(v) for v in ("v1", "v2", "v3"))
SECOND = 1000
HOUR = 3600 * SECOND


class Killed(BaseException):
    """kill -9: nothing catches it."""


@dataclass
class Death:
    """Kills at the n-th effect; each effect is counted before and after it happens."""

    at: int | None = None
    effects: int = 0

    def around(self, effect: Callable[[], Any]) -> Any:
        self.reach()
        result = effect()
        self.reach()
        return result

    def reach(self) -> None:
        self.effects += 1
        if self.effects == self.at:
            raise Killed


@dataclass
class World:
    """What outlives the ticker: the repository's files and what the broker retains."""

    approvals: dict[str, ApprovedBundle] = field(default_factory=lambda: approve("v1", "v2", "v3"))
    signed: dict[str, tuple[bytes, PlanTerms]] = field(default_factory=dict)
    deny: bytes = b""
    timestamp: int = 0
    retained: dict[str, bytes] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)
    settled: bool = True
    death: Death = field(default_factory=Death)


class FakeRepository:
    def __init__(self, world: World) -> None:
        self.world = world
        self.adopted = Adopted({}, {})
        self.document_key = "key"

    def approvals(self):
        return self.world.approvals

    def roots(self):
        return {1: b"root"}

    def metadata(self):
        return {"timestamp": str(self.world.timestamp).encode()}

    def publish(self, plans, deny, now_ms):
        changed = (dict(plans), deny) != (self.world.signed, self.world.deny)

        def sign():
            self.world.signed, self.world.deny = dict(plans), deny
            self.world.timestamp += changed

        self.world.death.around(sign)
        return changed

    def sign_document(self, document):
        return codec.encode(document)

    def adopt_retained(self, retained, now_ms):
        return self.adopted


class FakePublisher:
    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def settled(self):
        return self.world.settled

    def keep(self, topic, data):
        self.world.death.around(lambda: self.world.retained.__setitem__(topic, data))

    def withdraw(self, topic):
        self.world.death.around(lambda: self.world.retained.pop(topic, None))

    def keep_metadata(self, roots, roles):
        for role, data in roles.items():
            self.keep(TOPICS.tuf(role), data)

    def offer(self, model, file, payloads):
        raise AssertionError("offers are another object's")


class FakeOffers:
    def __init__(self, world: World) -> None:
        self.world = world

    def offer(self, bundle, keeper, now_ms):
        self.world.death.around(lambda: self.world.offered.add(bundle))
        return True


@dataclass
class ControlPlane:
    path: Path
    world: World = field(default_factory=World)
    now_ms: int = 100 * 24 * HOUR
    listening_since_ms: int | None = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A new process: nothing is remembered but the store and the world."""
        self.store = Store(self.path)
        self.repository = FakeRepository(self.world)
        self.ticker = Ticker(
            "north",
            self.store,
            self.repository,
            FakePublisher(self.world),
            FakeOffers(self.world),
            Judge(self.store),
            listening_since_ms=lambda: self.listening_since_ms,
        )

    def tick(self, seconds: float = 1.0) -> None:
        self.now_ms += int(seconds * SECOND)
        self.ticker.tick(self.now_ms)

    def add_version(self, version: str) -> None:
        row = BundleRow(bundle(version), MODEL, version, 1000, self.now_ms, "approved")
        self.store.bundles.put(row)

    def roll_out(
        self, version: str, *, expect_devices: int | None = None, **body: Any
    ) -> dict[str, Any]:
        """To everyone at once, unless `body` says otherwise."""
        spec = read_spec({"version": f"{MODEL}/{version}", "waves": ["100 %"], **body})
        return operations.start_rollout(
            self.store,
            "north",
            spec,
            self.world.approvals,
            self.now_ms,
            lambda: SALT,
            who="eva",
            expect_devices=expect_devices,
        )

    def return_to(self, version: str, **more: Any) -> dict[str, Any]:
        return operations.return_to(
            self.store,
            "north",
            MODEL,
            version,
            self.world.approvals,
            self.now_ms,
            lambda: SALT,
            who="eva",
            **more,
        )

    def act(self, verb: str, id: str, why: str = "", **more: Any) -> dict[str, Any]:
        """What the operator eva does: pause, resume, promote, approve, retry, abort."""
        done: dict[str, Any] = getattr(operations, verb)(
            self.store, id, self.now_ms, why, who="eva", **more
        )
        return done

    def status(self, id: str) -> dict[str, Any]:
        return operations.status(self.store, id, self.now_ms)

    @property
    def plan(self) -> Plan:
        return codec.decode_signed(self.world.retained[TOPICS.plan(MODEL)], Plan, limit=65_536)

    @property
    def published(self) -> dict[str, bytes]:
        return dict(self.world.retained)


@dataclass
class Fleet:
    """Virtual devices below one control plane; documents and plans come off the broker."""

    control: ControlPlane
    devices: dict[str, VirtualDevice] = field(default_factory=dict)

    def enrol(self, *names: str, interval_s: int | None = None, **labels: str) -> None:
        """`interval_s`: between two reports of its state, as far as its document says."""
        store, now_ms = self.control.store, self.control.now_ms
        for name in names:
            row = store.devices.enrol(f"north-{name}", labels, None, now_ms)
            if interval_s is not None:
                asked = dataclasses.replace(row, settings=Settings(interval_s))
                row = store.devices.change(asked, now_ms)
            document = DeviceDocument("north", row.id, 0)
            self.devices[row.id] = VirtualDevice(document, trial_s=3)

    def run(self, steps: int, seconds: float = 1.0) -> None:
        """Ticks with so much time between them, and what devices make of each."""
        for _ in range(steps):
            self.control.tick(seconds)
            self.step()

    def step(self) -> None:
        world, store = self.control.world, self.control.store
        data = world.retained.get(TOPICS.plan(MODEL))
        plan = codec.decode_signed(data, Plan, limit=65_536) if data else None
        for id, device in self.devices.items():
            topic = TOPICS.document(id)
            if device.linked and topic in world.retained:
                device.document = codec.decode_signed(
                    world.retained[topic], DeviceDocument, limit=16_384
                )
            state = device.step(plan, world.approvals, self.control.now_ms)
            if state is not None:
                store.devices.put_state(id, device.report(), self.control.now_ms)
                store.devices.contact(id, self.control.now_ms)

    def serving(self) -> dict[str, str | None]:
        return {id.partition("-")[2]: device.serving for id, device in self.devices.items()}

    def all_serve(self, digest: str) -> bool:
        return set(self.serving().values()) == {digest}

    def trying(self, digest: str) -> set[str]:
        """Names of the devices that ever served it."""
        return {id.partition("-")[2] for id, d in self.devices.items() if digest in d.ever}


def new_control(path: Path) -> ControlPlane:
    """With three approved versions and no device."""
    control = ControlPlane(path)
    for version in ("v1", "v2", "v3"):
        control.add_version(version)
    return control


def new_fleet(control: ControlPlane, **more: Any) -> Fleet:
    """Eight devices at two sites that run nothing yet."""
    fleet = Fleet(control)
    fleet.enrol("a-1", "a-2", "a-3", "a-4", site="a", **more)
    fleet.enrol("b-1", "b-2", "b-3", "b-4", site="b", **more)
    fleet.run(2)
    return fleet


def settle(fleet: Fleet) -> Fleet:
    """From now on v1 is stable everywhere."""
    fleet.control.roll_out("v1")
    fleet.run(10)
    assert fleet.control.status("digits-1")["status"] == "completed"
    assert fleet.all_serve(V1)
    return fleet
