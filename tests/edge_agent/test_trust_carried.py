"""Metadata that a person carries: everything counts but freshness."""

from __future__ import annotations

import json

import pytest

from control_plane.signing import create
from edge_agent.trust import Trust
from protocol.errors import TrustError, Unavailable
from tests.fakes.fleet_trust import DAY_MS, START_MS, TOPICS, Device, Fleet, Machine
from tests.fakes.forgery import next_publication, refused, rotate, seal
from tests.fakes.quorum import quorum_fleet

ROLES = ("timestamp", "snapshot", "targets", "models", "rollouts")


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path / "control")
    fleet.plan("digits", fleet.approve("digits/v1"))
    fleet.publish()
    return fleet


def device(tmp_path, fleet, **machine):
    return Device(tmp_path / "device", fleet.root, Machine(**machine))


def stick(fleet):
    roles = {role: fleet.broker[TOPICS.tuf(role)] for role in ROLES}
    return fleet.repository.roots(), roles


def bundle(fleet):
    return next(iter(fleet.repository.approvals()))


def old_enough(tmp_path, fleet, **machine):
    """A device that has trusted the fleet, and whose clock says 30 days later by now."""
    found = device(tmp_path, fleet, **machine)
    found.read(fleet.broker)
    next_publication(fleet)
    carried = stick(fleet)
    found.machine.wall_ms = fleet.now_ms + 30 * DAY_MS
    return found, carried


def test_a_stick_of_thirty_days_is_trusted_though_a_link_would_not_be(tmp_path, fleet):
    found, (roots, roles) = old_enough(tmp_path, fleet)
    refused(found, {TOPICS.tuf(role): data for role, data in roles.items()}, Unavailable)
    assert found.trust.carry(roots, roles)
    assert not found.trust.timestamp_fresh()
    assert found.trust.state().models == json.loads(roles["models"])["signed"]["version"]
    assert not found.trust.carry(roots, roles), "a second time brings nothing new"


def test_a_clock_of_1970_does_not_matter(tmp_path, fleet):
    found = device(tmp_path, fleet, wall_ms=0, synchronised=False)
    assert found.trust.carry(*stick(fleet))
    found.trust.grant(bundle(fleet))
    assert found.trust.granted == {bundle(fleet)}
    assert found.clock.floor_ms >= START_MS


def test_an_older_stick_is_t110_and_changes_nothing(tmp_path, fleet):
    old = stick(fleet)
    found = device(tmp_path, fleet)
    next_publication(fleet)
    found.read(fleet.broker)
    before = found.trust.state()
    with pytest.raises(TrustError) as raised:
        found.trust.carry(*old)
    assert raised.value.code == "OUT-T110"
    assert found.trust.state() == before


def test_an_older_stick_is_refused_though_the_cache_is_lost(tmp_path, fleet):
    old = stick(fleet)
    found = device(tmp_path, fleet)
    next_publication(fleet)
    found.read(fleet.broker)
    (found.directory / "tuf/trusted.json").unlink()
    found.restart()
    with pytest.raises(TrustError) as raised:
        found.trust.carry(*old)
    assert raised.value.code == "OUT-T110", "high-water marks count for sticks too"
    assert not found.trust.known


def test_what_expired_by_a_time_that_this_device_has_proof_of_is_too_old(tmp_path, fleet):
    found = device(tmp_path, fleet)
    found.clock.raise_floor(fleet.now_ms + 10 * DAY_MS)
    with pytest.raises(TrustError) as raised:
        found.trust.carry(*stick(fleet))
    assert raised.value.code == "OUT-T110"


@pytest.mark.parametrize("role", ROLES)
def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path, fleet, role):
    roots, roles = stick(fleet)
    data = bytearray(roles[role])
    data[len(data) // 2] ^= 1
    found = device(tmp_path, fleet)
    with pytest.raises(TrustError) as raised:
        found.trust.carry(roots, {**roles, role: bytes(data)})
    assert raised.value.code == "OUT-T101"
    assert not found.trust.known


def test_equal_versions_with_other_content_are_refused(tmp_path, fleet):
    roots, roles = stick(fleet)
    found = device(tmp_path, fleet)
    found.trust.carry(roots, roles)
    other = fleet.forge(
        "timestamp",
        lambda stamp: stamp.unrecognized_fields.update({"x-issued": "2026-12-02T00:00:00Z"}),
        fleet.signer(create.SNAPSHOT_KEY),
    )
    with pytest.raises(TrustError) as raised:
        found.trust.carry(roots, {**roles, "timestamp": other})
    assert raised.value.code == "OUT-T101"


def test_one_approver_of_two_cannot_put_anything_on_a_stick(tmp_path):
    fleet = quorum_fleet(tmp_path)
    found = device(tmp_path, fleet)
    found.trust.carry(*stick(fleet))
    assert found.trust.approvals_needed == 2

    def add(targets):
        targets.version += 1

    roots, roles = stick(fleet)
    broker = {TOPICS.tuf(role): data for role, data in roles.items()}
    broker[TOPICS.tuf("models")] = fleet.forge("models", add, fleet.approvers[0])
    seal(fleet.signer(create.SNAPSHOT_KEY), broker)
    with pytest.raises(TrustError) as raised:
        found.trust.carry(roots, {role: broker[TOPICS.tuf(role)] for role in ROLES})
    assert raised.value.code == "OUT-T101"


def test_roots_on_the_stick_are_followed(tmp_path, fleet):
    found = device(tmp_path, fleet)
    for _ in range(2):
        rotate(fleet)
    found.trust.carry(*stick(fleet))
    assert found.trust.root_version == 3


# --- grants ---------------------------------------------------------------------------------------


def test_a_grant_outlives_the_process_and_ends_with_newer_metadata(tmp_path, fleet):
    found = device(tmp_path, fleet)
    found.trust.carry(*stick(fleet))
    found.trust.grant(bundle(fleet))
    found.restart()
    assert found.trust.granted == {bundle(fleet)}
    next_publication(fleet)
    found.read(fleet.broker)
    assert found.trust.granted == frozenset()
    found.restart()
    assert found.trust.granted == frozenset()


def test_a_grant_ends_when_its_bundle_is_committed(tmp_path, fleet):
    found = device(tmp_path, fleet)
    found.trust.carry(*stick(fleet))
    found.trust.grant(bundle(fleet))
    found.trust.end_grants([bundle(fleet)])
    assert found.trust.granted == frozenset()
    found.restart()
    assert found.trust.granted == frozenset()


def test_nothing_is_granted_under_approvals_that_had_lapsed_when_the_stick_was_made(
    tmp_path, fleet
):
    fleet.later(days=91)
    fleet.publish()
    found = device(tmp_path, fleet)
    found.trust.carry(*stick(fleet))
    with pytest.raises(Unavailable) as raised:
        found.trust.grant(bundle(fleet))
    assert raised.value.code == "OUT-T121"
    assert found.trust.granted == frozenset()


def test_a_grant_that_cannot_be_read_is_over(tmp_path, fleet):
    found = device(tmp_path, fleet)
    found.trust.carry(*stick(fleet))
    found.trust.grant(bundle(fleet))
    (found.directory / "tuf/grant.json").write_bytes(b"{")
    found.restart()
    assert found.trust.granted == frozenset()


def test_a_grant_without_trusted_metadata_means_nothing(tmp_path, fleet):
    found = device(tmp_path, fleet)
    found.trust.carry(*stick(fleet))
    found.trust.grant(bundle(fleet))
    (found.directory / "tuf/trusted.json").unlink()
    found.restart()
    assert isinstance(found.trust, Trust)
    assert found.trust.granted == frozenset()
