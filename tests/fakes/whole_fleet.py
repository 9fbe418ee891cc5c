"""Whole fleets for end-to-end tests: real processes in a short folder, of which none is left over.

The model of `tests.fakes.bundles` is used where its content does not matter: it is made at once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from control_plane.cli.approving import review_and_sign
from control_plane.demo.fleet import START_S, Device, Fleet, wait_until
from control_plane.demo.traffic import Application, Row
from control_plane.serve import running
from control_plane.settings import read
from control_plane.up import broker_of
from control_plane.wiring import ControlPlane
from edge_agent.technician.door import ask
from protocol import codec
from protocol.errors import OutriderError
from protocol.members import DevPolicy, Policy
from tests.fakes.bundles import BundleOnDisk, make_bundle
from tests.fakes.callers import call
from tests.fakes.operator import packed

MODEL: Final = "toy"
POLICY: Final = Policy(min_requests=20, dev=DevPolicy(health_window_s=1))
RATE: Final = 60.0
LIMIT_S: Final = 30.0
ENDING_S: Final = 10.0
"""For processes that were told to end."""


def processes(folder: Path) -> dict[int, str]:
    """Command lines, by pid, of all processes that were started for something in `folder`."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{folder}/" in f"{line.strip()}/":
                found[int(entry.name)] = line
    return found


def runners(device: Device) -> list[int]:
    """Pids of a device's runner processes."""
    lines = processes(device.home).items()
    return [pid for pid, line in lines if "edge_agent.runner.process" in line]


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose sockets have short paths. On leaving, no process may be left that uses it."""
    folder = Path(tempfile.mkdtemp(prefix="or-", dir="/tmp"))
    try:
        yield folder
    finally:
        with suppress(Exception):
            wait_until(lambda: not processes(folder), "all processes have ended", ENDING_S)
        left = processes(folder)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"left over: {left}"


def tails(fleet: Fleet, characters: int = 2000) -> str:
    """The ends of all logs, for the reader of a failure."""
    logs = [fleet.folder / "control-plane.log", *(each.log for each in fleet.devices.values())]
    texts = [(log, log.read_text(errors="replace")) for log in logs if log.exists()]
    return "\n".join(f"--- {log.name} of {log.parent.name}\n{t[-characters:]}" for log, t in texts)


def rows(seed: int = 1) -> tuple[Row, ...]:
    """Inputs of the toy model; nobody looks at the labels."""
    rng = random.Random(seed)
    return tuple(Row(tuple(rng.gauss(0, 1) for _ in range(4)), 0) for _ in range(400))


def application(device: Device, rate: float = RATE) -> Application:
    """Traffic for a device's toy model, started."""
    device.application = Application(device.port, MODEL, "pixels", rows(), rate)
    device.application.start()
    return device.application


def ready(device: Device) -> bool:
    """Whether the toy model answers."""
    try:
        return call(device.port, "GET", f"/v2/models/{MODEL}/ready")[0] == 200
    except OSError:
        return False


class NearFleet(Fleet):
    """Asks its agents directly: a command that is started each time takes the time of the rest."""

    def status(self, device: Device) -> dict[str, Any] | None:
        try:
            answer = ask(device.home / "run" / "agent.sock")
        except OutriderError:
            return None
        shown: dict[str, Any] = json.loads(codec.encode(answer))
        return shown


class FleetHere(NearFleet):
    """Its control plane runs in this process; the broker does not."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.stack = ExitStack()
        self.control: ControlPlane | None = None

    def start_control_plane(self) -> None:
        settings = self._settings()
        broker = broker_of(settings)
        broker.start()
        self.stack.callback(broker.stop)
        self.control = self.stack.enter_context(running(settings))
        wait_until(lambda: bool(self.client.get("/v1/health")["ready"]), "it is ready", START_S)

    def stop(self) -> None:
        super().stop()
        self.stack.close()


class Operator:
    """What people do with a fleet, and what they see of it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def ship(self, version: str, **options: Any) -> BundleOnDisk:
        """Make, push and approve a version."""
        bundle = self.push(version, **options)
        settings = read({}, self.fleet.home)
        review_and_sign(self.fleet.client, settings, f"{MODEL}/{version}", None, ask=False)
        return bundle

    def push(self, version: str, **options: Any) -> BundleOnDisk:
        """Make and push a version; the control plane looks at no ONNX file by itself."""
        folder = self.fleet.folder
        bundle = make_bundle(folder / "made", MODEL, version, **{"policy": POLICY, **options})
        tar = folder / f"{version}.tar"
        tar.write_bytes(packed(bundle, folder))
        client = self.fleet.client
        client.wait(client.upload("bundles", tar))
        return bundle

    def roll_out(self, version: str, **spec: Any) -> str:
        body = {"version": f"{MODEL}/{version}", "waves": ["100%"], **spec}
        rollout: str = self.fleet.client.post("rollouts", body)["id"]
        return rollout

    def pin(self, device: Device, version: str) -> None:
        path = f"devices/{device.name}/pins/{MODEL}"
        self.fleet.client.put(path, {"version": version, "why": "test"})

    def unpin(self, device: Device) -> None:
        self.fleet.client.delete(f"devices/{device.name}/pins/{MODEL}")

    def show(self, device: Device) -> dict[str, Any]:
        """As the API shows it: `device`, `document`, `reported`."""
        found: dict[str, Any] = self.fleet.client.get(f"devices/{device.name}")
        return found

    def model(self, device: Device) -> dict[str, Any]:
        """The toy model on a device, in the words of the API; empty before it is reported."""
        return next(iter(self.show(device)["device"]["models"]), {})

    def reported(self, device: Device) -> dict[str, Any]:
        """What the device said last; empty before it is heard."""
        return self.show(device)["reported"] or {}

    def refused(self, device: Device) -> dict[str, str]:
        """Code and detail, by what was refused, in the state that the control plane has."""
        entries = self.reported(device).get("refused", ())
        return {each["what"]: f"{each['code']} {each.get('detail', '')}" for each in entries}

    def runs(self, device: Device, version: str, state: str = "healthy") -> bool:
        model = self.model(device)
        return model.get("runs") == f"{MODEL}/{version}" and model["state"] == state

    def until_runs(self, device: Device, version: str, state: str = "healthy") -> None:
        self.until(device, lambda: self.runs(device, version, state), f"{state} on {version}")

    def until(
        self,
        device: Device,
        condition: Callable[[], bool],
        what: str,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Like `wait_until`; a failure says what the device reports instead."""
        try:
            wait_until(condition, f"{device.name} is {what}", limit_s, 0.05)
        except Exception as error:
            tail = tails(self.fleet)
            state: Mapping[str, Any] = self.reported(device)
            raise AssertionError(f"{error}; it reports {state}; logs:\n{tail}") from error

    def until_more(self, answering: Application, answers: int = 30) -> None:
        goal = answering.tally.answered + answers
        wait_until(lambda: answering.tally.answered >= goal, "more answers", LIMIT_S, 0.02)

    def until_serves(self, device: Device, bundle: BundleOnDisk) -> None:
        """By the device's own word, now: the control plane may still show what it heard before."""

        def serves() -> bool:
            status = self.fleet.status(device) or {}
            model = status.get("state", {}).get("models", {}).get(MODEL, {})
            return bool(model.get("current") == model.get("serving") == bundle.digest)

        self.until(device, serves, f"serving {bundle.version}")

    def stored(self, device: Device) -> int:
        """Answers of one device that the control plane has."""
        found = self.fleet.client.get("records")["devices"]
        return sum(each["answers"] for each in found if each["device"].endswith(f"-{device.name}"))

    def counted(self, device: Device) -> int:
        """Answers that the agent has taken into its outbox."""
        status = self.fleet.status(device)
        return int(status.get("answered", 0)) if status else -1

    def delivered(self, device: Device) -> bool:
        """Whether the device holds nothing any more that the control plane has not confirmed."""
        status = self.fleet.status(device)
        if status is None or not status.get("state"):
            return False
        return not status["state"].get("buffer", {}).get("records", 0)
