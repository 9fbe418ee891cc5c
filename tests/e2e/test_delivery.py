"""A bundle's way through a real broker: publisher, links and fetcher, without the rest."""

from __future__ import annotations

import queue
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.link import Link as ControlLink
from control_plane.publisher import Publisher
from control_plane.retained import Retained
from edge_agent.fetch import Fetcher
from edge_agent.link import Link
from protocol.bundle import Facts
from protocol.codec import decode_up
from protocol.errors import Unavailable
from protocol.link import Retry
from protocol.telemetry import Want
from protocol.topics import Topics
from tests.fakes.mosquitto import Mosquitto
from tests.fakes.origin import Offer, PlainBundle, offer, plain_bundle
from tests.fakes.waiting import until

pytestmark = pytest.mark.e2e

TOPICS = Topics("local")
DEVICE = "local-cam"
QUICKLY = Retry(0.01, 0.1)


class ControlPlane:
    """Link and publisher with a thread in the ticker's place."""

    def __init__(self, mosquitto: Mosquitto) -> None:
        self.link = ControlLink(
            mosquitto.address(mosquitto.control),
            mosquitto.control,
            on_message=self._hear,
            on_state=lambda up, why: self.publisher.connected() if up else None,
            retry=QUICKLY,
        )
        self.retained = Retained(self.link, TOPICS)
        self.publisher = Publisher(self.link, TOPICS, self.retained, look_interval_s=0.2)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tick)
        self.link.subscribe([TOPICS.up_filter(shard) for shard in range(16)])
        self.link.start()
        self._thread.start()

    def offer(self, offered: Offer) -> None:
        files, bundle = offered.bundle.files, offered.bundle
        self.publisher.keep(TOPICS.manifest(bundle.model, bundle.digest), files["index.json"])
        self.publisher.keep(TOPICS.manifest(bundle.model, bundle.manifest), files["manifest.json"])
        for member in bundle.variant.members:
            self.publisher.offer(bundle.model, member.digest, [offered.payloads[member.path]])

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self.link.stop()

    def _hear(self, topic: str, data: bytes) -> None:
        if not self.retained.on_message(topic, data) and topic.endswith("/want"):
            self.publisher.want(decode_up(data, Want, lambda packed, limit: packed))

    def _tick(self) -> None:
        while not self._stopping.wait(0.02):
            try:
                self.publisher.work(time.monotonic())
            except Unavailable:
                continue


class Device:
    """Link and fetcher, driven by whoever waits for it."""

    def __init__(self, mosquitto: Mosquitto, bundles: Path, bundle: PlainBundle) -> None:
        self.messages: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.link = Link(
            mosquitto.address(DEVICE),
            DEVICE,
            on_message=lambda topic, data: self.messages.put((topic, data)),
            on_state=lambda up, why: None,
            retry=QUICKLY,
        )
        self.bundle = bundle
        self.here = bundles / f".{bundle.digest}"
        self.fetcher = Fetcher(
            self.link,
            TOPICS,
            DEVICE,
            bundles,
            Facts(),
            lambda: {bundle.digest: bundle.approved},
            random.Random(1),
            frame_timeout_s=0.3,
            want_interval_s=0.5,
        )
        self.link.start()

    def until(self, condition: Callable[[], bool]) -> None:
        def progress() -> bool:
            self.fetcher.ensure(self.bundle.model, self.bundle.digest)
            self.fetcher.tick(time.monotonic())
            # A few at a time, so that there is a middle of the transfer.
            for _ in range(min(4, self.messages.qsize())):
                self.fetcher.on_message(*self.messages.get())
            return condition()

        until(progress, timeout_s=60)

    def whole(self) -> bool:
        return (
            self.fetcher.status().done
            and {path.name: path.read_bytes() for path in self.here.iterdir()} == self.bundle.files
        )

    def halfway(self) -> bool:
        progress = self.fetcher.status().progress
        return progress is not None and 2 * progress.frames >= progress.of > 1

    def stop(self) -> None:
        self.link.stop()
        self.fetcher.close()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto.start(tmp_path, autosave_s=1800)
    yield running
    running.stop()


@pytest.fixture
def offered(tmp_path: Path) -> Offer:
    return offer(plain_bundle(tmp_path / "origin"), tmp_path / "payloads")


@pytest.fixture
def control(mosquitto: Mosquitto) -> Iterator[ControlPlane]:
    control = ControlPlane(mosquitto)
    yield control
    control.stop()


@pytest.fixture
def device(mosquitto: Mosquitto, tmp_path: Path, offered: Offer) -> Iterator[Device]:
    device = Device(mosquitto, tmp_path / "bundles", offered.bundle)
    yield device
    device.stop()


def test_a_bundle_arrives_and_leaves_the_control_plane_once(control, device, offered):
    control.offer(offered)
    device.until(device.whole)
    encoded = offered.payloads["model.onnx"].entry
    sent = control.publisher.origin_bytes[encoded.payload]
    assert sent <= 1.02 * encoded.size
    assert device.fetcher.counters == {}


def test_a_broker_that_dies_and_loses_everything_only_delays(mosquitto, control, device, offered):
    control.offer(offered)
    device.until(device.halfway)
    mosquitto.broker.kill()
    shutil.rmtree(mosquitto.broker.directory / "data")
    mosquitto.broker.start()
    device.until(device.whole)


def test_frames_that_somebody_cleared_are_published_again_on_a_want(control, device, offered):
    control.offer(offered)
    until(lambda: control.publisher.settled)
    frames = list(offered.frames(offered.payloads["model.onnx"]))
    for topic in frames[3:6]:
        control.link.publish(topic, b"", retain=True)
    device.until(device.whole)
    assert device.fetcher.counters["OUT-F101"] >= 1
