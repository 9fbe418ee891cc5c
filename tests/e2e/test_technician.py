"""A technician at a device without a network, and the agent as a service: everything real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from control_plane import cli as operator_cli
from control_plane.demo.fleet import Device, wait_until
from control_plane.demo.traffic import Application
from edge_agent import cli
from tests.fakes.callers import ROW, call, inference
from tests.fakes.command_line import Ran, ran
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

pytestmark = pytest.mark.e2e

UNIT = Path(__file__).parents[2] / "deploy/systemd/outrider-agent.service"


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    """A fleet with v1 as its stable version; each test adds the one device that it is about."""
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        operator = Operator(fleet)
        operator.ship("v1")
        first = enrolled(operator, "t-0")
        rollout = operator.roll_out("v1")
        answering = started(operator, first)
        operator.until(first, lambda: completed(operator, rollout), "through")
        answering.stop()
        yield operator


def typed(device: Device, *words: str) -> Ran:
    return ran(cli.run_command, [*words, "--home", str(device.home)])


def enrolled(operator: Operator, name: str) -> Device:
    operator.fleet.enrol({"x": (name,)})
    return operator.fleet.devices[name]


def started(operator: Operator, device: Device) -> Application:
    """The traffic of a device that runs v1."""
    operator.fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    answering = application(device)
    operator.until_runs(device, "v1")
    return answering


def completed(operator: Operator, rollout: str) -> bool:
    found = operator.fleet.client.get(f"rollouts/{rollout.replace('/', '%2F')}")
    return bool(found["status"] == "completed")


def serving(device: Device) -> str:
    """The version that answers."""
    return str(
        call(device.port, "POST", f"/v2/models/{MODEL}/infer", inference(ROW))[1]["model_version"]
    )


def test_a_technician_rolls_back_without_a_network_and_operators_learn_of_it(operator):
    device = enrolled(operator, "t-1")
    cable = operator.fleet.lay_cable(device)
    answering = started(operator, device)
    two = operator.ship("v2", scale=1.001)
    rollout = operator.roll_out("v2", to=f"id = {device.name}")
    operator.until_serves(device, two)
    operator.until(device, lambda: completed(operator, rollout), "through")
    cable.cut()
    operator.until(device, lambda: not linked(operator, device), "without a link")

    back = typed(device, "rollback", "--why", "labels are wrong")
    assert back.exit in (0, 8), back
    assert f"pinned      {MODEL}/v1 until somebody takes it back" in back.out
    assert "labels are wrong" in back.out
    assert "operators see it once there is a link" in back.out
    wait_until(lambda: serving(device) == "v1", "v1 answers again", LIMIT_S, 0.02)
    answering.stop()
    assert answering.tally.failures == []

    # It holds over the death of the agent, and over what the fleet ordered meanwhile.
    assert device.process is not None
    device.process.kill()
    device.process.wait()
    operator.fleet.start_agent(device)
    wait_until(lambda: "pinned here" in typed(device, "status").out, "it still holds", LIMIT_S, 0.1)
    cable.restore()

    def known() -> bool:
        shown = operator.reported(device).get("models", {}).get(MODEL, {}).get("pinned") or {}
        return bool(shown.get("why") == "labels are wrong")

    operator.until(device, known, "known to be pinned")
    shown = ran(
        operator_cli.run, ["device", "show", device.name, "--home", str(operator.fleet.home)]
    )
    assert f"pinned on the device at {MODEL}/v1" in " ".join(shown.out.split()), shown
    assert serving(device) == "v1"

    off = typed(device, "unpin")
    assert (off.exit, "what operators order decides again" in off.out) == (0, True), off
    wait_until(lambda: serving(device) == "v2", "v2 answers", LIMIT_S, 0.02)


def linked(operator: Operator, device: Device) -> bool:
    status = operator.fleet.status(device) or {}
    return bool(status.get("link", {}).get("connected"))


def test_doctor_and_logs_say_how_it_is_with_the_agent_and_without(operator):
    device = enrolled(operator, "t-2")
    answering = started(operator, device)
    well = typed(device, "doctor", "--json")
    checks = {each["name"]: each for each in json.loads(well.out)["checks"]}
    assert checks["model"]["result"] == "ok", checks
    assert f"{MODEL}/v1: golden vectors answered in" in checks["model"]["detail"]
    assert checks["link"]["result"] == "ok"
    assert checks["trust"]["result"] == "ok"
    assert "high-water marks intact" in checks["trust"]["detail"]
    assert well.exit in (0, 8)
    told = typed(device, "logs")
    assert f"{MODEL}/v1 answers" in told.out, told
    assert "edge_agent" not in told.out
    assert "[edge_agent.supervisor]" in typed(device, "logs", "-v").out

    answering.stop()
    assert device.process is not None
    device.process.terminate()
    assert device.process.wait(LIMIT_S) == 0
    ill = typed(device, "doctor", "--json")
    checks = {each["name"]: each for each in json.loads(ill.out)["checks"]}
    assert ill.exit == 1
    assert checks["agent"]["result"] == "FAIL"
    assert checks["model"] == {"name": "model", "result": "ok", "detail": f"{MODEL}/v1 is whole"}
    assert checks["buffer"]["result"] == "ok"
    assert "models" in checks["trust"]["detail"]
    assert checks["link"]["result"] == "skip"


def test_a_clean_stop_answers_what_was_asked_and_keeps_every_count(operator):
    device = enrolled(operator, "t-3")
    answering = started(operator, device)
    assert device.process is not None
    device.process.send_signal(signal.SIGTERM)
    code = device.process.wait(LIMIT_S)
    assert code == 0
    assert runners(device) == []
    answering.stop()
    answered = answering.tally.answered
    # What came after the listener was closed was refused, never left without an answer.
    assert all(
        "refused" in each.lower() or "reset" in each.lower() for each in answering.tally.failures
    ), answering.tally.failures[:3]
    operator.fleet.start_agent(device)
    operator.until(device, lambda: operator.counted(device) == answered, f"at {answered} answers")


def test_systemd_is_told_when_it_is_ready_that_it_lives_and_that_it_stops(operator, monkeypatch):
    device = enrolled(operator, "t-4")
    place = operator.fleet.folder / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(place))
        systemd.settimeout(LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        operator.fleet.start_agent(device)
        said = [systemd.recv(4096).decode()]
        while not said[-1].startswith("READY=1"):
            said.append(systemd.recv(4096).decode())
        assert set(said[:-1]) <= {"WATCHDOG=1"}
        while not any(f"STATUS={MODEL}/v1" in each for each in said):
            said.append(systemd.recv(4096).decode())
        assert device.process is not None
        beats = 0
        while beats < 3:
            beats += systemd.recv(4096) == b"WATCHDOG=1"

        # A supervisor that hangs is silent, although the process is there.
        device.process.send_signal(signal.SIGSTOP)
        silent(systemd)
        device.process.send_signal(signal.SIGCONT)
        wait_until(lambda: systemd.recv(4096) == b"WATCHDOG=1", "it lives", LIMIT_S, 0.0)

        device.process.terminate()
        while not said[-1].startswith("STOPPING=1"):
            said.append(systemd.recv(4096).decode())
        assert device.process.wait(LIMIT_S) == 0


def silent(systemd: socket.socket) -> None:
    """Until what was on its way has come, and then nothing for two whole watchdog intervals."""
    systemd.settimeout(4.0)
    quiet = False
    while not quiet:
        try:
            systemd.recv(4096)
        except TimeoutError:
            quiet = True
    systemd.settimeout(LIMIT_S)


def test_an_agent_works_as_confined_as_its_unit_says(operator):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: nobody says what its groups of calls hold")
    words = [sys.executable, "-m", "tests.fakes.confined", str(UNIT)]
    trial = subprocess.run([*words, "true"], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"this machine cannot confine: {trial.stderr.splitlines()[-1]}")
    device = enrolled(operator, "t-5")
    run = [
        sys.executable,
        "-m",
        "edge_agent",
        "run",
        f"--home={device.home}",
        f"--port={device.port}",
    ]
    with device.log.open("ab") as log:
        device.process = subprocess.Popen(
            [*words, *run], stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "OUTRIDER_AGENT_HOME": str(device.home)},
        )  # fmt: skip
    operator.until(device, lambda: ready(device), "ready")
    answering = application(device)
    operator.until_runs(device, "v1")
    two = operator.ship("v2c", scale=1.002)
    operator.roll_out("v2c", to=f"id = {device.name}")
    operator.until_serves(device, two)
    before = set(runners(device))
    device.process.kill()
    device.process.wait()
    operator.until_more(answering)
    assert before & set(runners(device)), "none of the runners was adopted"
    answering.stop()
    assert answering.tally.failures == []
    log_text = device.log.read_text()
    assert "not permitted" not in log_text, log_text[-2000:]
