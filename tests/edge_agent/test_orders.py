"""Orders: what is in force is verified, never gets worse, and outlives the process."""

from __future__ import annotations

import contextlib
import errno
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent import durable
from edge_agent.orders import Orders
from protocol import codec
from protocol.device import DeviceDocument
from protocol.plan import Denied, DenyList, Plan, PlanTerms
from protocol.selector import Selector
from tests.fakes.fleet_trust import DEVICE, FLEET, TOPICS, Device, Fleet

LEEDS = PlanTerms(Selector("eq", "site", ("leeds",)))
YORK = PlanTerms(Selector("eq", "site", ("york",)))
DOCUMENT = TOPICS.document(DEVICE)


class World:
    def __init__(self, tmp_path):
        self.fleet = Fleet(tmp_path / "control")
        self.v1 = self.fleet.approve("digits/v1")
        self.fleet.plan("digits", self.v1, LEEDS)
        self.fleet.plan("faces", self.v1, YORK)
        self.fleet.publish()
        self.fleet.broker[DOCUMENT] = self.fleet.document(1, labels={"site": "leeds"})
        self.device = Device(tmp_path / "device", self.fleet.root)
        self.restart()

    def restart(self):
        self.device.restart()
        self.orders = Orders(
            self.device.trust,
            self.device.clock,
            TOPICS,
            DEVICE,
            self.device.directory / "documents",
            random.Random(1).random,
        )
        self.orders.load()

    def bring(self, *topics):
        for topic in topics:
            self.orders.on_message(topic, self.fleet.broker[topic])
        return self.orders.settle((), 0.0)

    def connect(self, held=()):
        """As the supervisor does it: standing topics, then what is wanted, until nothing is."""
        for topic in self.orders.standing:
            if topic in self.fleet.broker:
                self.orders.on_message(topic, self.fleet.broker[topic])
        self.orders.settle(held, 0.0)
        asked = []
        while topics := sorted(self.orders.wanted(held)):
            asked += topics
            for topic in topics:
                self.orders.on_message(topic, self.fleet.broker[topic])
            self.orders.settle(held, 0.0)
        return asked


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_new_device_asks_for_metadata_and_for_the_plans_that_concern_it(world):
    asked = world.connect()
    assert TOPICS.plan("digits") in asked
    assert TOPICS.plan("faces") not in asked
    assert world.orders.document.labels == {"site": "leeds"}
    assert list(world.orders.plans) == ["digits"]
    assert world.orders.deny is not None
    assert world.orders.refused == {}


def test_the_plan_of_a_model_that_it_holds_concerns_it_whatever_its_labels_say(world):
    assert TOPICS.plan("faces") in world.connect(held=("faces",))


def test_nothing_is_asked_for_twice(world):
    world.connect()
    assert world.connect() == []


def test_a_changed_plan_is_asked_for_and_takes_force(world):
    world.connect()
    world.fleet.later(minutes=5)
    v2 = world.fleet.approve("digits/v2")
    world.fleet.plan("digits", v2, LEEDS)
    world.fleet.publish()
    assert TOPICS.plan("digits") in world.connect()
    assert world.orders.plans["digits"].rules[0].stable == v2


def test_what_was_in_force_is_in_force_after_a_restart_without_a_link(world):
    world.connect()
    before = (world.orders.document, world.orders.plans, world.orders.deny)
    world.restart()
    assert (world.orders.document, world.orders.plans, world.orders.deny) == before


def test_before_metadata_is_trusted_nothing_is_in_force(world):
    assert not world.bring(DOCUMENT, TOPICS.deny, TOPICS.plan("digits"))
    assert world.orders.document is None
    assert world.orders.plans == {}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(order, tmp_path_factory):
    world = World(tmp_path_factory.mktemp("w"))
    topics = [*world.fleet.broker, *world.fleet.broker]
    order.shuffle(topics)
    for topic in topics:
        world.bring(topic)
    world.connect()
    assert world.orders.document is not None
    assert world.orders.document.version == 1
    assert list(world.orders.plans) == ["digits"]


TAMPERED = {
    "a document with another signature": lambda w: {
        DOCUMENT: w.fleet.document(2).replace(b'"sig": "', b'"sig": "00', 1)
        if b'"sig": "' in w.fleet.document(2)
        else w.fleet.document(2).replace(b'"sig":"', b'"sig":"00', 1)
    },
    "another device's document": lambda w: {
        DOCUMENT: w.fleet.document(2, device=f"{FLEET}-cam-2", labels={})
    },
    "an older document": lambda w: {DOCUMENT: w.fleet.document(0)},
    "a document that is too large": lambda w: {DOCUMENT: b"x" * 20_000},
    "garbage for a document": lambda w: {DOCUMENT: b"\xff\x00"},
    "metadata that is no metadata": lambda w: {TOPICS.tuf("timestamp"): b"{}"},
    "metadata that is too large": lambda w: {TOPICS.tuf("models"): b"x" * 3_000_000},
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_what_is_refused_is_reported_and_what_was_in_force_stays(world, tamper):
    world.connect()
    before = (world.orders.document, dict(world.orders.plans), world.orders.deny)
    for topic, data in tamper(world).items():
        assert world.orders.on_message(topic, data)
    world.orders.settle((), 0.0)
    assert (world.orders.document, world.orders.plans, world.orders.deny) == before
    assert [refused.code[:5] for refused in world.orders.refused.values()]


def test_a_tampered_plan_or_deny_list_never_takes_force(world):
    world.connect()
    world.fleet.later(minutes=5)
    world.fleet.plan("digits", world.fleet.approve("digits/v2"), LEEDS)
    world.fleet.publish()
    world.fleet.broker[TOPICS.plan("digits")] += b" "
    world.fleet.broker[TOPICS.deny] += b" "
    for topic in world.orders.standing:
        if topic in world.fleet.broker:
            world.orders.on_message(topic, world.fleet.broker[topic])
    for _ in range(5):
        for topic in world.orders.wanted(()):
            world.orders.on_message(topic, world.fleet.broker[topic])
        world.orders.settle((), 0.0)
    assert world.orders.plans["digits"].rules[0].stable == world.v1
    assert TOPICS.plan("digits") in world.orders.wanted(())  # still hoped for


def test_a_document_from_the_future_is_refused_with_the_names_it_needs(world):
    world.connect()
    future = world.fleet.document(2, must_understand=("document/1", "teleport/1"))
    world.orders.on_message(DOCUMENT, future)
    world.orders.settle((), 0.0)
    refused = world.orders.refused["document"]
    assert refused.code == "OUT-D330"
    assert "teleport/1" in refused.detail
    assert world.orders.document.version == 1


def test_a_plan_from_the_future_is_refused_once_and_not_asked_for_again(world):
    world.connect()
    world.fleet.later(minutes=5)
    plan = Plan(FLEET, "digits", world.fleet.now_ms // 60_000 + 9, 9, must_understand=("warp/1",))
    world.fleet.plans["digits"] = codec.encode(plan), LEEDS
    world.fleet.publish()
    world.connect()
    assert world.orders.refused["plan-digits"].code == "OUT-D330"
    assert world.orders.plans["digits"].rules[0].stable == world.v1
    assert world.orders.wanted(()) == frozenset()


def test_a_refusal_is_forgotten_when_something_acceptable_comes(world):
    world.connect()
    world.orders.on_message(DOCUMENT, b"garbage")
    world.orders.settle((), 0.0)
    assert "document" in world.orders.refused
    world.fleet.broker[DOCUMENT] = world.fleet.document(2, labels={"site": "york"})
    assert world.bring(DOCUMENT)
    assert world.orders.refused == {}


def test_an_inconsistent_set_is_asked_for_again_after_a_while(world):
    world.orders.on_message(TOPICS.tuf("timestamp"), world.fleet.broker[TOPICS.tuf("timestamp")])
    world.orders.settle((), 0.0)
    assert not world.orders.again(0.0)
    assert world.orders.again(5.0)
    assert not world.orders.again(5.0)


def test_what_was_in_force_all_along_ends_a_refusal(world):
    world.connect()
    for topic in (DOCUMENT, TOPICS.deny, TOPICS.tuf("timestamp")):
        world.orders.on_message(topic, b"9" * 70_000)
    world.orders.settle((), 0.0)
    assert set(world.orders.refused) == {"document", "deny list", "metadata"}
    # Said once and retained nowhere: only asking again brings what is.
    assert world.orders.doubted == {DOCUMENT, TOPICS.deny, TOPICS.tuf("timestamp")}
    assert world.orders.again(5.0)
    world.bring(*world.orders.doubted)
    assert world.orders.refused == {}
    assert not world.orders.again(1_000.0)


def test_what_never_fits_what_is_signed_is_reported_until_it_does(world):
    world.connect()
    world.fleet.later(minutes=5)
    plan = world.fleet.plan("digits", world.fleet.approve("digits/v2"), LEEDS)
    world.fleet.publish()
    deny = world.fleet.broker[TOPICS.deny]
    for topic in (TOPICS.plan("digits"), TOPICS.deny):
        world.fleet.broker[topic] = b"tampered"
        world.orders.on_message(topic, b"tampered")
    for role in ("timestamp", "snapshot", "models", "rollouts"):
        world.bring(TOPICS.tuf(role))
    assert world.orders.refused == {}, "they may still meet"
    world.orders.settle((), 5.0)
    refused = {what: each.code for what, each in world.orders.refused.items()}
    assert refused == {"plan-digits": "OUT-T106", "deny list": "OUT-T106"}
    world.fleet.broker |= {TOPICS.plan("digits"): plan, TOPICS.deny: deny}
    world.bring(TOPICS.plan("digits"), TOPICS.deny)
    assert world.orders.refused == {}


def test_a_role_that_never_fits_is_reported_and_asked_for_again_and_again(world):
    world.connect()
    world.fleet.later(minutes=5)
    world.fleet.approve("digits/v2")
    world.fleet.publish()
    honest = world.fleet.broker[TOPICS.tuf("models")]
    world.fleet.broker[TOPICS.tuf("models")] = honest[:-1]
    roles = [TOPICS.tuf(role) for role in ("timestamp", "snapshot", "models")]
    world.bring(*roles)
    for now_s in (5.0, 20.0, 60.0):
        world.orders.settle((), now_s)
        assert world.orders.refused["metadata"].code == "OUT-T109"
        assert world.orders.again(now_s)
        world.bring(*roles)
    world.fleet.broker[TOPICS.tuf("models")] = honest
    world.bring(*roles)
    assert world.orders.refused == {}


def test_other_topics_are_not_its_own(world):
    assert not world.orders.on_message(TOPICS.ack(DEVICE), b"{}")
    assert not world.orders.on_message(TOPICS.ingest(3), b"{}")


def test_a_deny_list_takes_force_with_the_metadata_that_names_it(world):
    world.connect()
    world.fleet.later(minutes=5)
    deny = DenyList(FLEET, world.fleet.now_ms // 60_000, ())
    world.fleet.deny = codec.encode(deny)
    world.fleet.publish()
    world.bring(TOPICS.deny)
    assert world.orders.deny.version == 1
    world.connect()
    assert world.orders.deny == deny


def test_damaged_files_of_an_earlier_process_are_reported_and_replaced(world):
    world.connect()
    for path in (world.device.directory / "documents").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    world.restart()
    assert world.orders.document is None
    assert world.orders.refused
    world.connect()
    assert isinstance(world.orders.document, DeviceDocument)
    assert list(world.orders.plans) == ["digits"]
    assert world.orders.refused == {}


@pytest.mark.parametrize("room", range(5))
def test_what_comes_while_the_disk_is_full_takes_force_once_there_is_room(world, monkeypatch, room):
    """`room`: writes that still succeed. Nothing is said twice: the link stays up meanwhile."""
    world.connect()
    world.fleet.later(minutes=5)
    v2 = world.fleet.approve("digits/v2")
    world.fleet.plan("digits", v2, LEEDS)
    denied = (Denied("digits", world.v1),)
    world.fleet.deny = codec.encode(DenyList(FLEET, world.fleet.now_ms // 60_000, denied))
    world.fleet.publish()
    world.fleet.broker[DOCUMENT] = world.fleet.document(2, labels={"site": "leeds", "line": "3"})
    write, left = durable.replace, [room]

    def replace(path, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    roles = [TOPICS.tuf(role) for role in ("rollouts", "models", "targets", "snapshot")]
    world.bring(*roles, TOPICS.tuf("timestamp"))
    monkeypatch.setattr(durable, "replace", replace)
    for topic in (DOCUMENT, TOPICS.deny, TOPICS.plan("digits")):
        world.orders.on_message(topic, world.fleet.broker[topic])
    for _ in range(3):
        with contextlib.suppress(OSError):
            world.orders.settle((), 0.0)
    monkeypatch.setattr(durable, "replace", write)
    world.orders.settle((), 0.0)
    for _ in range(2):
        assert world.orders.document.version == 2
        assert world.orders.plans["digits"].rules[0].stable == v2
        assert world.orders.deny.digests == {world.v1}
        assert world.orders.refused == {}
        world.restart()


def test_a_repeated_old_timestamp_takes_no_newer_one_back(world):
    world.connect()
    old = world.fleet.broker[TOPICS.tuf("timestamp")]
    world.fleet.later(minutes=5)
    v2 = world.fleet.approve("digits/v2")
    world.fleet.plan("digits", v2, LEEDS)
    world.fleet.publish()
    world.bring(TOPICS.tuf("timestamp"))
    world.orders.on_message(TOPICS.tuf("timestamp"), old)
    world.orders.settle((), 1.0)
    while topics := sorted(world.orders.wanted(())):
        world.bring(*topics)
    assert world.orders.plans["digits"].rules[0].stable == v2


@pytest.mark.parametrize("full_at", range(1, 10))
def test_what_a_full_disk_kept_from_being_stored_is_stored_once_there_is_room(
    world, monkeypatch, full_at
):
    """Nobody says it twice: the link was up all the time."""
    replace, writes = durable.replace, 0

    def full(path, data):
        nonlocal writes
        writes += 1
        if writes == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(path, data)

    world.connect()
    world.fleet.later(hours=1)
    v2 = world.fleet.approve("digits/v2")
    world.fleet.plan("digits", v2, LEEDS)
    world.fleet.deny = codec.encode(DenyList(FLEET, 2))
    world.fleet.publish()
    world.device.machine.wall_ms = world.fleet.now_ms
    world.fleet.broker[DOCUMENT] = world.fleet.document(2, labels={"site": "leeds"})
    monkeypatch.setattr(durable, "replace", full)
    world.connect()
    for _ in range(3):
        world.orders.settle((), 0.0)
        for topic in world.orders.wanted(()):
            world.orders.on_message(topic, world.fleet.broker[topic])
    assert writes >= full_at, "the disk was never full"
    for _ in range(2):
        assert world.orders.document is not None
        assert world.orders.document.version == 2
        assert world.orders.plans["digits"].rules[0].stable == v2
        assert world.orders.deny is not None
        assert world.orders.deny.version == 2
        world.restart()
