"""How long a technician waits in front of a device without a network.

A real fleet of one, whose cable is cut: each command of `outrider-agent` is a process of its own,
as when it is typed, beside an agent that answers requests. Wall time of the whole process, and its
CPU. Goal of every one: 1 s. `--rounds 10` changes how often each is typed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from control_plane.demo.fleet import Device, wait_until  # noqa: E402 - after the path is set
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.fakes.whole_fleet import (  # noqa: E402 - the same
    MODEL,
    FleetHere,
    Operator,
    application,
    ready,
    short_folder,
)

GOAL_S = 1.0
ASKED = ("status", "doctor", "logs")
DONE = (("pin", f"{MODEL}/v2", "--why", "measuring"), ("rollback", "--why", "measuring"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with short_folder() as folder, FleetHere(folder) as fleet:
        device = unplugged(fleet)
        rows = [row for name in ASKED for row in typed(device, (name,), rounds)]
        for words in DONE:
            rows += typed(device, words, rounds, lambda: again(fleet, device))
    return publish("technician", rows)


def unplugged(fleet: FleetHere) -> Device:
    """A device that runs v2, came from v1 and has just lost its network."""
    fleet.initialise()
    fleet.start_control_plane()
    operator = Operator(fleet)
    fleet.enrol({"x": ("t-1",)})
    device = fleet.devices["t-1"]
    cable = fleet.lay_cable(device)
    operator.ship("v1")
    operator.pin(device, "v1")
    fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    application(device)
    two = operator.ship("v2", scale=1.001)
    operator.pin(device, "v2")
    operator.until_serves(device, two)
    operator.unpin(device)
    cable.cut()
    return device


def typed(
    device: Device, words: tuple[str, ...], rounds: int, after: Callable[[], None] = lambda: None
) -> Iterator[Row]:
    seconds, cpu = [], []
    for _ in range(rounds):
        began, before = time.monotonic(), children_s()
        run(device, words)
        seconds.append(time.monotonic() - began)
        cpu.append(children_s() - before)
        after()
    most = max(seconds)
    yield Row(f"{words[0]}: median", statistics.median(seconds), "s")
    yield Row(f"{words[0]}: slowest of {rounds}", most, "s", goal="≤ 1", ok=most <= GOAL_S)
    yield Row(f"{words[0]}: CPU, median", statistics.median(cpu), "s")


def again(fleet: FleetHere, device: Device) -> None:
    """Once the device has got where it was sent, and could be sent back."""

    def there() -> bool:
        state = (fleet.status(device) or {}).get("state", {}).get("models", {}).get(MODEL, {})
        at_rest = state.get("current") == state.get("serving") == state.get("target")
        return bool(at_rest and state.get("previous"))

    wait_until(there, "the version is committed", 60, 0.05)
    run(device, ("unpin",))


def run(device: Device, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "edge_agent", *words, "--home", str(device.home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # 8: done, and something is to be looked at; 1, of doctor: a check failed. There is no link.
    if done.returncode not in (0, 8, *((1,) if words == ("doctor",) else ())):
        raise SystemExit(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")


def children_s() -> float:
    """CPU of all processes that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
