"""Roots: who may replace whose keys, while a device watches or is away."""

import json

import pytest

from control_plane.signing import create
from edge_agent.trust import Trust
from protocol.errors import OutriderError, TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import DAY_MS, FLEET, START_MS, TOPICS, Device, Fleet, Machine
from tests.fakes.forgery import ROLES, next_publication, refused, rotate, seal
from tests.fakes.quorum import new_keys, quorum_fleet, replace_keys


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


def test_a_root_that_nobody_signed_is_no_enrolment(tmp_path, fleet):
    raw = json.loads(fleet.root)
    raw["signatures"] = []
    with pytest.raises(TrustError):
        Device(tmp_path / "none", json.dumps(raw).encode())


# --- who may say how late it is -------------------------------------------------------------------


def told_of_2040(tmp_path):
    """A device without a clock of its own, and whoever has the online keys."""
    fleet = quorum_fleet(tmp_path)
    machine = Machine(wall_ms=0, synchronised=False)
    device = Device(tmp_path / "device", fleet.root, machine)
    device.read(fleet.broker)
    broker = dict(fleet.broker)
    seal(fleet.signer(create.SNAPSHOT_KEY), broker, now_ms=START_MS + 5000 * DAY_MS)
    device.read(broker)
    assert device.clock.now_ms() == START_MS + 90 * DAY_MS
    fleet.later(hours=1)
    return fleet, device


def test_expired_metadata_takes_no_time_back_while_the_same_keys_count(tmp_path):
    fleet, device = told_of_2040(tmp_path)
    replace_keys(fleet, holders=new_keys(3), approvers=new_keys(3))
    for _ in range(2):
        with pytest.raises(OutriderError):
            device.read(fleet.broker)
        assert device.clock.now_ms() == START_MS + 90 * DAY_MS
        device.restart()


@pytest.mark.parametrize("way", ["link", "stick"])
def test_new_online_keys_take_back_what_the_old_ones_said_of_the_time(tmp_path, way):
    fleet, device = told_of_2040(tmp_path)
    device.restart()
    replace_keys(fleet, online=True)
    if way == "link":
        assert device.read(fleet.broker)
    else:
        roles = {role: fleet.broker[TOPICS.tuf(role)] for role in ROLES}
        assert device.trust.carry({2: fleet.broker[TOPICS.root(2)]}, roles)
    for _ in range(2):
        assert device.clock.now_ms() == fleet.now_ms
        assert device.trust.timestamp_fresh()
        assert not device.trust.models_expired()
        device.restart()
