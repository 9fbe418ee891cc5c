"""A Mosquitto of this machine for one fleet: found, configured, started, reloaded, stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from control_plane.mosquitto import (
    Certificates,
    Listener,
    access_list,
    configuration,
    control_identity,
)
from protocol.errors import Unavailable
from protocol.identifiers import FleetName

__all__ = ["Broker", "Certificates", "access_list", "control_identity", "find"]

VARIABLE: Final = "OUTRIDER_MOSQUITTO"
_PLACES: Final = (
    "/usr/sbin/mosquitto",
    "/usr/local/sbin/mosquitto",
    "/opt/homebrew/sbin/mosquitto",
    "build/mosquitto/mosquitto",
)
START_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 10.0


def find() -> Path:
    """The mosquitto of this machine. Raises `Unavailable` (OUT-N105)."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise Unavailable("OUT-N105", f"{VARIABLE} is {chosen}, which is not a program")
        return Path(chosen).absolute()
    on_path = shutil.which("mosquitto")
    for place in (on_path, *_PLACES):
        if place and os.access(place, os.X_OK):
            return Path(place).absolute()
    raise Unavailable("OUT-N105", f"not on PATH, not in {', '.join(_PLACES)}")


class Broker:
    """One Mosquitto process with its files in `directory`."""

    def __init__(
        self,
        directory: Path,
        fleet: FleetName,
        certificates: Certificates,
        *,
        host: str = "127.0.0.1",
        port: int,
        autosave_s: int = 30,
        program: Path | None = None,
        others: Sequence[Listener] = (),
    ) -> None:
        """`others`: further fleets that share the process; their ACL files are written here."""
        self.directory = directory
        self.fleet = fleet
        self.certificates = certificates
        self.host = host
        self.port = port
        self.autosave_s = autosave_s
        self.others = others
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        return self.directory / "mosquitto.log"

    @property
    def listeners(self) -> tuple[Listener, ...]:
        acl = self.directory / f"acl-{self.fleet}"
        own = Listener(self.fleet, self.port, self.certificates, acl, self.host)
        return (own, *self.others)

    def write_files(self) -> Path:
        """Configuration and ACLs; the path of the first."""
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        for each in self.listeners:
            each.acl.write_text(access_list(each.fleet))
        path = self.directory / "mosquitto.conf"
        # Started by root, Mosquitto becomes a user who can read neither keys nor data.
        user = "root" if os.geteuid() == 0 else None
        path.write_text(
            configuration(self.listeners, data=data, autosave_s=self.autosave_s, user=user)
        )
        return path

    def start(self) -> None:
        """Start it and wait until it accepts connections.

        Raises `Unavailable`: no Mosquitto here (OUT-N105), or the port is taken (OUT-N106), or it
        ended, with its own words.
        """
        program = self._program or find()
        path = self.write_files()
        self._check_port()
        with self.log.open("ab") as log:
            said_before = log.tell()
            self._process = subprocess.Popen(
                [program, "-c", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _accepts(self.host, self.port):
            if not self.running or time.monotonic() > deadline:
                self.stop()
                raise Unavailable(
                    "OUT-N105", f"mosquitto did not start: {self._words(said_before)}"
                )
            time.sleep(0.02)

    def reload(self) -> None:
        """Have it read ACL, CRL and certificates again. Connections that are open stay open."""
        if self._process is not None and self.running:
            self._process.send_signal(1)

    def stop(self) -> None:
        """End it in order, so that it saves what is retained."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a power cut does: what was not saved yet is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise Unavailable("OUT-N106", f"{self.host}:{self.port}") from error

    def _words(self, said_before: int) -> str:
        text = self.log.read_bytes()[said_before:].decode(errors="replace")
        # Each line begins with a time in seconds; the first error names the cause.
        lines = [line.partition(": ")[2] or line for line in text.splitlines()]
        errors = [line for line in lines if not line.startswith("Warning")]
        return "; ".join(errors[:2]) or "it said nothing"


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
