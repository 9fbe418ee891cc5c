"""What every MQTT link does: the agent's and the control plane's on Mosquitto, and the fake."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import control_plane.link
import edge_agent.link
from control_plane.link import Delivery
from protocol.link import Retry
from tests.fakes.broker import Broker, FakeLink
from tests.fakes.mosquitto import Mosquitto
from tests.fakes.waiting import until

PREFIX = "outrider/v1/local/"
QUICKLY = Retry(0.01, 0.05)


@dataclass
class Ear:
    """Notes what a link hands in."""

    heard: list[tuple[str, bytes]] = field(default_factory=list)
    states: list[bool] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    def message(self, topic: str, data: bytes) -> None:
        self.heard.append((topic, data))

    def state(self, connected: bool, why: str) -> None:
        self.states.append(connected)


class World:
    """One broker, and links on it. The control plane may do everything on its prefix."""

    def __init__(self, kind: str, mosquitto: Mosquitto | None) -> None:
        self.kind = kind
        self.fake = Broker()
        self.mosquitto = mosquitto
        self.links: list[Any] = []

    def link(self, ear: Ear, identity: str | None = None, **options: Any) -> Any:
        if self.mosquitto is None:
            options.pop("retry", None)
            name = identity or "outrider-control-local"
            link: Any = FakeLink(
                self.fake, name, on_message=ear.message, on_state=ear.state, **options
            )
        else:
            who = identity or self.mosquitto.control
            package = edge_agent.link if self.kind == "agent" else control_plane.link
            make: Any = package.Link
            if "on_delivery" in options:
                make = control_plane.link.Link
            link = make(
                self.mosquitto.address(who),
                who,
                on_message=ear.message,
                on_state=ear.state,
                retry=QUICKLY,
                rng=random.Random(0),
                **options,
            )
        self.links.append(link)
        link.start()
        self.until(lambda: link.connected)
        return link

    def until(self, condition: Callable[[], object]) -> None:
        def progress() -> object:
            if self.mosquitto is None:
                self.fake.run()
            return condition()

        until(progress)

    def restart_broker(self) -> None:
        if self.mosquitto is None:
            self.fake.stop()
            self.fake.start()
        else:
            self.mosquitto.broker.stop()
            self.mosquitto.broker.start()

    def cut(self, identity: str) -> None:
        """End a connection without a goodbye."""
        if self.mosquitto is None:
            self.fake.cut(identity)
        else:
            for link in self.links:
                if link._client_id == identity:
                    link._client.socket().shutdown(2)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    running = Mosquitto.start(tmp_path_factory.mktemp("mosquitto"))
    yield running
    running.stop()


@pytest.fixture(params=["fake", "agent", "control plane"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    kind = request.param
    world = World(kind, None if kind == "fake" else request.getfixturevalue("mosquitto"))
    yield world
    for link in world.links:
        link.stop()


def test_a_published_message_reaches_a_subscriber(world):
    ear = Ear()
    link = world.link(ear)
    link.subscribe([PREFIX + "a"])
    assert link.publish(PREFIX + "a", b"hello")
    world.until(lambda: (PREFIX + "a", b"hello") in ear.heard)


def test_what_is_retained_comes_on_subscribing_and_again_on_subscribing_again(world):
    ear = Ear()
    link = world.link(ear)
    topic = PREFIX + "kept"
    link.publish(topic, b"1", retain=True)
    for times in (1, 2, 3):
        link.subscribe([topic])
        world.until(lambda times=times: len(ear.heard) == times)
    link.publish(topic, b"", retain=True)


def test_a_cleared_topic_is_silent_and_its_end_is_an_empty_message(world):
    ear = Ear()
    link = world.link(ear)
    topic = PREFIX + "cleared"
    link.publish(topic, b"1", retain=True)
    link.subscribe([topic])
    world.until(lambda: ear.heard == [(topic, b"1")])
    link.publish(topic, b"", retain=True)
    world.until(lambda: ear.heard[-1] == (topic, b""))
    link.subscribe([topic, PREFIX + "end"])
    link.publish(PREFIX + "end", b"x")
    world.until(lambda: ear.heard[-1] == (PREFIX + "end", b"x"))
    assert len(ear.heard) == 3


def test_nothing_comes_any_more_after_unsubscribing(world):
    ear = Ear()
    link = world.link(ear)
    link.subscribe([PREFIX + "b", PREFIX + "end"])
    link.unsubscribe([PREFIX + "b"])
    link.publish(PREFIX + "b", b"1")
    link.publish(PREFIX + "end", b"2")
    world.until(lambda: ear.heard == [(PREFIX + "end", b"2")])


def test_more_topics_than_one_packet_may_carry_are_all_subscribed(world):
    ear = Ear()
    link = world.link(ear)
    topics = [f"{PREFIX}many/{n}" for n in range(45)]
    link.subscribe(topics)
    for topic in topics:
        link.publish(topic, b"x")
    world.until(lambda: {topic for topic, _ in ear.heard} == set(topics))


def test_subscriptions_outlive_the_connection_and_bring_what_was_retained_meanwhile(world):
    ear = Ear()
    link = world.link(ear)
    link.subscribe([PREFIX + "c"])
    link.publish(PREFIX + "c", b"1", retain=True)
    world.until(lambda: ear.heard)
    ear.heard.clear()
    world.restart_broker()
    world.until(lambda: ear.states[-1:] == [True] and False in ear.states)
    world.until(lambda: (PREFIX + "c", b"1") in ear.heard)
    link.publish(PREFIX + "c", b"", retain=True)


def test_publishing_without_a_connection_does_nothing_and_says_so(world):
    link = world.link(Ear())
    link.stop()
    assert not link.connected
    assert not link.publish(PREFIX + "d", b"1")


def test_a_lost_connection_publishes_the_will_and_a_goodbye_does_not(world):
    ear = Ear()
    watcher = world.link(ear)
    presence = PREFIX + "presence/local-dev"
    watcher.subscribe([presence, PREFIX + "end"])
    device = world.link(Ear(), "local-dev", will=(presence, b"gone"))
    world.cut("local-dev")
    world.until(lambda: (presence, b"gone") in ear.heard)
    watcher.publish(presence, b"", retain=True)
    world.until(lambda: device.connected)
    device.stop()
    watcher.publish(PREFIX + "end", b"x")
    world.until(lambda: (PREFIX + "end", b"x") in ear.heard)
    assert ear.heard.count((presence, b"gone")) == 1


def test_large_messages_arrive_whole(world):
    ear = Ear()
    link = world.link(ear)
    data = random.Random(1).randbytes(2 * 1024 * 1024)
    link.subscribe([PREFIX + "large"])
    link.publish(PREFIX + "large", data)
    world.until(lambda: ear.heard == [(PREFIX + "large", data)])


def test_a_kept_session_delivers_again_what_was_not_acknowledged(world):
    if world.kind == "agent":
        pytest.skip("devices keep nothing at the broker: what they miss is retained")
    ear, first = Ear(), Ear()
    link = world.link(first, on_delivery=first.deliveries.append)
    link.subscribe([PREFIX + "up/+/+/records"], qos=1)
    device = world.link(Ear(), "local-cam")
    topic = PREFIX + "up/3/local-cam/records"
    for number in range(3):
        device.publish(topic, b"%d" % number)
    world.until(lambda: len(first.deliveries) == 3)
    first.deliveries[0].acknowledge()
    # The confirmation is on its way before the goodbye is.
    link.stop()
    device.publish(topic, b"3")
    world.link(ear, on_delivery=ear.deliveries.append)
    world.until(lambda: len(ear.deliveries) == 3)
    assert [delivery.data for delivery in ear.deliveries] == [b"1", b"2", b"3"]
    first.deliveries[1].acknowledge()
    for delivery in ear.deliveries:
        delivery.acknowledge()
