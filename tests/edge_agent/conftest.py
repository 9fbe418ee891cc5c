"""A fleet that has approved and planned one bundle, and a device that has heard of it."""

import pytest

from tests.fakes.fleet_trust import Device, Fleet


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
