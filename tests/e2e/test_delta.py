"""A push that finds devices at work makes what they fetch small, over every way that there is."""

from __future__ import annotations

import pytest

from tests.fakes.whole_fleet import FleetHere, Operator, application, ready, short_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CLASSES = tuple(f"c{number}" for number in range(300))
"""Enough weights for a delta to be worth it."""


def test_the_next_version_reaches_a_device_as_a_delta_from_what_it_runs():
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("d-1",)})
        operator = Operator(fleet)
        device = fleet.devices["d-1"]
        operator.ship("v1", classes=CLASSES)
        operator.roll_out("v1")
        fleet.start_agent(device)
        operator.until(device, lambda: ready(device), "ready")
        answering = application(device)
        operator.until_runs(device, "v1")

        bundle = operator.ship("v2", classes=CLASSES, scale=1.00001)
        payloads = fleet.client.get("models/toy/payloads")["items"]
        model = bundle.variant.member("model").digest
        assert any(each["file"] == model and each["base"] for each in payloads)
        operator.roll_out("v2")
        operator.until_runs(device, "v2")
        operator.until(
            device,
            lambda: operator.reported(device)["counters"].get("fetched delta bytes", 0) > 0,
            "one that fetched a delta",
        )
        answering.stop()
        assert answering.tally.failures == []
