"""A device with a byte budget: what does not fit waits and is said to; nothing else stops."""

from __future__ import annotations

import pytest

from tests.fakes.whole_fleet import MODEL, FleetHere, Operator, application, ready, short_folder

pytestmark = pytest.mark.e2e


def test_a_download_waits_for_its_budget_while_the_device_goes_on():
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("b-1",)})
        operator = Operator(fleet)
        device = fleet.devices["b-1"]
        operator.ship("v1")
        operator.roll_out("v1")
        fleet.start_agent(device)
        operator.until(device, lambda: ready(device), "ready")
        answering = application(device)
        operator.until_runs(device, "v1")

        settings = f"devices/{device.name}/settings"
        fleet.client.put(settings, {"bytes_per_day": 1})
        document = operator.show(device)["document"]["version"]
        operator.until(
            device, lambda: operator.show(device)["document"]["read"] >= document, "told its budget"
        )
        bundle = operator.ship("v2", scale=1.001)
        operator.roll_out("v2")
        operator.until(device, lambda: operator.model(device)["why"] == "OUT-F105", "out of budget")
        assert "a whole day has 1 B" in operator.model(device)["detail"]
        assert operator.model(device)["runs"] == f"{MODEL}/v1"
        operator.until_more(answering)
        partial = device.home / "bundles" / f".{bundle.digest}"
        assert not [name for name in partial.iterdir() if name.name.startswith(".p-")]

        fleet.client.put(settings, {})
        operator.until_runs(device, "v2")
        answering.stop()
        assert answering.tally.failures == []
