"""What a broker without keys may try, role by role. The table of attacks is `test_trust_matrix`.

The rule in every case: an error of the right family, and what was trusted stays in force.
"""

import contextlib

import pytest

from control_plane.signing import create
from edge_agent.metadata import LIMITS, MAX_ROOT
from protocol.errors import PeerError, TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import TOPICS
from tests.fakes.forgery import ROLES, next_publication, refused


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
