"""A control plane restored from a backup goes on from what the fleet has."""

import json

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from control_plane.signing import create
from protocol.approval import Approved
from protocol.errors import Failed
from tests.fakes.fleet_trust import DEVICE, TOPICS, Device, Fleet


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path / "control-plane")


def versions(fleet):
    return {
        role: json.loads(data)["signed"]["version"]
        for role, data in fleet.repository.metadata().items()
    }


def test_a_control_plane_restored_from_yesterday_goes_on(fleet, tmp_path):
    """Versions, approvals made since, plans and documents: nothing is refused by the fleet."""
    device = Device(tmp_path / "device", fleet.root)
    v1 = fleet.approve("digits/v1")
    fleet.plan("digits", v1)
    fleet.publish()
    fleet.backup(tmp_path / "backup")
    old_plans, old_numbers = dict(fleet.plans), dict(fleet.numbers)
    fleet.later(days=1)
    fleet.approve("digits/v1", Approved(state="revoked"))
    v2 = fleet.approve("digits/v2")
    for _ in range(3):
        fleet.plan("digits", v2)
        fleet.publish()
    envelope = fleet.document(9, labels={"site": "leeds"})
    fleet.broker[TOPICS.document(DEVICE)] = envelope
    device.machine.wall_ms = fleet.now_ms
    device.read(fleet.broker)
    device.trust.verify_plan("digits", fleet.plans["digits"][0])
    device.trust.verify_document(envelope, DEVICE)
    newest = json.loads(fleet.broker[TOPICS.plan("digits")])

    fleet.restore(tmp_path / "backup")
    fleet.plans, fleet.numbers = old_plans, old_numbers
    adopted = fleet.repository.adopt_retained(fleet.broker, fleet.now_ms)

    assert adopted.changed
    assert adopted.missing == {}
    assert adopted.before["models"] == 2
    assert adopted.after["models"] == 4
    assert adopted.plans["digits"].version == newest["version"]
    assert adopted.plans["digits"].number == 4
    assert adopted.deny is not None
    assert adopted.documents[DEVICE].version == 9
    assert adopted.documents[DEVICE].labels == {"site": "leeds"}
    assert fleet.repository.approvals()[v1].revoked

    fleet.numbers["digits"] = adopted.plans["digits"].number
    data = fleet.plan("digits", v2)
    fleet.publish()
    assert device.read(fleet.broker)
    assert device.trust.verify_plan("digits", data).number == 5
    assert device.trust.verify_document(fleet.document(10), DEVICE).version == 10


def test_a_control_plane_that_is_up_to_date_adopts_nothing(fleet):
    fleet.publish()
    before = fleet.repository.metadata()
    adopted = fleet.repository.adopt_retained(fleet.broker, fleet.now_ms)

    assert not adopted.changed
    assert fleet.repository.metadata() == before


def test_an_empty_broker_changes_nothing(fleet):
    fleet.publish()
    before = fleet.repository.metadata()
    assert not fleet.repository.adopt_retained({}, fleet.now_ms).changed
    assert fleet.repository.metadata() == before


def test_what_trusted_keys_did_not_sign_is_not_adopted(fleet, tmp_path):
    fleet.publish()
    stranger = Fleet(tmp_path / "stranger")
    stranger.later(days=9)
    stranger.plan("digits", stranger.approve("digits/evil"))
    stranger.publish()
    before = fleet.repository.metadata()
    garbage = {
        topic: b"garbage" if index % 2 else b"[" * 900
        for index, topic in enumerate(stranger.broker)
    }
    garbage[TOPICS.document(DEVICE)] = stranger.document(99)
    for retained in (stranger.broker, garbage):
        adopted = fleet.repository.adopt_retained(retained, fleet.now_ms)
        assert not adopted.changed
        assert adopted.documents == {}
    assert fleet.repository.metadata() == before


def test_a_document_on_another_device_s_topic_is_not_adopted(fleet):
    retained = {TOPICS.document("north-cam-2"): fleet.document(3)}
    fleet.publish()
    assert fleet.repository.adopt_retained(retained, fleet.now_ms).documents == {}


def test_without_the_newer_approvals_it_refuses_to_sign_what_the_fleet_would_refuse(
    fleet, tmp_path
):
    fleet.publish()
    fleet.backup(tmp_path / "backup")
    fleet.later(hours=2)
    fleet.approve("digits/v1")
    fleet.publish()
    fleet.restore(tmp_path / "backup")
    retained = {t: d for t, d in fleet.broker.items() if t != TOPICS.tuf("models")}
    adopted = fleet.repository.adopt_retained(retained, fleet.now_ms)

    assert adopted.missing == {"models": 2}
    assert fleet.repository.metadata() == {}
    with pytest.raises(Failed, match="T115"):
        fleet.repository.publish(fleet.plans, fleet.deny, fleet.now_ms)
    # The way out: the approver signs above what the fleet has.
    fleet.approve("digits/v1")
    fleet.publish()
    assert versions(fleet)["models"] == 3


def test_a_newer_root_and_targets_on_the_broker_are_adopted(fleet, tmp_path):
    fleet.publish()
    fleet.backup(tmp_path / "backup")
    key = fleet.signer(create.ROOT_KEY)
    root = Metadata.from_bytes(fleet.root)
    root.signed.version = 2
    root.sign(key)
    fleet.later(hours=1)
    create.write(fleet.tuf / "root" / "2.json", root, [key])
    targets = Metadata.from_bytes((fleet.tuf / "targets.json").read_bytes())
    targets.signed.version = 2
    create.write(fleet.tuf / "targets.json", targets, [key])
    fleet.reopen()
    fleet.publish()
    fleet.restore(tmp_path / "backup")
    adopted = fleet.repository.adopt_retained(fleet.broker, fleet.now_ms)

    assert set(fleet.repository.roots()) == {1, 2}
    assert adopted.after["targets"] == 2
    device = Device(tmp_path / "device", fleet.root)
    fleet.put()
    assert device.read(fleet.broker)
    assert device.trust.root_version == 2


def test_a_root_that_the_old_holders_did_not_sign_is_not_adopted(fleet):
    fleet.publish()
    root = Metadata[Root].from_bytes(fleet.root)
    stranger = CryptoSigner.generate_ed25519()
    root.signed.version = 2
    old = fleet.signer(create.ROOT_KEY).public_key.keyid
    for role in ("root", "targets"):
        root.signed.revoke_key(old, role)
        root.signed.add_key(stranger.public_key, role)
    root.sign(stranger)
    fleet.repository.adopt_retained(
        {**fleet.broker, TOPICS.root(2): create.serialise(root)}, fleet.now_ms
    )
    assert set(fleet.repository.roots()) == {1}
