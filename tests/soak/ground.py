"""The fleet that soak runs are made on: a control plane, a broker, versions, and a template.

Starting it takes longer than a run, so many runs share one. Each gets a device of its own, whose
bundles and journals are copied from a device that has committed v0 and then v1.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from control_plane.access import access
from control_plane.cli.approving import How, revoke
from control_plane.client import Client
from control_plane.demo.fleet import AGENT_HOME, Device, free_port, wait_until
from control_plane.settings import Settings, read
from control_plane.up import PID
from edge_agent.enrol import enrol
from protocol.errors import OutriderError
from protocol.members import DevPolicy, Policy
from tests.fakes.bundles import BundleOnDisk, Weights
from tests.fakes.whole_fleet import MODEL, NearFleet, Operator, application, ready
from tests.soak.disk import SmallDisk
from tests.soak.schedule import BAD, BEFORE, FLEETING, GOOD, STABLE
from tests.soak.world import World, write

ABORTS: Final = "x2"
POLICY: Final = Policy(min_requests=20, dev=DevPolicy(health_window_s=1))
RUN_LIMIT_S: Final = 40.0
API_TIMEOUT_S: Final = 4.0
"""A control plane that is stopped does not answer; whoever asks asks again."""


@dataclass(slots=True)
class Field:
    """A device of one run, and what is done to it."""

    device: Device
    disk: SmallDisk
    world: Path
    diary: Path
    log: Path

    @property
    def home(self) -> Path:
        return self.device.home

    @property
    def socket(self) -> Path:
        return self.home / "run" / "agent.sock"


@dataclass(slots=True)
class Ground:
    fleet: NearFleet
    bundles: dict[str, BundleOnDisk] = field(default_factory=dict)
    """By what schedules call them."""
    revoked: set[str] = field(default_factory=set)
    _client: Client | None = None
    _operator: Operator | None = None

    @property
    def folder(self) -> Path:
        return self.fleet.folder

    @property
    def settings(self) -> Settings:
        return read({}, self.fleet.home)

    @property
    def client(self) -> Client:
        """Of this thread's choice: impatient, unlike the fleet's own."""
        if self._client is None:
            self._client = Client(access(self.fleet.home), timeout_s=API_TIMEOUT_S)
        return self._client

    @property
    def operator(self) -> Operator:
        if self._operator is None:
            self._operator = Operator(self.fleet)
        return self._operator

    def prepare(self) -> None:
        """Everything that runs share. Takes some ten seconds."""
        self.fleet.initialise()
        self.fleet.start_control_plane()
        self.fleet.enrol({"template": ("template",)})
        names = (BEFORE, STABLE, *GOOD, *BAD)
        for number, name in enumerate(names[:2]):
            self._ship(name, name, number)
        with ThreadPoolExecutor(1) as meanwhile:
            others = enumerate(names[2:], 2)
            shipped = [meanwhile.submit(self._ship, name, name, number) for number, name in others]
            self._commit_twice()
            for each in shipped:
                each.result()
        # Not before: a rollout to everybody would wait for what this one never reports.
        self.fleet.enrol({"nowhere": ("listener",)})

    def _commit_twice(self) -> None:
        """The template commits v0, then v1, and stops."""
        template = self.fleet.devices["template"]
        self.fleet.start_agent(template)
        for version in (BEFORE, STABLE):
            rollout = self.operator.roll_out(version)
            self.operator.until(template, lambda: ready(template), "ready")
            if template.application is None:
                application(template)
            self.operator.until_runs(template, version)
            self._until_ended(rollout)
        self.fleet.stop_traffic()
        assert template.process is not None
        template.process.terminate()
        template.process.wait(20)

    def weights(self) -> dict[str, Weights]:
        """By version name, of all that may ever answer: not of those that are bad."""
        return {b.version: b.weights for name, b in self.bundles.items() if name not in BAD}

    def approved(self) -> frozenset[str]:
        return frozenset(bundle.version for bundle in self.bundles.values())

    def version(self, name: str) -> str:
        """What the version is called that a schedule calls so."""
        return self.bundles[name].version

    def renew(self) -> None:
        """What the run before has used up: another version in place of the revoked one."""
        for name in sorted(self.revoked):
            number = int(self.bundles[name].version.partition("-")[2] or 0) + 1
            self._ship(name, f"{name}-{number}", 10 + number)
        self.revoked.clear()

    def revoke(self, how: str) -> None:
        """Approvers take the fleeting version away."""
        self.revoked.add(FLEETING)
        reference = f"{MODEL}/{self.version(FLEETING)}"
        silent = How(None, ask=False, show=False)
        mode: Any = how
        revoke(self.client, self.settings, reference, mode, "soak", silent)

    def field(self, name: str) -> Field:
        """A new device with v1 committed and v0 before, not started."""
        place = self.folder / name
        place.mkdir()
        disk = SmallDisk(place / "home")
        disk.mount()
        answer = self.client.post("tokens", {"labels": {"site": "soak"}, "name": name})
        enrol(answer["token"], disk.home, name=name)
        template = self.fleet.devices["template"].home
        for part in ("bundles", "state"):
            shutil.copytree(template / part, disk.home / part, symlinks=True)
        device = Device(name, "soak", disk.home, free_port())
        self.fleet.devices[name] = device
        self.fleet.lay_cable(device)
        made = Field(device, disk, place / "world.json", place / "diary", place / "agent.log")
        write(made.world, World())
        made.diary.touch()
        return made

    def start(self, at: Field) -> None:
        """Start its agent, as a service manager does."""
        assert at.device.cable is not None
        broker = f"127.0.0.1:{at.device.cable.port}"
        arguments = [at.home, at.device.port, broker, at.world, at.diary]
        with at.log.open("ab") as log:
            at.device.process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.agent", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    AGENT_HOME: str(at.home),
                    "OUTRIDER_TEST_ABORT": f"{MODEL}/{ABORTS}:infer",
                },
                start_new_session=True,
            )

    def leave(self, at: Field) -> None:
        """End a device and its runners, whatever state they are in."""
        process = at.device.process
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        for pid in runner_pids(at.home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if at.device.cable is not None:
            at.device.cable.close()
        del self.fleet.devices[at.device.name]
        at.disk.unmount()

    # --- control plane and broker -----------------------------------------------------------------

    def control_pid(self) -> int | None:
        process = self.fleet._control
        return process.pid if process is not None and process.poll() is None else None

    def broker_pid(self) -> int | None:
        with suppress(OSError, ValueError):
            return int((self.settings.broker / PID).read_text())
        return None

    def kill_control_plane(self) -> None:
        process = self.fleet._control
        if process is not None:
            process.kill()
            process.wait()

    def start_control_plane(self) -> None:
        """Returns at once."""
        with (self.folder / "control-plane.log").open("ab") as log:
            self.fleet._control = subprocess.Popen(
                [sys.executable, "-m", "control_plane", "up", f"--home={self.fleet.home}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until_up(self) -> None:
        def up() -> bool:
            try:
                return bool(self.client.get("/v1/health")["ready"])
            except OutriderError:
                return False

        self.until(up, "the control plane is ready")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what, RUN_LIMIT_S, 0.05)

    def _ship(self, name: str, version: str, number: int) -> None:
        offset = 0.5 if name == "x1" else 0.0
        scale = 1 + 0.002 * number
        self.bundles[name] = self.operator.ship(
            version, scale=scale, golden_offset=offset, policy=POLICY
        )

    def _until_ended(self, rollout: str) -> None:
        def ended() -> bool:
            return bool(self.client.get(f"rollouts/{rollout}")["status"] == "completed")

        self.until(ended, f"{rollout} is completed")


def runner_pids(home: Path) -> list[int]:
    """Runners of a device, by their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if b"edge_agent.runner.process" in line and os.fsencode(f"{home}/") in line:
                    found.append(int(entry.name))
    return found
