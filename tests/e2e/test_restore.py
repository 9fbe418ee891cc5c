"""A control plane whose home comes from an old copy goes on with the fleet that it finds.

What holds for records while there is no backup command (`safe = have`: devices delete what the
control plane confirms): what the copy has stays, what devices still hold or count from then on
arrives exactly once, and what was confirmed between copy and restore is gone, not a record more.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.demo.fleet import Device
from tests.fakes.whole_fleet import MODEL, NearFleet, Operator, application, ready, short_folder

pytestmark = pytest.mark.e2e

BROKER = "broker"
"""Not part of the copy: the broker keeps its own files, and is often another machine."""


@pytest.fixture
def operator() -> Iterator[Operator]:
    with short_folder() as folder, NearFleet(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("r-1", "r-2")})
        fleet.start_agents()
        yield Operator(fleet)


def devices(operator: Operator) -> list[Device]:
    return list(operator.fleet.devices.values())


def until_all_run(operator: Operator, version: str) -> None:
    for device in devices(operator):
        operator.until_runs(device, version)


def settle(operator: Operator) -> dict[str, tuple[int, int]]:
    """Stop the traffic and wait until devices hold nothing; per device counted and stored."""
    operator.fleet.stop_traffic()
    counts = {}
    for device in devices(operator):
        answered = device.application.tally.answered if device.application else 0
        operator.until(
            device,
            lambda device=device, answered=answered: (  # type: ignore[misc]
                operator.counted(device) == answered and operator.delivered(device)
            ),
            "rid of its records",
        )
        counts[device.name] = operator.counted(device), operator.stored(device)
    return counts


def go_on(operator: Operator) -> None:
    for device in devices(operator):
        if device.application is None:
            application(device)
        else:
            device.application.start()


def versions(operator: Operator) -> dict[str, list[int]]:
    """Per device every number that may only rise: document, plan, roles."""
    found = {}
    for device in devices(operator):
        state: dict[str, Any] = operator.reported(device)
        trust = state["trust"]
        found[device.name] = [
            state["document_version"],
            state["models"][MODEL]["plan_version"],
            *(trust[role] for role in ("root", "targets", "models", "rollouts", "snapshot")),
            trust["timestamp"],
        ]
    return found


def restore(copy: Path, home: Path) -> None:
    for entry in home.iterdir():
        if entry.name != BROKER:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(copy, home, dirs_exist_ok=True)


def test_a_control_plane_restored_from_an_old_copy_goes_on_with_its_fleet(operator):
    fleet = operator.fleet
    first, second = devices(operator)
    copy = fleet.folder / "copy"
    stable = operator.ship("v1")
    operator.ship("v2", scale=1.001)
    operator.roll_out("v1")
    for device in devices(operator):
        operator.until(device, lambda device=device: ready(device), "ready")
    go_on(operator)
    until_all_run(operator, "v1")
    then = settle(operator)
    assert all(counted == stored > 0 for counted, stored in then.values()), then
    fleet.stop_control_plane()
    shutil.copytree(fleet.home, copy, ignore=shutil.ignore_patterns(BROKER))

    # A day of work that the copy does not have: a version, a rollout, a pin, records.
    fleet.start_control_plane()
    go_on(operator)
    shipped = operator.ship("v3", scale=1.002)
    operator.roll_out("v3")
    until_all_run(operator, "v3")
    operator.pin(first, "v2")
    operator.until_runs(first, "v2")
    before = settle(operator)
    seen = versions(operator)
    fleet.stop_control_plane()
    restore(copy, fleet.home)
    logged = {device.name: len(device.log.read_text()) for device in devices(operator)}

    # The old copy forgets the pin and the rollout; devices follow it, since it is signed anew.
    fleet.start_control_plane()
    assert {d.name: operator.stored(d) for d in devices(operator)} == {
        name: stored for name, (_, stored) in then.items()
    }
    go_on(operator)
    for device in devices(operator):
        operator.until_serves(device, stable)

    # What is decided after the restore takes effect. The lost version is pushed once more; that
    # it was approved is known from what the broker retains.
    operator.pin(second, "v2")
    operator.until_runs(second, "v2")
    assert operator.push("v3", scale=1.002).digest == shipped.digest
    operator.roll_out("v3")
    operator.until_runs(first, "v3")
    assert operator.runs(second, "v2")

    after = settle(operator)
    now = versions(operator)
    for device in devices(operator):
        name = device.name
        assert operator.refused(device) == {}
        assert " refused: " not in device.log.read_text()[logged[name] :]
        assert all(new >= old for new, old in zip(now[name], seen[name], strict=True)), (seen, now)
        assert now[name][:2] > seen[name][:2]
        counted, stored = after[name]
        assert stored == then[name][1] + counted - before[name][0]
        assert device.application is not None
        assert device.application.tally.failures == []
    assert fleet.client.get("records")["conflicts"] == 0
