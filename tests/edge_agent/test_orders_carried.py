"""Orders that a person carries: verified like any others, and never worse than what is in force."""

from __future__ import annotations

import pytest

from protocol import codec
from protocol.errors import OutriderError
from protocol.plan import DenyList
from tests.edge_agent.test_orders import DOCUMENT, LEEDS, World
from tests.fakes.fleet_trust import FLEET, TOPICS

ROLES = ("timestamp", "snapshot", "targets", "models", "rollouts")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def carry(world, **other):
    broker = world.fleet.broker
    world.device.trust.carry(
        world.fleet.repository.roots(), {role: broker[TOPICS.tuf(role)] for role in ROLES}
    )
    said = {
        "document": broker[DOCUMENT],
        "deny": broker[TOPICS.deny],
        "plans": {model: broker[TOPICS.plan(model)] for model in ("digits", "faces")},
    }
    world.orders.carry(**{**said, **other}, held=())


def newer(world):
    world.fleet.later(hours=1)
    world.fleet.plan("digits", world.v1, LEEDS)
    world.fleet.deny = codec.encode(DenyList(FLEET, 2))
    world.fleet.publish()


def code_of(world, **other):
    with pytest.raises(OutriderError) as raised:
        carry(world, **other)
    return raised.value.code


def test_what_concerns_this_device_is_in_force_and_outlives_the_process(world):
    carry(world)
    for _ in range(2):
        assert world.orders.document.labels == {"site": "leeds"}
        assert list(world.orders.plans) == ["digits"]
        assert world.orders.deny is not None
        assert world.orders.refused == {}
        world.restart()


def test_carrying_the_same_twice_changes_nothing(world):
    carry(world)
    before = world.orders.document, world.orders.plans, world.orders.deny
    carry(world)
    assert (world.orders.document, world.orders.plans, world.orders.deny) == before


def test_a_document_that_came_over_the_link_since_stays(world):
    carry(world)
    older = world.fleet.broker[DOCUMENT]
    world.fleet.broker[DOCUMENT] = world.fleet.document(2, labels={"site": "leeds", "line": "3"})
    world.bring(DOCUMENT)
    carry(world, document=older)
    assert world.orders.document.version == 2


@pytest.mark.parametrize(
    "other, code",
    [
        (lambda world: {"document": b"{}"}, "OUT-N210"),
        (lambda world: {"document": world.fleet.document(1, device="north-cam-2")}, "OUT-T102"),
        (lambda world: {"document": world.fleet.document(1, labels={"site": "york"})}, "OUT-T102"),
        (lambda world: {"deny": codec.encode(DenyList(FLEET, 9))}, "OUT-T106"),
        (lambda world: {"plans": {"digits": b"{}"}}, "OUT-T106"),
        (lambda world: {"plans": {}}, "OUT-T119"),
    ],
)
def test_what_is_not_what_was_signed_is_refused(world, other, code):
    carry(world)
    newer(world)
    before = world.orders.plans["digits"]
    assert code_of(world, **other(world)) == code
    assert world.orders.plans["digits"] == before


def test_a_plan_of_others_may_be_missing(world):
    carry(world, plans={"digits": world.fleet.broker[TOPICS.plan("digits")]})
    assert list(world.orders.plans) == ["digits"]


def test_what_waits_from_the_link_is_not_lost(world):
    """A newer deny list that came before its metadata is verified when that comes."""
    carry(world)
    old = dict(world.fleet.broker)
    newer(world)
    world.orders.on_message(TOPICS.deny, world.fleet.broker[TOPICS.deny])
    latest, world.fleet.broker = world.fleet.broker, old
    carry(world)
    world.fleet.broker = latest
    world.bring(*(TOPICS.tuf(role) for role in ROLES))
    assert world.orders.deny.version == 2
