"""What expiry and clocks change about trust, and what they never do."""

import pytest

from control_plane.signing import create
from protocol.approval import Approved
from protocol.errors import Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import DAY_MS, START_MS, TOPICS, Device, Fleet, Machine
from tests.fakes.forgery import seal


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path / "control-plane")


@pytest.fixture
def device(tmp_path, fleet):
    return Device(tmp_path / "device", fleet.root)


def test_a_clock_at_1970_trusts_fresh_metadata_and_learns_the_time_from_it(tmp_path, fleet):
    device = Device(tmp_path / "device", fleet.root, Machine(wall_ms=0, synchronised=False))
    fleet.publish()
    device.read(fleet.broker)

    assert device.clock.now_ms() == START_MS
    device.restart()
    assert device.clock.now_ms() == START_MS


def test_an_unsynchronised_clock_at_2040_expires_nothing(tmp_path, fleet):
    machine = Machine(wall_ms=START_MS + 5000 * DAY_MS, synchronised=False)
    device = Device(tmp_path / "device", fleet.root, machine)
    fleet.publish()

    assert device.read(fleet.broker)
    assert device.trust.timestamp_fresh()


def test_a_synchronised_clock_at_2040_trusts_nothing_and_leaves_no_trace(tmp_path, fleet):
    machine = Machine(wall_ms=START_MS + 5000 * DAY_MS)
    device = Device(tmp_path / "device", fleet.root, machine)
    fleet.publish()

    with pytest.raises(Unavailable, match="T121"):
        device.read(fleet.broker)
    machine.wall_ms = START_MS
    device.restart()
    assert device.read(fleet.broker)


def test_an_expired_timestamp_stops_freshness_and_leaves_approvals(fleet, device):
    v1 = fleet.approve("digits/v1")
    fleet.publish()
    device.read(fleet.broker)

    device.machine.wall_ms += 4 * DAY_MS

    assert not device.trust.timestamp_fresh()
    assert not device.trust.models_expired()
    device.restart()
    assert v1 in device.trust.approvals
    assert not device.trust.timestamp_fresh()


def test_expired_metadata_that_arrives_changes_nothing_and_says_why(fleet, device):
    v1 = fleet.approve("digits/v1")
    fleet.publish()
    device.read(fleet.broker)
    fleet.later(hours=1)
    fleet.approve("digits/v2")
    fleet.publish()
    device.machine.wall_ms += 4 * DAY_MS

    with pytest.raises(Unavailable, match="T121"):
        device.read(fleet.broker)
    assert set(device.trust.approvals) == {v1}


def test_expired_models_block_what_is_new_but_not_plans_nor_revocations(fleet, device):
    v1 = fleet.approve("digits/v1")
    fleet.publish()
    device.read(fleet.broker)
    fleet.later(days=1)
    fleet.approve("digits/v1", Approved(state="revoked"))
    fleet.later(days=95)
    fleet.plan("digits", v1)
    fleet.publish()
    device.machine.wall_ms = fleet.now_ms

    assert device.read(fleet.broker)
    assert device.trust.models_expired()
    assert device.trust.timestamp_fresh()
    assert device.trust.approvals[v1].revoked
    assert "digits" in device.trust.plans


def test_a_device_that_was_away_for_a_month_needs_nothing_special(fleet, device):
    fleet.publish()
    device.read(fleet.broker)
    for _ in range(30):
        fleet.later(days=1)
        v1 = fleet.approve("digits/v1") if not fleet.plans else digest_of(b"2")
        fleet.plan("digits", v1)
        fleet.publish()
    device.machine.wall_ms = fleet.now_ms

    assert device.read(fleet.broker)
    assert device.trust.verify_plan("digits", fleet.plans["digits"][0]).number == 30


def test_plans_were_confirmed_when_the_timestamp_was_signed(fleet, device):
    fleet.publish()
    device.machine.wall_ms += DAY_MS
    device.read(fleet.broker)

    assert device.trust.issued_ms == START_MS


def test_rollouts_that_nobody_confirmed_for_two_weeks_are_not_taken_under_a_fresh_timestamp(
    fleet, device
):
    fleet.plan("digits", digest_of(b"1"))
    fleet.publish()
    device.machine.wall_ms += 15 * DAY_MS
    broker = dict(fleet.broker)
    seal(fleet, fleet.signer(create.SNAPSHOT_KEY), broker, now_ms=device.machine.wall_ms)

    with pytest.raises(Unavailable, match="rollouts"):
        device.read(broker)
    assert not device.trust.known


def test_without_a_moment_of_issue_nothing_counts_as_confirmed(fleet, device):
    fleet.publish()
    key = fleet.signer(create.SNAPSHOT_KEY)
    for value in ("yesterday", "2026-12-01T12:00:00", 7, None):
        stamp = fleet.forge("timestamp", _issued(value), key)
        fleet.broker[TOPICS.tuf("timestamp")] = stamp
        device.read(fleet.broker)
        assert device.trust.issued_ms is None
    assert device.clock.floor_ms == 0


def _issued(value):
    def change(timestamp):
        timestamp.version += 1
        timestamp.unrecognized_fields["x-issued"] = value

    return change
