"""A whole fleet on one machine: control plane, broker and agents, each a real process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from control_plane.access import access
from control_plane.broker import control_identity
from control_plane.client import Client
from control_plane.demo.cable import Cable
from control_plane.demo.traffic import Application
from control_plane.fleet.authority import Authority
from control_plane.link import Link
from control_plane.settings import Settings, read
from control_plane.up import PID, end_orphan
from protocol.errors import Failed, OutriderError
from protocol.link import Address

START_S: Final = 40.0
LOOK_S: Final = 0.1
AGENT_HOME: Final = "OUTRIDER_AGENT_HOME"
"""The agent's own variable; its runners inherit it, so they can be found by it."""
SAVE_S: Final = 0.5
"""For the broker to write what it retains."""


@dataclass(slots=True)
class Device:
    """One agent with its own state folder, and the application beside it."""

    name: str
    site: str
    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    cable: Cable | None = None
    application: Application | None = None

    @property
    def log(self) -> Path:
        return self.home / "agent.log"


@dataclass(slots=True)
class Fleet:
    """Use as a context manager: on leaving, everything that it started is stopped."""

    folder: Path
    devices: dict[str, Device] = field(default_factory=dict)
    _control: subprocess.Popen[bytes] | None = None
    _client: Client | None = None

    @property
    def home(self) -> Path:
        return self.folder / "control"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- control plane ----------------------------------------------------------------------------

    def initialise(self, approvers: Sequence[str] = ()) -> None:
        """Keys, certificates and configuration of a development fleet, on free ports.

        With names of approvers, more than half of them must sign.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--api-port=0", "--broker-port=0", f"--approvers={','.join(approvers)}"]
        self._command("control_plane", "init", "--dev", f"--home={self.home}", *options)

    def start_control_plane(self) -> None:
        with (self.folder / "control-plane.log").open("ab") as log:
            self._control = subprocess.Popen(
                [sys.executable, "-m", "control_plane", "up", f"--home={self.home}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._is_up, "the control plane answers", START_S)

    def stop_control_plane(self) -> None:
        """In order, and with it the broker, which saves what it retains."""
        control = self._started()
        control.terminate()
        _end(control)
        self._control = None

    def kill_control_plane(self, forget: Sequence[str] = ()) -> None:
        """SIGKILL to the control plane, then to the broker: what a power cut does to them.

        `forget`: retained topics that the broker has lost when it comes back, as one does that
        dies before it has saved. That is made certain here instead of left to the moment.
        """
        control = self._started()
        control.kill()
        control.wait()
        broker = int((self._settings().broker / PID).read_text())
        if forget:
            self._clear(forget)
            os.kill(broker, signal.SIGUSR1)  # save what is left
            time.sleep(SAVE_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(broker, signal.SIGKILL)
        self._control = None

    def _clear(self, topics: Sequence[str]) -> None:
        settings = self._settings()
        tls = Authority(settings.ca, settings.fleet).control
        connected = threading.Event()
        link = Link(
            Address(settings.broker_host, settings.broker_port, tls),
            control_identity(settings.fleet),
            on_message=lambda *_: None,
            on_state=lambda up, _: connected.set() if up else None,
        )
        link.start()
        connected.wait(START_S)
        for topic in topics:
            link.publish(topic, b"", retain=True)
        link.confirmed(START_S)
        link.stop()

    def _settings(self) -> Settings:
        return read({}, self.home)

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(access(self.home))
        return self._client

    def _is_up(self) -> bool:
        if self._started().poll() is not None:
            log = self.folder / "control-plane.log"
            raise Failed("OUT-S160", f"the control plane ended; look at {log}")
        try:
            return bool(self.client.get("/v1/health")["ready"])
        except OutriderError:
            return False

    def _started(self) -> subprocess.Popen[bytes]:
        if self._control is None:
            raise Failed("OUT-N104", "the control plane is not started")
        return self._control

    # --- devices ----------------------------------------------------------------------------------

    def enrol(self, sites: Mapping[str, Sequence[str]]) -> None:
        """Enrol devices, each with a token and a key of its own; `sites` maps site to names."""
        enrolling: list[tuple[Device, subprocess.Popen[bytes]]] = []
        for site, names in sites.items():
            for name in names:
                home = self.folder / name
                home.mkdir(parents=True, exist_ok=True)
                answer = self.client.post("tokens", {"labels": {"site": site}, "name": name})
                token = home / "token"
                token.write_text(answer["token"])
                device = Device(name, site, home, free_port())
                self.devices[name] = device
                arguments = [f"--token-file={token}", f"--name={name}", f"--home={home}"]
                enrolling.append((device, self._agent(device, "enrol", *arguments)))
        for device, process in enrolling:
            if process.wait(START_S) != 0:
                raise Failed("OUT-D403", f"{device.name} did not enrol; look at {device.log}")

    def start_agents(self) -> None:
        """Returns when every device has said what it is, and has read that back.

        What a device is becomes labels; a device whose labels change after a rollout has begun
        joins it last.
        """
        for device in self.devices.values():
            self.start_agent(device)
        wait_until(self._all_known, "every device has reported", START_S)

    def _all_known(self) -> bool:
        for name in self.devices:
            shown = self.client.get(f"devices/{name}")
            document, labels = shown["document"], shown["device"]["labels"]
            if "fact/arch" not in labels or document["read"] < document["version"]:
                return False
        return True

    def start_agent(self, device: Device) -> None:
        arguments = [f"--home={device.home}", f"--port={device.port}"]
        if device.cable is not None:
            arguments.append(f"--broker=127.0.0.1:{device.cable.port}")
        device.process = self._agent(device, "run", *arguments)

    def lay_cable(self, device: Device) -> Cable:
        """From its next start on, the device reaches the broker through a cable."""
        settings = self._settings()
        device.cable = Cable((settings.broker_host, settings.broker_port))
        return device.cable

    def status(self, device: Device) -> dict[str, Any] | None:
        """What `outrider-agent status` says; None while the agent does not answer."""
        result = subprocess.run(
            [sys.executable, "-m", "edge_agent", "status", f"--home={device.home}", "--json"],
            capture_output=True,
            check=False,
        )
        answer = json.loads(result.stdout) if result.stdout else None
        return answer if isinstance(answer, dict) else None

    def _agent(self, device: Device, *arguments: str) -> subprocess.Popen[bytes]:
        with device.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "edge_agent", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, AGENT_HOME: str(device.home)},
                start_new_session=True,
            )

    def wait(self) -> None:
        """As long as the control plane runs."""
        self._started().wait()

    # --- the end ----------------------------------------------------------------------------------

    def stop_traffic(self) -> None:
        for device in self.devices.values():
            if device.application is not None:
                device.application.stop()

    def stop(self) -> None:
        """Agents stop cleanly, and with them their runners; then the control plane.

        Runners of an agent that was killed, and the broker of such a control plane, end as well.
        """
        self.stop_traffic()
        for device in self.devices.values():
            if device.process is not None:
                device.process.terminate()
        for device in self.devices.values():
            if device.process is not None:
                _end(device.process)
            if device.cable is not None:
                device.cable.close()
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._control is not None:
            self.stop_control_plane()
        end_orphan(self.home / "broker")
        for pid in self._strays():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _strays(self) -> list[int]:
        """Processes of our devices that still live: a runner outlives an agent that is killed."""
        homes = {f"{AGENT_HOME}={device.home}".encode() for device in self.devices.values()}
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and homes & {
                    *(entry / "environ").read_bytes().split(b"\0")
                }:
                    found.append(int(entry.name))
        return found

    def _command(self, module: str, *arguments: str) -> None:
        result = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise Failed("OUT-S160", f"{' '.join(arguments)}: {result.stderr.strip()}")


def wait_until(
    condition: Callable[[], bool], what: str, limit_s: float, look_s: float = LOOK_S
) -> None:
    """Return when `condition()` holds. Raises `Failed` (OUT-D313) when it does not in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failed("OUT-D313", f"waited {limit_s:g} s until {what}")
        time.sleep(look_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to stop; its whole group is killed if it does not."""
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
