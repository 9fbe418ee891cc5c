"""Committed versions that begin to fail, on real agents whose link has been cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from control_plane.demo.fleet import Device, wait_until
from edge_agent.technician.door import ask
from edge_agent.technician.page import NO_MODEL, page
from protocol.rules import Condition, Rule, Rules
from tests.fakes.callers import call, inference
from tests.fakes.whole_fleet import (
    LIMIT_S,
    MODEL,
    POLICY,
    FleetHere,
    Operator,
    application,
    ready,
    short_folder,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

FINE = (0.0, 0.0, 0.0, 0.0)
HOT = (10.0, 0.0, 0.0, 0.0)
"""A row on which a fragile model fails."""

RULES = Rules(
    {"label": (0,), "probabilities": (1.0, 0.0, 0.0)},
    (Rule((Condition(0, "ge", 10.0),), {"label": (2,), "probabilities": (0.0, 0.0, 1.0)}),),
)


def answer(device: Device, row: tuple[float, ...]) -> tuple[int, dict[str, Any]]:
    return call(device.port, "POST", f"/v2/models/{MODEL}/infer", inference(row))


def committed(operator: Operator, device: Device, version: str) -> None:
    """Pinned, tried under traffic, and kept."""
    operator.pin(device, version)
    if device.process is None:
        operator.fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    answering = application(device)
    operator.until_runs(device, version)
    answering.stop()


def ask_until(device: Device, what: str, satisfied: Callable[[int, dict[str, Any]], bool]) -> None:
    """Ask with the row that fails, as an application that goes on would."""
    wait_until(lambda: satisfied(*answer(device, HOT)), what, LIMIT_S, 0.05)


def shown(device: Device) -> str:
    return "\n".join(page(ask(device.home / "run" / "agent.sock")).lines)


def test_without_a_link_a_device_helps_itself_as_its_signed_policy_says():
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("h-1", "h-2", "h-3")})
        operator = Operator(fleet)
        returns, ruled, refuses = (fleet.devices[name] for name in ("h-1", "h-2", "h-3"))
        operator.ship("v1")
        operator.ship("v2", fragile=True, scale=1.001)
        operator.ship("v3", fragile=True, policy=replace(POLICY, rules=RULES))
        operator.ship("v4", fragile=True, policy=replace(POLICY, actions={"errors": "refuse"}))
        committed(operator, returns, "v1")
        committed(operator, returns, "v2")
        committed(operator, ruled, "v3")
        committed(operator, refuses, "v4")
        assert answer(ruled, HOT)[0] == 500

        fleet.stack.close()  # the control plane and its broker are gone from here on

        ask_until(returns, "v1 is back", lambda status, body: body.get("model_version") == "v1")
        assert answer(returns, FINE)[0] == 200
        wait_until(lambda: "OUT-D318 errors" in shown(returns), "it says why", LIMIT_S, 0.1)

        ask_until(ruled, "rules answer", lambda status, body: status == 200)
        status, body = answer(ruled, HOT)
        assert (status, body["parameters"]) == (200, {"answered_by": "rules"})
        assert [output["data"] for output in body["outputs"]] == [[2], [0.0, 0.0, 1.0]]
        assert answer(ruled, FINE)[1]["outputs"][0]["data"] == [0]
        assert call(ruled.port, "GET", f"/v2/models/{MODEL}/ready") == (
            200,
            {"name": MODEL, "ready": True, "parameters": {"answered_by": "rules"}},
        )
        wait_until(lambda: "its signed rules answer" in shown(ruled), "it says so", LIMIT_S, 0.1)

        ask_until(refuses, "it refuses", lambda status, body: status == 503)
        status, body = answer(refuses, FINE)
        assert status == 503
        assert body["error"].startswith("OUT-D352 ")
        assert not ready(refuses)
        wait_until(lambda: "OUT-D352" in shown(refuses), "it says so", LIMIT_S, 0.1)
        assert page(ask(refuses.home / "run" / "agent.sock")).exit == NO_MODEL
