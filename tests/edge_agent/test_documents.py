"""Plans, deny lists and device documents that must be refused."""

import dataclasses
import json
import tracemalloc

import pytest
from securesystemslib.dsse import Envelope

from control_plane.signing import create
from protocol import codec
from protocol.device import PAYLOAD_TYPE, DeviceDocument
from protocol.errors import NotUnderstood, OutriderError, PeerError, TrustError
from protocol.plan import DenyList, Plan
from tests.fakes.fleet_trust import DEVICE, FLEET


def test_a_plan_that_is_not_the_listed_one_is_refused(fleet, device):
    data = fleet.plans["digits"][0]
    for wrong in (data + b" ", data[:-1], b"", data.replace(b"digits", b"digitz")):
        with pytest.raises(TrustError, match="T106"):
            device.trust.verify_plan("digits", wrong)
    with pytest.raises(TrustError, match="T106"):
        device.trust.verify_plan("sounds", data)
    with pytest.raises(TrustError, match="T106"):
        device.trust.verify_deny(data)
    assert device.trust.verify_plan("digits", data)


def _signed_plan(fleet, device, plan, minutes=5):
    fleet.later(minutes=minutes)
    data = codec.encode(plan) if isinstance(plan, Plan | DenyList) else plan
    if isinstance(plan, DenyList):
        fleet.deny = data
    else:
        fleet.plans["digits"] = data, fleet.plans["digits"][1]
    fleet.publish()
    device.read(fleet.broker)
    return data


@pytest.mark.parametrize(
    "change,family",
    [
        ({"fleet": "south", "version": 2**40}, TrustError),
        ({"model": "sounds", "version": 2**40}, TrustError),
        ({"version": 1}, TrustError),
        ({"number": 99}, TrustError),
        ({"must_understand": ("plan/9",), "version": 2**40}, NotUnderstood),
    ],
    ids=["another fleet", "another model", "older", "changed without a version", "future"],
)
def test_a_properly_listed_plan_is_refused_when_it_is(fleet, device, change, family):
    first = fleet.plans["digits"][0]
    plan = device.trust.verify_plan("digits", first)
    data = _signed_plan(fleet, device, dataclasses.replace(plan, **change))

    with pytest.raises(family):
        device.trust.verify_plan("digits", data)
    assert device.trust.recall_plan("digits", first) == plan


@pytest.mark.parametrize(
    "deny,family",
    [
        (DenyList("south", 9), TrustError),
        (DenyList(FLEET, 0), TrustError),
        (DenyList(FLEET, 9, must_understand=("deny/9",)), NotUnderstood),
    ],
    ids=["another fleet", "older", "future"],
)
def test_a_properly_listed_deny_list_is_refused_when_it_is(fleet, device, deny, family):
    device.trust.verify_deny(fleet.deny)
    data = _signed_plan(fleet, device, deny)

    with pytest.raises(family):
        device.trust.verify_deny(data)


def test_a_listed_plan_that_is_garbage_is_the_peer_s_fault(fleet, device):
    data = _signed_plan(fleet, device, b"garbage")

    with pytest.raises(PeerError):
        device.trust.verify_plan("digits", data)


def test_a_listed_plan_of_a_million_rules_is_refused_before_it_is_parsed(fleet, device):
    rule = b'{"selector":null,"stable":"sha256-' + b"0" * 64 + b'"}'
    data = b'{"rules":[' + b",".join([rule] * 1_000_000) + b"]}"
    _signed_plan(fleet, device, data)
    tracemalloc.start()
    with pytest.raises(PeerError, match="N211"):
        device.trust.verify_plan("digits", data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def envelope(fleet, document, *, key=create.ROLLOUTS_KEY, kind=PAYLOAD_TYPE):
    payload = document if isinstance(document, bytes) else codec.encode(document)
    sealed = Envelope(payload, kind, {})
    sealed.sign(fleet.signer(key))
    return json.dumps(sealed.to_dict()).encode()


def own(version, **values):
    return DeviceDocument(FLEET, values.pop("device", DEVICE), version, **values)


def test_an_older_document_is_refused_also_after_a_restart(fleet, device):
    newer, older = fleet.document(7), fleet.document(6)
    device.trust.verify_document(newer, DEVICE)
    for _ in range(2):
        with pytest.raises(TrustError, match="T102"):
            device.trust.verify_document(older, DEVICE)
        with pytest.raises(TrustError, match="T102"):
            device.trust.verify_document(fleet.document(7, labels={"a": "b"}), DEVICE)
        device.restart()
    assert device.trust.verify_document(newer, DEVICE).version == 7


@pytest.mark.parametrize(
    "make,family",
    [
        (lambda f: envelope(f, own(9, device="north-cam-2")), TrustError),
        (lambda f: envelope(f, own(9), key=create.SNAPSHOT_KEY), TrustError),
        (lambda f: envelope(f, own(9), key=create.APPROVER_KEY), TrustError),
        (lambda f: envelope(f, own(9), kind="application/json"), TrustError),
        (lambda f: f.document(9).replace(b'"sig":"', b'"sig":"AAAA'), TrustError),
        (lambda f: f.document(9).replace(b'"payload":"ey', b'"payload":"fy'), TrustError),
        (lambda f: envelope(f, b'{"must_understand":["x/1"],"fleet":3}'), NotUnderstood),
        (lambda f: envelope(f, b'{"fleet":"north","device":"north-cam-1"}'), PeerError),
        (lambda f: envelope(f, b"garbage"), PeerError),
        (lambda f: b"garbage", PeerError),
        (lambda f: b"[]", PeerError),
        (lambda f: b"null", PeerError),
        (lambda f: b'{"payload":"","payloadType":"","signatures":null}', PeerError),
        (lambda f: b'{"payload":1,"payloadType":2,"signatures":[]}', PeerError),
        (lambda f: b'{"payload":"","payloadType":"","signatures":[1]}', PeerError),
        (lambda f: b'{"payload":"","payloadType":7,"signatures":[]}', OutriderError),
        (lambda f: b"[" * 16_000, PeerError),
        (lambda f: b" " * 20_000, PeerError),
        (lambda f: b"", PeerError),
    ],
    ids=[
        "another device",
        "the snapshot key",
        "an approver's key",
        "another payload type",
        "a changed signature",
        "a changed payload",
        "future",
        "incomplete",
        "signed garbage",
        "garbage",
        "a list",
        "null",
        "no signatures",
        "a number as payload",
        "a number as signature",
        "a number as type",
        "deep",
        "too large",
        "nothing",
    ],
)
def test_a_document_is_refused_when_it_is(fleet, device, make, family):
    with pytest.raises(family):
        device.trust.verify_document(make(fleet), DEVICE)
    assert device.trust.verify_document(fleet.document(1), DEVICE).version == 1


def test_settings_out_of_range_refuse_the_whole_document(fleet, device):
    data = codec.encode(own(9))[:-1] + b',"settings":{"state_interval_s":1}}'
    with pytest.raises(PeerError):
        device.trust.verify_document(envelope(fleet, data), DEVICE)


def test_a_power_cut_between_mark_and_document_leaves_the_document_before(fleet, device):
    documents = [fleet.document(version) for version in (1, 2, 3)]
    for document in documents:
        device.trust.verify_document(document, DEVICE)
        device.trust.verify_document(document, DEVICE)
    plan = fleet.plans["digits"][0]
    first = device.trust.verify_plan("digits", plan)
    newer = dataclasses.replace(first, version=2**40)
    device.trust.verify_plan("digits", _signed_plan(fleet, device, newer))
    device.restart()

    assert device.trust.recall_document(documents[2]).version == 3
    assert device.trust.recall_document(documents[1]).version == 2
    with pytest.raises(TrustError, match="T102"):
        device.trust.recall_document(documents[0])
    assert device.trust.recall_plan("digits", plan) == first
