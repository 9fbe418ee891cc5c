"""Roots: who may replace whose keys, while a device watches or is away."""

import json

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from control_plane.signing import create
from edge_agent.trust import Trust
from protocol.errors import OutriderError, TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import (
    FLEET,
    TOPICS,
    Device,
    Fleet,
    Machine,
)
from tests.fakes.forgery import next_publication, quorum_fleet, refused, rotate, seal, serialise

ROLES = ("timestamp", "snapshot", "targets", "models", "rollouts")


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path / "control-plane")
    fleet.plan("digits", fleet.approve("digits/v1"))
    fleet.publish()
    return fleet


@pytest.fixture
def device(tmp_path, fleet):
    device = Device(tmp_path / "device", fleet.root)
    device.read(fleet.broker)
    return device


def test_five_root_rotations_while_away(fleet, device):
    for _ in range(5):
        fleet.later(days=1)
        rotate(fleet)
    fleet.plan("digits", digest_of(b"2"))
    fleet.publish()
    device.machine.wall_ms = fleet.now_ms

    assert device.read(fleet.broker)
    assert device.trust.root_version == 6
    assert device.trust.standing[1] == TOPICS.root(7)
    device.restart()
    assert device.trust.root_version == 6
    assert device.trust.known


def test_roots_one_by_one_as_a_device_receives_them(fleet, device):
    rotate(fleet)
    rotate(fleet)
    fleet.later(hours=1)
    for number in (2, 3):
        assert device.trust.standing[1] == TOPICS.root(number)
        device.trust.offer(TOPICS.root(number), fleet.broker[TOPICS.root(number)])
        with pytest.raises(Unavailable):
            device.trust.refresh()
    assert device.trust.root_version == 3
    device.restart()
    # The set accepted under the old root stays in force until its successor is complete.
    assert device.trust.known
    assert device.trust.root_version == 3
    assert device.read(fleet.broker)


def test_a_gap_in_the_roots_stops_at_the_gap(fleet, device):
    rotate(fleet)
    rotate(fleet)
    broker = {topic: data for topic, data in fleet.broker.items() if topic != TOPICS.root(2)}

    refused(device, broker, OutriderError)
    assert device.trust.root_version == 1
    assert device.read(fleet.broker)


@pytest.mark.parametrize(
    "signatures", [{"sign_old": False}, {"sign_new": False}], ids=["new keys only", "old keys only"]
)
def test_a_root_needs_old_and_new_keys(fleet, device, signatures):
    refused(device, {TOPICS.root(2): rotate(fleet, **signatures)}, TrustError)
    assert device.trust.root_version == 1


def test_garbage_as_the_next_root_does_not_block_the_rest(fleet, device):
    next_publication(fleet)
    with pytest.raises(TrustError):
        device.read(fleet.broker | {TOPICS.root(2): b"garbage"})

    assert device.trust.approvals[digest_of(b"index of digits/v1")].revoked
    rotate(fleet)
    assert device.read(fleet.broker)
    assert device.trust.root_version == 2


def test_no_root_no_trust(tmp_path, fleet):
    for root in (b"", b"garbage", fleet.broker[TOPICS.tuf("targets")]):
        with pytest.raises(TrustError):
            Trust(tmp_path / "none", root, FLEET, Machine().clock(tmp_path / "clock.json"))
    other = Fleet(tmp_path / "other")
    stranger = Device(tmp_path / "stranger", other.root)
    refused(stranger, fleet.broker, TrustError)


def test_replaced_online_keys_may_begin_their_versions_anew(fleet, device):
    """Recovery after stolen online keys pushed versions to the end of the range."""
    broker = dict(fleet.broker)
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker, version=2**52)
    device.read(broker)
    assert device.trust.state().timestamp == 2**52
    key = CryptoSigner.generate_ed25519()
    old = fleet.signer(create.SNAPSHOT_KEY).public_key.keyid
    metadata = Metadata[Root].from_bytes(fleet.root)
    metadata.signed.version = 2
    for role in ("snapshot", "timestamp"):
        metadata.signed.revoke_key(old, role)
        metadata.signed.add_key(key.public_key, role)
    metadata.sign(fleet.signer(create.ROOT_KEY))
    (fleet.tuf / "root" / "2.json").write_bytes(serialise(metadata))
    (fleet.keys / create.SNAPSHOT_KEY).write_bytes(key.private_bytes)
    for role in ("snapshot", "timestamp"):
        (fleet.tuf / f"{role}.json").unlink()
    fleet.later(hours=1)
    fleet.reopen()
    fleet.publish()

    assert device.read(fleet.broker)
    assert device.trust.state().timestamp < 2**52


def test_revoked_approvers_do_not_count(tmp_path):
    fleet = quorum_fleet(tmp_path)
    device = Device(tmp_path / "device", fleet.root)
    device.read(fleet.broker)
    models = Metadata.from_bytes(fleet.broker[TOPICS.tuf("models")])
    models.signed.version += 1
    models.signatures.clear()
    for key in (fleet.approvers[0], CryptoSigner.generate_ed25519()):
        models.sign(key, append=True)
    broker = dict(fleet.broker)
    broker[TOPICS.tuf("models")] = serialise(models)
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker)

    refused(device, broker, TrustError)


def test_a_root_that_nobody_signed_is_no_enrolment(tmp_path, fleet):
    raw = json.loads(fleet.root)
    raw["signatures"] = []
    with pytest.raises(TrustError):
        Device(tmp_path / "none", json.dumps(raw).encode())
