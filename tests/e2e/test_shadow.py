"""A candidate that runs beside what is in use, and one that waits for its window: a real agent, a
real broker, a control plane."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from control_plane.demo.fleet import Device, wait_until
from edge_agent.technician.door import ask
from edge_agent.technician.page import page
from tests.fakes.callers import call, inference
from tests.fakes.whole_fleet import (
    LIMIT_S,
    MODEL,
    FleetHere,
    Operator,
    application,
    ready,
    runners,
    short_folder,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROW = (0.1, 0.2, 0.3, 0.4)
ROWS = 60
PATIENT_S = 150.0
"""A shadow has a budget of processor time, so on a busy machine it takes its time."""


def shown(device: Device) -> str:
    lines = page(ask(device.home / "run" / "agent.sock")).lines
    return " ".join(" ".join(lines).split())


def serving(device: Device) -> str:
    status, body = call(device.port, "POST", f"/v2/models/{MODEL}/infer", inference(ROW))
    assert status == 200
    return str(body["model_version"])


def shadow(operator: Operator, device: Device) -> dict[str, Any]:
    """As the control plane heard it."""
    found: dict[str, Any] = operator.reported(device)["models"][MODEL].get("shadow") or {}
    return found


def later(hours: int) -> str:
    return f"{datetime.now().astimezone() + timedelta(hours=hours):%H:00}"


def test_a_candidate_shadows_until_the_rollout_lets_it_start():
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("s-1",)})
        operator, device = Operator(fleet), fleet.devices["s-1"]
        operator.ship("v1")
        alike = operator.ship("v2", scale=1.001)
        unlike = operator.ship("v3", scale=-1.0)
        operator.pin(device, "v1")
        fleet.start_agent(device)
        operator.until(device, lambda: ready(device), "ready")
        answering = application(device)
        operator.until_runs(device, "v1")
        operator.unpin(device)

        # Nobody is answered by what does not agree, however long it runs.
        other = operator.roll_out("v3", gates="off", shadow={"rows": ROWS, "agreement": ">= 95 %"})
        operator.until(
            device, lambda: shadow(operator, device).get("rows", 0) >= ROWS, "shadowing", PATIENT_S
        )
        said = shadow(operator, device)
        assert said["digest"] == unlike.digest
        assert said.get("agreed", 0) <= 0.5 * said["rows"]
        assert sum(said["confidence"]) == sum(said["base_confidence"]) == said["rows"]
        assert f"shadowing {MODEL}/v3: " in shown(device)
        assert len(runners(device)) == 2
        assert serving(device) == "v1"
        fleet.client.post(f"rollouts/{other}/abort", {"why": "it does not agree"})
        operator.until(device, lambda: len(runners(device)) == 1, "alone")

        # What agrees is tried as always, by the runner that is loaded already.
        operator.roll_out("v2", gates="off", shadow={"rows": ROWS, "agreement": ">= 95 %"})
        operator.until_serves(device, alike)
        assert serving(device) == "v2"
        assert answering.tally.failed == 0
        answering.stop()


def test_a_rollout_waits_for_its_maintenance_window():
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("s-1",)})
        operator, device = Operator(fleet), fleet.devices["s-1"]
        operator.ship("v1")
        operator.ship("v2", scale=1.001)
        operator.pin(device, "v1")
        fleet.start_agent(device)
        operator.until(device, lambda: ready(device), "ready")
        answering = application(device)
        operator.until_runs(device, "v1")
        operator.unpin(device)
        closed = f"{later(3)}-{later(4)}"
        waiting = operator.roll_out("v2", gates="off", maintenance_windows=[closed])
        wait_until(
            lambda: f"OUT-D343 starts in the window {closed}" in shown(device), "it waits", LIMIT_S
        )
        state = operator.reported(device)["models"][MODEL]
        assert state["phase"] == "staged"
        assert serving(device) == "v1"
        fleet.client.post(f"rollouts/{waiting}/abort", {"why": "sooner"})
        operator.roll_out("v2", gates="off", maintenance_windows=[f"{later(-1)}-{later(2)}"])
        wait_until(lambda: serving(device) == "v2", "its window is open", LIMIT_S, 0.1)
        answering.stop()
