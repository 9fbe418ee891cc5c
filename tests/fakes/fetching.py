"""A fetcher on a fake link, a clock that jumps, and one bundle that a broker offers to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.encode import Encoded
from edge_agent.bringing import Bringing
from edge_agent.budget import Permits, Unlimited
from edge_agent.fetch import Fetcher
from edge_agent.transfer import HOURS_CLOSED, NO_BUDGET, Held
from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.bundle import Facts
from protocol.link import MAX_SUBSCRIPTIONS
from protocol.payload import PLAIN_FEATURES
from protocol.telemetry import Want
from protocol.topics import Topics
from tests.fakes.broker import Broker, FakeLink, Faults
from tests.fakes.origin import Offer, PlainBundle

TOPICS = Topics("local")
DEVICE = "local-cam"
TIMEOUT_S = 30.0
WANT_S = 600.0


@dataclass
class Device:
    """A fetcher on a fake link, and a clock that jumps."""

    bundles: Path
    broker: Broker
    approvals: dict[str, ApprovedBundle]
    facts: Facts = Facts(arch="aarch64")
    now: float = 1000.0
    permits: Permits = field(default_factory=Unlimited)
    known: int = PLAIN_FEATURES
    bringing: Callable[[], Bringing] | None = None
    fetcher: Fetcher = field(init=False)
    link: FakeLink = field(init=False)

    def __post_init__(self) -> None:
        self.bundles.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        self.link = FakeLink(self.broker, DEVICE, on_message=self._hear)
        self.fetcher = Fetcher(
            self.link,
            TOPICS,
            DEVICE,
            self.bundles,
            self.facts,
            lambda: self.approvals,
            random.Random(5),
            frame_timeout_s=TIMEOUT_S,
            want_interval_s=WANT_S,
            permits=self.permits,
            known=self.known,
            bringing=self.bringing() if self.bringing is not None else None,
        )
        self.link.start()

    def stop(self) -> None:
        """As a power cut does: nothing is said, nothing is written any more."""
        self.link.stop()
        self.fetcher.close()

    def _hear(self, topic: str, data: bytes) -> None:
        assert self.fetcher.on_message(topic, data)
        assert len(self.link.topics) <= MAX_SUBSCRIPTIONS

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.fetcher.tick(self.now)
        self.broker.run()
        self.fetcher._worker.wait(120)
        self.fetcher.tick(self.now)
        self.broker.run()

    def until(self, condition: Callable[[], object], turns: int = 300, step: float = 1.0) -> None:
        for _ in range(turns):
            if condition():
                return
            self.turn(step)
        raise AssertionError(f"never; {self.fetcher.status()} {dict(self.fetcher.counters)}")

    @property
    def done(self) -> bool:
        return self.fetcher.status().done

    def partial(self, bundle: PlainBundle) -> Path:
        return self.bundles / f".{bundle.digest}"

    def wants(self) -> list[Want]:
        topic = TOPICS.up(DEVICE, "want")
        return [
            codec.decode_up(data, Want, lambda packed, limit: packed)
            for name, data in self.broker.published
            if name == topic
        ]


@dataclass
class World:
    """One bundle, offered by a broker to one device."""

    offer: Offer
    broker: Broker
    device: Device

    @property
    def model(self) -> Encoded:
        return self.offer.payloads["model.onnx"]

    @property
    def topics_of_frames(self) -> list[str]:
        return list(self.offer.frames(self.model))

    def ensure(self) -> None:
        self.device.fetcher.ensure("toy", self.offer.bundle.digest)

    def whole(self) -> bool:
        here = self.device.partial(self.offer.bundle)
        # What is hidden there is for Stage to remove.
        files = {p.name: p.read_bytes() for p in here.glob("*") if not p.name.startswith(".")}
        return self.device.done and files == self.offer.bundle.files

    def finish(self) -> None:
        self.ensure()
        self.device.until(self.whole)
        assert not self.device.link.topics


def make_world(offered: Offer, bundles: Path, faults: Faults = Faults()) -> World:
    broker = Broker(random.Random(7), faults)
    broker.retained = offered.retained()
    approvals = {offered.bundle.digest: offered.bundle.approved}
    return World(offered, broker, Device(bundles, broker, approvals))


@dataclass
class Purse:
    """Permits so many bytes; what frames cost is taken out of it by the test."""

    left: int
    closed: bool = False

    def held(self, needed_bytes: int, _: str | None = None, /) -> Held | None:
        if self.closed:
            return Held(HOURS_CLOSED, "goes on at 01:00")
        return Held(NO_BUDGET, f"needs {needed_bytes}") if needed_bytes > self.left else None

    def moved_bytes(self, count: int, _: str | None = None, /) -> None:
        self.left -= count
