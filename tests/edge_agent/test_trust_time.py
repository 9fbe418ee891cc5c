"""What expiry and clocks change about trust, and what they never do."""

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.signing import create
from protocol.approval import Approved
from protocol.errors import OutriderError, Unavailable
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


def test_a_floor_whose_file_is_lost_comes_back_from_what_is_trusted(tmp_path, fleet):
    device = Device(tmp_path / "device", fleet.root, Machine(wall_ms=0, synchronised=False))
    fleet.publish()
    device.read(fleet.broker)
    (device.directory / "clock.json").unlink()
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


def test_what_a_wrong_clock_called_expired_is_trusted_once_the_clock_is_right(fleet, device):
    fleet.publish()
    device.read(fleet.broker)
    fleet.later(hours=1)
    v2 = fleet.approve("digits/v2")
    fleet.publish()
    right, device.machine.wall_ms = device.machine.wall_ms, START_MS + 5000 * DAY_MS
    with pytest.raises(Unavailable, match="T121"):
        device.read(fleet.broker)

    device.machine.wall_ms = right

    assert device.read(fleet.broker)  # the very bytes that are retained, asked for again
    assert v2 in device.trust.approvals


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
    seal(fleet.signer(create.SNAPSHOT_KEY), broker, now_ms=device.machine.wall_ms)

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


FOREVER_MS = START_MS + 14 * 365 * DAY_MS
"""2040."""


def stolen(fleet, issued_ms):
    """Everything that the online keys can sign, as of another year."""
    broker = dict(fleet.broker)
    seal(fleet.signer(create.SNAPSHOT_KEY), broker, now_ms=issued_ms)
    return broker


@pytest.mark.parametrize("days", [30, 89, 91, 14 * 365], ids=str)
def test_a_stolen_online_key_raises_the_floor_to_the_expiry_of_approvals_at_most(
    tmp_path, fleet, days
):
    """Attack 38: `x-issued` of 2040."""
    fleet.publish()
    machine = Machine(wall_ms=0, synchronised=False)
    device = Device(tmp_path / "victim", fleet.root, machine)
    device.read(fleet.broker)
    issued_ms = START_MS + days * DAY_MS
    until_ms = _ms(device.trust.state().models_until)
    # Roles that do not expire in between: only the clock is attacked.
    broker = stolen(fleet, issued_ms)
    try:
        device.read(broker)
    except Unavailable:
        assert days > 13, "rollouts expire after 14 days"
    assert device.clock.floor_ms <= min(issued_ms, until_ms)
    for _ in range(2):
        device.restart()
        assert device.clock.now_ms() == device.clock.floor_ms <= until_ms
    machine.boot, machine.uptime_s = "boot-2", 1.0
    device.restart()
    assert device.clock.now_ms() <= until_ms


def test_with_all_online_keys_stolen_the_floor_is_exactly_what_approvers_signed(tmp_path, fleet):
    fleet.publish()
    device = Device(tmp_path / "victim", fleet.root, Machine(wall_ms=0, synchronised=False))
    device.read(fleet.broker)
    until_ms = _ms(device.trust.state().models_until)
    broker = dict(fleet.broker)
    broker[TOPICS.tuf("rollouts")] = fleet.forge(
        "rollouts", _for_ever, fleet.signer(create.ROLLOUTS_KEY)
    )
    seal(fleet.signer(create.SNAPSHOT_KEY), broker, now_ms=FOREVER_MS)
    assert device.read(broker)
    assert device.clock.floor_ms == device.clock.now_ms() == until_ms
    assert device.trust.issued_ms == until_ms
    device.restart()
    assert device.clock.floor_ms == until_ms


def test_the_floor_follows_a_signed_moment_that_is_earlier_than_the_approvals_end(tmp_path, fleet):
    fleet.publish()
    device = Device(tmp_path / "device", fleet.root, Machine(wall_ms=0, synchronised=False))
    device.read(fleet.broker)
    fleet.later(days=2)
    fleet.publish()
    device.read(fleet.broker)
    assert device.clock.floor_ms == START_MS + 2 * DAY_MS


def test_a_clock_that_jumps_back_a_year_keeps_trust_and_learns_on(fleet, device):
    v1 = fleet.approve("digits/v1")
    fleet.publish()
    device.read(fleet.broker)
    device.machine.wall_ms -= 365 * DAY_MS
    fleet.later(days=2)
    fleet.approve("digits/v2")
    fleet.publish()

    assert device.read(fleet.broker)
    assert device.clock.now_ms() == START_MS + 2 * DAY_MS
    assert v1 in device.trust.approvals
    assert not device.trust.models_expired()
    assert device.trust.timestamp_fresh()


def test_a_clock_in_1970_does_not_make_old_metadata_fresh_again(fleet, device):
    fleet.publish()
    device.read(fleet.broker)
    old = dict(fleet.broker)
    fleet.later(days=4)
    fleet.publish()
    device.read(fleet.broker)
    device.machine.wall_ms = 0
    device.restart()
    with pytest.raises(OutriderError):
        device.read(old)
    assert device.trust.timestamp_fresh()


def _for_ever(role):
    role.version += 1
    role.expires = datetime.fromtimestamp(FOREVER_MS / 1000, UTC).replace(
        microsecond=0
    ) + timedelta(days=1)


def _ms(text):
    return int(datetime.fromisoformat(text).timestamp() * 1000)
