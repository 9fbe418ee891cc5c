"""What should be retained is retained, and published no more often than it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from control_plane.encode import Encoded
from control_plane.publisher import Publisher
from control_plane.retained import Retained
from protocol.errors import Unavailable
from protocol.identifiers import digest_of
from protocol.telemetry import Want
from protocol.topics import Topics
from tests.fakes.broker import Broker, FakeLink
from tests.fakes.origin import Offer, offer, plain_bundle
from tests.fakes.waiting import until

TOPICS = Topics("local")
ROLES = {role: role.encode() for role in ("timestamp", "snapshot", "targets", "models", "rollouts")}


@dataclass
class ControlPlane:
    """A publisher as `serve` wires it; made anew, it has forgotten everything."""

    broker: Broker
    link: FakeLink = field(init=False)
    retained: Retained = field(init=False)
    publisher: Publisher = field(init=False)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.link = FakeLink(
            self.broker,
            "outrider-control-local",
            on_message=self.hear,
            on_state=lambda up, why: self.publisher.connected() if up else None,
        )
        self.retained = Retained(self.link, TOPICS)
        self.publisher = Publisher(self.link, TOPICS, self.retained)
        self.link.start()

    def hear(self, topic: str, data: bytes) -> None:
        self.retained.on_message(topic, data)

    def offer(self, offered: Offer) -> None:
        for path, encoded in offered.payloads.items():
            member = next(m for m in offered.bundle.variant.members if m.path == path)
            self.publisher.offer("toy", member.digest, [encoded])

    def work(self) -> None:
        while not self.publisher.work(self.now):
            pass


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offer:
    origin = tmp_path_factory.mktemp("origin")
    return offer(plain_bundle(origin / "bundles"), origin / "payloads")


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    with broker.running():
        yield broker


@pytest.fixture
def control(broker: Broker) -> ControlPlane:
    return ControlPlane(broker)


def retained_publishes(broker: Broker) -> list[str]:
    return [topic for topic, _ in broker.published if "/echo/" not in topic]


def wire_bytes(encoded: Encoded) -> int:
    return encoded.entry.size + 32 * encoded.entry.frames


def test_a_device_finds_everything_it_needs(control, broker, offered):
    control.offer(offered)
    files = offered.bundle.files
    control.publisher.keep(TOPICS.manifest("toy", offered.bundle.digest), files["index.json"])
    control.publisher.keep(TOPICS.manifest("toy", offered.bundle.manifest), files["manifest.json"])
    control.work()
    assert broker.retained == offered.retained()


def test_a_payload_leaves_the_control_plane_once(control, broker, offered):
    for _ in range(3):
        control.offer(offered)
        control.work()
    encoded = offered.payloads["model.onnx"]
    assert control.publisher.origin_bytes[encoded.entry.payload] == wire_bytes(encoded)
    assert len(retained_publishes(broker)) == len(set(retained_publishes(broker)))


def test_a_restarted_control_plane_publishes_nothing_that_is_there(control, broker, offered):
    control.offer(offered)
    control.publisher.keep_metadata({1: b"root"}, ROLES)
    control.work()
    control.link.stop()
    broker.published.clear()
    again = ControlPlane(broker)
    again.offer(offered)
    again.publisher.keep_metadata({1: b"root"}, ROLES)
    again.work()
    assert retained_publishes(broker) == []
    assert again.publisher.origin_bytes == {}


def test_what_a_broker_lost_is_published_again_and_only_that(control, broker, offered):
    control.offer(offered)
    control.publisher.keep(TOPICS.plan("toy"), b"plan")
    control.work()
    frames = list(offered.frames(offered.payloads["model.onnx"]))
    lost = {*frames[2:5], offered.hint("model.onnx"), TOPICS.plan("toy")}
    broker.published.clear()
    broker.stop()
    broker.start(lose=lambda topic: topic in lost)
    wait_connected(control)
    control.work()
    assert set(retained_publishes(broker)) == lost


def test_what_somebody_changed_is_put_right(control, broker, offered):
    control.offer(offered)
    control.work()
    topic = list(offered.frames(offered.payloads["model.onnx"]))[1]
    good = broker.retained[topic]
    broker.retained[topic] = b"tampered"
    broker.stop()
    broker.start()
    wait_connected(control)
    control.work()
    assert broker.retained[topic] == good


def wait_connected(control: ControlPlane) -> None:
    until(lambda: control.link.connected and not control.publisher.settled)


def test_what_is_referred_to_is_published_before_what_refers_to_it(control, broker, offered):
    control.offer(offered)
    control.publisher.keep_metadata({2: b"2", 1: b"1"}, ROLES)
    control.publisher.keep(TOPICS.plan("toy"), b"plan")
    control.publisher.keep(TOPICS.deny, b"deny")
    control.work()
    order = [topic.removeprefix(TOPICS.prefix) for topic in retained_publishes(broker)]
    metadata = [topic for topic in order if topic.startswith("tuf/") and "root" not in topic]
    assert metadata[2:] == ["tuf/targets", "tuf/snapshot", "tuf/timestamp"]
    assert max(map(order.index, ("plans/toy", "deny", "tuf/root/2"))) < order.index("tuf/models")
    hints = [place for place, topic in enumerate(order) if topic.startswith("payloads/")]
    frames = [place for place, topic in enumerate(order) if topic.startswith("frames/")]
    assert max(frames) < min(hints)


def test_new_content_replaces_the_old_and_equal_content_does_not(control, broker):
    for data in (b"1", b"1", b"2"):
        control.publisher.keep(TOPICS.plan("toy"), data)
        control.work()
    assert broker.retained == {TOPICS.plan("toy"): b"2"}
    assert len(retained_publishes(broker)) == 2


def test_withdrawn_payloads_are_cleared_frame_by_frame(control, broker, offered):
    control.offer(offered)
    control.work()
    encoded = offered.payloads["model.onnx"]
    control.publisher.withdraw(offered.hint("model.onnx"))
    control.publisher.withdraw_payload("toy", encoded)
    control.work()
    cleared = {offered.hint("model.onnx"), *offered.lists(encoded), *offered.frames(encoded)}
    assert cleared.isdisjoint(broker.retained)
    assert {topic for topic, data in broker.published if not data} >= cleared
    assert control.publisher.settled


def test_withdrawing_what_is_not_there_publishes_nothing(control, broker):
    control.publisher.withdraw(TOPICS.plan("toy"))
    control.work()
    assert retained_publishes(broker) == []


def want(encoded: Encoded, *ranges: tuple[int, int]) -> Want:
    return Want(1, encoded.entry.payload, ranges)


def test_a_thousand_wants_are_served_once(control, broker, offered):
    control.offer(offered)
    control.work()
    encoded = offered.payloads["model.onnx"]
    topic = list(offered.frames(encoded))[3]
    del broker.retained[topic]
    broker.published.clear()
    for _ in range(1000):
        control.publisher.want(want(encoded, (2, 5)))
    control.work()
    assert retained_publishes(broker) == [topic]


def test_wants_are_looked_after_at_most_once_per_interval(control, broker, offered):
    control.offer(offered)
    control.work()
    encoded = offered.payloads["model.onnx"]
    topic = list(offered.frames(encoded))[3]
    looks = []
    for second in range(30):
        broker.retained.pop(topic, None)
        broker.published.clear()
        control.publisher.want(want(encoded, (0, 2**53)))
        control.publisher.work(float(second))
        looks += [second] * (topic in retained_publishes(broker))
    assert looks == [0, 10, 20]


def test_wants_for_what_nobody_offers_are_ignored(control, broker):
    control.publisher.want(Want(1, digest_of(b"?"), ((0, 5),)))
    control.work()
    assert broker.published == []


def test_work_is_cut_into_pieces(control, broker, offered):
    control.offer(offered)
    pieces = 1
    while not control.publisher.work(0.0, budget_bytes=100_000):
        pieces += 1
    assert pieces > 1
    assert len(broker.retained) == len(offered.retained()) - 2


def test_without_a_connection_it_says_so_and_goes_on_later(control, broker):
    control.publisher.keep(TOPICS.plan("toy"), b"plan")
    broker.stop()
    with pytest.raises(Unavailable):
        control.publisher.work(0.0)
    broker.start()
    wait_connected(control)
    control.work()
    assert broker.retained == {TOPICS.plan("toy"): b"plan"}


def test_a_link_that_is_lost_between_two_messages_loses_nothing(control, broker, offered):
    control.offer(offered)
    publish = control.link.publish
    sent = 0

    def losing(topic, data, **options):
        nonlocal sent
        sent += 1
        if sent % 7 == 0:
            # Confirmed by nobody: the broker has lost it, and half of what it had.
            broker.stop()
            broker.start(lose=lambda topic: hash(topic) % 2 == 0 and sent < 40)
            return True
        return publish(topic, data, **options)

    control.link.publish = losing
    finish(control, lambda: sent > 60)
    control.link.publish = publish
    finish(control, lambda: True)
    kept = {t: d for t, d in offered.retained().items() if "/manifests/" not in t}
    assert broker.retained == kept


def finish(control: ControlPlane, enough: Callable[[], bool]) -> None:
    for _ in range(200):
        wait_for_link(control)
        try:
            if control.publisher.work(0.0) and enough():
                return
        except Unavailable:
            continue
        if control.publisher.settled:
            control.publisher.connected()


def wait_for_link(control: ControlPlane) -> None:
    until(lambda: control.link.connected)


def test_a_payload_file_that_cannot_be_read_holds_up_nothing_else(control, broker, offered):
    encoded = offered.payloads["model.onnx"]
    control.offer(offered)
    moved = encoded.path.with_suffix(".away")
    encoded.path.rename(moved)
    try:
        control.publisher.keep(TOPICS.plan("toy"), b"plan")
        control.work()
    finally:
        moved.rename(encoded.path)
    assert broker.retained[TOPICS.plan("toy")] == b"plan"
    assert set(offered.frames(encoded)).isdisjoint(broker.retained)
    control.publisher.want(want(encoded, (0, encoded.entry.frames)))
    control.work()
    assert set(offered.frames(encoded)) <= set(broker.retained)


@pytest.mark.parametrize("topic", ["up/3/local-cam/records", "echo/x", "presence/local-cam"])
def test_only_what_is_retained_can_be_kept(control, topic):
    with pytest.raises(ValueError, match="retained"):
        control.publisher.keep(TOPICS.prefix + topic, b"x")
