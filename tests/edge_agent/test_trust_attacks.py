"""What must be refused, from a broker without keys up to stolen online keys.

The rule in every case: an error of the right family, and what was trusted stays in force.
"""

import contextlib
import json
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile

from control_plane.signing import create
from edge_agent.metadata import LIMITS, MAX_ROOT
from protocol.errors import PeerError, TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import (
    DAY_MS,
    START_MS,
    TOPICS,
    Device,
    Fleet,
    Machine,
)
from tests.fakes.forgery import (
    list_bundle,
    next_publication,
    quorum_fleet,
    refused,
    seal,
    serialise,
)

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


# --- a broker without keys ----------------------------------------------------------------------


def test_an_older_timestamp_is_refused(fleet, device):
    old = dict(fleet.broker)
    next_publication(fleet)
    device.read(fleet.broker)

    refused(device, {TOPICS.tuf("timestamp"): old[TOPICS.tuf("timestamp")]}, TrustError)
    refused(device, old, TrustError)


# `targets` is the same in both.
@pytest.mark.parametrize("role", ["snapshot", "models", "rollouts"])
def test_a_set_mixed_from_two_publications_is_not_trusted(fleet, device, role):
    old = dict(fleet.broker)
    next_publication(fleet)
    mixed = fleet.broker | {TOPICS.tuf(role): old[TOPICS.tuf(role)]}
    refused(device, mixed, Unavailable)

    for topic, data in mixed.items():
        device.trust.offer(topic, data)
    assert device.trust.wanted() == (TOPICS.tuf(role),)
    assert device.read(fleet.broker)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "tamper",
    [
        lambda data: data[:-40],
        lambda data: b"",
        lambda data: b"{}",
        lambda data: b"[" * 15_000,
        lambda data: b"\xff\xfe garbage",
        lambda data: data.replace(b"2026-", b"2027-").replace(b'"version":', b'"version":9'),
        lambda data: b'{"signatures":[],' + data[data.index(b'"signed"') :],
        lambda data: b'{"signed":{"_type":"root"},"signatures":[]}',
        lambda data: b'{"signed":7,"signatures":{"a":1}}',
    ],
    ids=["cut", "cleared", "empty", "deep", "garbage", "edited", "unsigned", "a root", "shapes"],
)
def test_tampered_metadata_is_not_trusted_and_the_right_bytes_still_are(
    fleet, device, role, tamper
):
    next_publication(fleet)
    topic = TOPICS.tuf(role)
    tampered = tamper(fleet.broker[topic])
    before = device.trust.state()
    try:
        changed = device.read(fleet.broker | {topic: tampered})
    except (TrustError, Unavailable):
        changed = False
    if role == "targets":
        # It did not change, so the cached one serves.
        assert changed
    else:
        assert not changed
        assert device.trust.state() == before
    device.read(fleet.broker)
    assert device.trust.approvals.keys() == {
        digest_of(b"index of digits/v1"),
        digest_of(b"index of digits/v2"),
    }


@pytest.mark.parametrize("role", ROLES)
def test_oversized_metadata_is_not_even_kept(fleet, device, role):
    with pytest.raises(PeerError, match="N211"):
        device.trust.offer(TOPICS.tuf(role), b" " * (LIMITS[role] + 1))
    with pytest.raises(PeerError, match="N211"):
        device.trust.offer(TOPICS.root(2), b" " * (MAX_ROOT + 1))
    assert not device.trust.refresh()


def test_a_signature_counts_once_however_often_it_is_there(tmp_path):
    fleet = quorum_fleet(tmp_path)
    models = Metadata.from_bytes(fleet.broker[TOPICS.tuf("models")])
    models.signed.version += 1
    models.sign(fleet.approvers[0])
    raw = json.loads(serialise(models))
    raw["signatures"] *= 2
    broker = dict(fleet.broker)
    broker[TOPICS.tuf("models")] = json.dumps(raw).encode()
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker)
    device = Device(tmp_path / "device", fleet.root)
    device.read(fleet.broker)

    refused(device, broker, TrustError)


# --- stolen online keys -------------------------------------------------------------------------


def test_stolen_online_keys_cannot_approve(fleet, device):
    broker = dict(fleet.broker)
    for key in (create.ROLLOUTS_KEY, create.SNAPSHOT_KEY):
        broker[TOPICS.tuf("models")] = fleet.forge("models", list_bundle, fleet.signer(key))
        seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker)
        refused(device, broker, TrustError)


def test_role_rollouts_cannot_list_models(fleet, device):
    broker = dict(fleet.broker)
    rollouts = fleet.forge("rollouts", list_bundle, fleet.signer(create.ROLLOUTS_KEY))
    broker[TOPICS.tuf("rollouts")] = rollouts
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker)
    device.read(broker)

    assert digest_of(b"evil index") not in device.trust.approvals


def test_stolen_online_keys_cannot_go_back_to_an_older_approval_list(fleet, device):
    old = fleet.broker[TOPICS.tuf("models")]
    next_publication(fleet)
    device.read(fleet.broker)
    broker = fleet.broker | {TOPICS.tuf("models"): old}
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker)

    refused(device, broker, TrustError)


def test_a_role_cannot_leave_the_snapshot(fleet, device):
    broker = dict(fleet.broker)
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker, drop=["models"])

    refused(device, broker, TrustError)


def test_a_lie_about_a_version_blocks_only_until_the_truth_arrives(fleet, device):
    broker = dict(fleet.broker)
    key = fleet.signer(create.SNAPSHOT_KEY)
    snapshot = Metadata[Any].from_bytes(broker[TOPICS.tuf("snapshot")])
    seal(fleet, key, broker)
    snapshot = Metadata[Any].from_bytes(broker[TOPICS.tuf("snapshot")])
    snapshot.signed.meta["models.json"].version = 10**6
    snapshot.sign(key)
    data = broker[TOPICS.tuf("snapshot")] = serialise(snapshot)
    timestamp = Metadata[Any].from_bytes(broker[TOPICS.tuf("timestamp")])
    timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
    timestamp.sign(key)
    broker[TOPICS.tuf("timestamp")] = serialise(timestamp)
    refused(device, broker)

    next_publication(fleet)
    assert device.read(fleet.broker)


def test_a_stolen_online_key_cannot_push_trusted_time_beyond_the_approvals(tmp_path, fleet):
    machine = Machine(wall_ms=0, synchronised=False)
    device = Device(tmp_path / "victim", fleet.root, machine)
    device.read(fleet.broker)
    broker = dict(fleet.broker)
    future = START_MS + 3000 * DAY_MS
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker, now_ms=future)
    device.read(broker)

    assert device.clock.now_ms() <= START_MS + 90 * DAY_MS
    assert (device.trust.issued_ms or 0) <= device.clock.now_ms()


# --- the cache ----------------------------------------------------------------------------------


# --- root ---------------------------------------------------------------------------------------


# --- plans and deny lists -----------------------------------------------------------------------


# --- device documents ---------------------------------------------------------------------------


def test_a_second_timestamp_of_the_same_version_neither_replaces_nor_is_waited_for(fleet, device):
    def change(timestamp):
        timestamp.unrecognized_fields["x"] = 1

    before = device.trust.state()
    stamp = fleet.forge("timestamp", change, fleet.signer(create.SNAPSHOT_KEY))
    assert not device.read(fleet.broker | {TOPICS.tuf("timestamp"): stamp})
    assert device.trust.wanted() == ()
    assert device.trust.state() == before
    assert not device.trust.refresh()
    next_publication(fleet)
    device.trust.offer(TOPICS.tuf("snapshot"), fleet.broker[TOPICS.tuf("snapshot")])
    with contextlib.suppress(Unavailable):
        device.trust.refresh()
    assert device.trust.wanted() == ()
