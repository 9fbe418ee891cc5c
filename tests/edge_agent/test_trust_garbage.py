"""Whatever arrives, a device answers with one of our errors and goes on trusting what it did."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata

from control_plane.signing.adopt import newer
from protocol.errors import OutriderError, TrustError
from tests.fakes.fleet_trust import DEVICE, TOPICS, Device, Fleet

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just([1, "a"]),
    st.just({"a": None}),
)
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("control-plane") / "home")
    fleet.plan("digits", fleet.approve("digits/v1"))
    fleet.publish()
    fleet.broker[TOPICS.root(2)] = fleet.root.replace(b'"version":1}}', b'"version":2}}')
    fleet.broker[TOPICS.document(DEVICE)] = fleet.document(1, labels={"site": "leeds"})
    return fleet


@pytest.fixture(scope="module")
def device(tmp_path_factory, fleet):
    return Device(tmp_path_factory.mktemp("device"), fleet.root)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON tree."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(each for key, child in children for each in places(child, (*path, key)))]


def spoiled(draw: Any, data: bytes) -> bytes:
    """The message with one place of its tree replaced, removed or doubled; or its bytes cut."""
    tree = json.loads(data)
    *parents, last = draw(st.sampled_from(places(tree)[1:]))
    node = tree
    for key in parents:
        node = node[key]
    match draw(st.sampled_from(["replace", "remove", "cut"])):
        case "replace":
            node[last] = draw(JUNK)
        case "remove":
            del node[last]
        case _:
            return data[: draw(st.integers(0, len(data) - 1))]
    return json.dumps(tree).encode()


@QUICK
@given(data=st.data())
def test_spoiled_metadata(tmp_path_factory, fleet, device, data):
    names = [topic for topic in fleet.broker if "/tuf/" in topic and not topic.endswith("root/1")]
    topic = data.draw(st.sampled_from(names))
    message = spoiled(data.draw, fleet.broker[topic])
    if data.draw(st.booleans(), label="a device that trusts nothing yet"):
        device = Device(tmp_path_factory.mktemp("fresh"), fleet.root)
    for each in [*names, topic]:
        try:
            device.trust.offer(each, message if each == topic else fleet.broker[each])
            device.trust.wanted()
            device.trust.refresh()
        except OutriderError:
            pass
    # Nothing sticks: the right messages are trusted afterwards.
    for each in names:
        device.trust.offer(each, fleet.broker[each])
    # Root 2 is one that nobody signed: it is refused, the rest is not.
    with contextlib.suppress(TrustError):
        device.trust.refresh()
    assert device.trust.known
    assert device.trust.root_version == 1


@QUICK
@given(data=st.data())
def test_spoiled_documents(fleet, device, data):
    device.read({topic: data for topic, data in fleet.broker.items() if "root/2" not in topic})
    message = spoiled(data.draw, fleet.broker[TOPICS.document(DEVICE)])
    try:
        document = device.trust.verify_document(message, DEVICE)
    except OutriderError:
        return
    # Members that the signature does not cover may differ.
    assert document.labels == {"site": "leeds"}


@QUICK
@given(data=st.data())
def test_spoiled_metadata_is_not_adopted_by_a_control_plane(fleet, data):
    role = data.draw(st.sampled_from(["timestamp", "snapshot", "targets", "models", "rollouts"]))
    message = spoiled(data.draw, fleet.broker[TOPICS.tuf(role)])
    taken = newer(role, message, 0, fleet.repository._delegator(role))
    if taken is not None:
        # Signatures cover the meaning; several spellings may have the same.
        whole = Metadata[Any].from_bytes(fleet.broker[TOPICS.tuf(role)])
        assert Metadata[Any].from_bytes(taken).signed_bytes == whole.signed_bytes


@QUICK
@given(message=st.binary(max_size=200))
def test_noise(fleet, device, message):
    for act in (
        lambda: device.trust.offer(TOPICS.tuf("timestamp"), message) and device.trust.refresh(),
        lambda: device.trust.verify_document(message, DEVICE),
        lambda: device.trust.verify_plan("digits", message),
        lambda: device.trust.verify_deny(message),
        lambda: device.trust.recall_document(message),
    ):
        try:
            act()
        except OutriderError:
            continue
