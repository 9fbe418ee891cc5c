"""Applications beside a real agent: one asks over the socket, one runs the model in itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control_plane.demo.fleet import Device
from edge_agent.sdk import Client
from protocol.members import DevPolicy, Policy
from tests.fakes.whole_fleet import FleetHere, Operator, ready, short_folder

pytestmark = pytest.mark.e2e

ROW = np.zeros((1, 4), np.float32)
EXERCISED = Policy(min_requests=100, dev=DevPolicy(health_window_s=1, max_duration_s=600))
"""Nobody but the application asks: without its answers no trial would end in time."""


class InProcess:
    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.in_process", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def tell(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.says()

    def answered(self, version: str) -> int:
        return int(self.tell("count")["answered"].get(version, 0))


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("app-1",)})
        operator = Operator(fleet)
        operator.ship("v1", policy=EXERCISED, scale=3.0)
        operator.pin(fleet.devices["app-1"], "v1")
        yield operator


@pytest.fixture
def device(operator: Operator) -> Device:
    found = operator.fleet.devices["app-1"]
    operator.fleet.start_agent(found)
    operator.until(found, lambda: ready(found), "ready")
    return found


@pytest.fixture
def start() -> Iterator[Callable[[Path], InProcess]]:
    started: list[InProcess] = []

    def begin(home: Path) -> InProcess:
        started.append(InProcess(home))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_an_application_that_runs_the_model_is_part_of_every_trial(operator, device, start):
    # v1 is on trial, and nothing is proven yet: an application in process has nothing to run, so
    # one that asks over the socket proves it.
    with Client("toy", home=device.home) as client:
        for _ in range(120):
            assert client.infer(ROW).version == "v1"
    operator.until_runs(device, "v1")
    application = start(device.home)
    assert application.says() == {"version": "v1"}
    answered = application.answered
    operator.until(device, lambda: answered("v1") >= 100, "answering in process")

    good = operator.ship("v2", policy=EXERCISED, scale=3.001)
    operator.pin(device, "v2")
    operator.until_runs(device, "v2")
    shown = operator.reported(device)["models"]["toy"]
    assert not shown.get("committed_unexercised"), shown
    operator.until(device, lambda: answered("v2") >= 100, "followed to v2")
    # What v3 is compared with is what the agent has counted of v2, not what was answered.
    enough = 120 + answered("v1") + 100
    operator.until(device, lambda: operator.counted(device) >= enough, "counted on v2")

    # v3 knows nothing: all its answers have the same confidence. Only the application asks it.
    bad = operator.ship("v3", policy=EXERCISED, scale=0.0)
    operator.pin(device, "v3")
    operator.until(device, lambda: answered("v3") > 0, "trying v3")

    def back() -> bool:
        shown = operator.reported(device)["models"]["toy"]
        reason = shown.get("notes", {}).get(bad.digest, {}).get("reason")
        return bool(reason == "OUT-D310" and shown["serving"] == shown["current"] == good.digest)

    operator.until(device, back, "back on v2")
    before = answered("v2")
    operator.until(device, lambda: answered("v2") > before, "answering by v2 again")

    # Killed and started again, the agent goes on where it was, and nothing is counted twice.
    assert device.process is not None
    device.process.kill()
    device.process.wait()
    before = answered("v2")
    operator.until(device, lambda: answered("v2") > before, "answering without an agent")
    operator.fleet.start_agent(device)
    operator.until(device, lambda: operator.counted(device) > 0, "back")
    last = application.tell("stop")
    total = sum(last["answered"].values()) + 120
    assert last["errors"] == {}
    operator.until(device, lambda: operator.counted(device) == total, f"at {total} answers")
    operator.until(device, lambda: operator.stored(device) == total, f"stored at {total}")
