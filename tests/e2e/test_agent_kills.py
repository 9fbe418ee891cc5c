"""Agents, runners and models that end in the worst way, under traffic, with everything real."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from control_plane.demo.fleet import Device, wait_until
from control_plane.demo.traffic import Application
from edge_agent.disk import Disk
from edge_agent.journal import Note
from edge_agent.runner.blame import Doing, read_blame
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

pytestmark = pytest.mark.e2e

HANGS = (10.0, 0.0, 0.0, 0.0)
"""A row on which the model works for an hour."""


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    """A fleet with v1 as its stable version; each test starts the one device that it is about."""
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("k-1", "k-2", "k-3")})
        operator = Operator(fleet)
        operator.ship("v1", hangs=True)
        operator.roll_out("v1")
        yield operator


def serving(operator: Operator, name: str) -> tuple[Device, Application]:
    """A device that runs v1, under traffic."""
    device = operator.fleet.devices[name]
    operator.fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    answering = application(device)
    operator.until_runs(device, "v1")
    return device, answering


def test_killing_the_agent_fails_no_request_and_loses_no_count(operator):
    device, answering = serving(operator, "k-1")
    (runner,) = runners(device)
    assert device.process is not None
    looked = 0
    for _ in range(2):
        at_least = looked + 2
        operator.until(device, lambda n=at_least: _windows(operator, device) >= n, "learning")
        looked = _windows(operator, device)
        device.process.kill()
        device.process.wait()
        operator.until_more(answering)
        assert runners(device) == [runner]
        operator.fleet.start_agent(device)
        operator.until(device, lambda: operator.counted(device) > 0, "back")
        operator.until(device, lambda: _windows(operator, device) > 0, "aware of its inputs")
        assert _windows(operator, device) >= looked, "its detectors began anew"
        operator.until_more(answering)
        assert runners(device) == [runner], "another runner serves: the first was not adopted"
    answering.stop()
    assert answering.tally.failures == []
    answered = answering.tally.answered
    operator.until(device, lambda: operator.counted(device) == answered, f"at {answered} answers")
    operator.until(device, lambda: operator.stored(device) == answered, f"stored at {answered}")
    operator.until(device, lambda: operator.delivered(device), "rid of its records")
    assert (operator.counted(device), operator.stored(device)) == (answered, answered)


def test_a_runner_killed_in_the_middle_of_a_request_is_blamed_and_replaced(operator):
    device, answering = serving(operator, "k-2")
    (runner,) = runners(device)
    answering.stop()
    busy = threading.Thread(target=_ask_in_vain, args=(device.port,))
    busy.start()
    wait_until(lambda: "infer" in _doing(device), "the model hangs", LIMIT_S, 0.005)
    before = _note(device).crashes
    os.kill(runner, signal.SIGKILL)
    busy.join()
    wait_until(lambda: _note(device).crashes > before, "the crash is noted", LIMIT_S, 0.005)
    answering.start()
    operator.until_more(answering)
    assert runners(device) != [runner]
    operator.until_runs(device, "v1")
    answering.stop()
    # What this runner had counted since the last checkpoint died with it; nothing is made up.
    operator.until(device, lambda: operator.counted(device) == operator.stored(device), "settled")
    operator.until(device, lambda: operator.delivered(device), "rid of its records")
    assert 0 < operator.stored(device) <= answering.tally.answered


def _windows(operator: Operator, device: Device) -> int:
    """How many windows the device's detectors of drift have seen."""
    status = operator.fleet.status(device) or {}
    model = status.get("state", {}).get("models", {}).get(MODEL, {})
    return int((model.get("drift") or {}).get("windows", 0))


def _ask_in_vain(port: int) -> None:
    with pytest.raises((OSError, EOFError, ValueError)):
        call(port, "POST", f"/v2/models/{MODEL}/infer", inference(HANGS))


def _doing(device: Device) -> list[Doing]:
    notes = [read_blame(path) for path in (device.home / "run").glob("blame-*")]
    return [note.doing for note in notes if note is not None]


def _note(device: Device) -> Note:
    """What the device's journal holds against the version that it serves."""
    journal = Disk(device.home).journal(MODEL)
    assert journal is not None
    assert journal.current is not None
    return journal.note(journal.current)


def test_a_model_that_aborts_at_its_first_request_goes_back_by_itself(operator, monkeypatch):
    monkeypatch.setenv("OUTRIDER_TEST_ABORT", f"{MODEL}/v2:infer")
    device, answering = serving(operator, "k-3")
    bad = operator.ship("v2", scale=1.001)
    rollout = operator.roll_out("v2", to=f"id = {device.name}")
    operator.until(device, lambda: operator.runs(device, "v1", "rolled back"), "back on v1")
    shown = operator.model(device)
    assert shown["why"] == "OUT-D311", shown
    note = operator.reported(device)["models"][MODEL]["notes"][bad.digest]
    assert (note["reason"], note["definite"], note["activated"]) == ("OUT-D311", True, True), note
    assert "abort" in note["detail"].lower() or "signal" in note["detail"].lower(), note
    operator.until_more(answering)
    assert answering.tally.by_version["v2"] == 0
    assert device.process is not None
    assert device.process.poll() is None
    ended = operator.fleet.client.get(f"rollouts/{rollout.replace('/', '%2F')}")
    assert ended["status"] != "completed"
    answering.stop()
