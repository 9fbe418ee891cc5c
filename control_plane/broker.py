"""A Mosquitto for one fleet: found, configured, started, stopped.

Mutual TLS; the certificate's common name is user name and client id. A device reads what is for
everybody and its own topics, and writes only its own. Mosquitto confirms what it then drops for
want of a right, so nothing may be concluded from a PUBACK.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import InvalidRequest, Unavailable
from protocol.identifiers import FleetName, fleet_name
from protocol.topics import Topics

VARIABLE: Final = "OUTRIDER_MOSQUITTO"
_PLACES: Final = (
    "/usr/sbin/mosquitto",
    "/usr/local/sbin/mosquitto",
    "/opt/homebrew/sbin/mosquitto",
    "build/mosquitto/mosquitto",
)
MAX_PACKET: Final = 2_200_000
"""Bytes: the largest TUF role (2 MiB) with its topic."""
START_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files that the broker reads: who it is, and whose certificates it accepts."""

    certificate: Path
    key: Path
    client_ca: Path
    revoked: Path | None = None
    """CRL. An expired one refuses everybody, so it is renewed daily."""


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


def control_identity(fleet: FleetName) -> str:
    """Common name of the control plane's certificate.

    Raises `InvalidRequest` for the one fleet in which a device could carry the same name:
    `outrider-control-outrider` would be device `control-outrider` of fleet `outrider`.
    """
    if fleet_name(fleet) == "outrider":
        raise InvalidRequest("OUT-S120", "a fleet cannot be called outrider")
    return f"outrider-control-{fleet}"


def access_list(fleet: FleetName) -> str:
    """Mosquitto's ACL file. `%u` is the user name: a whole device id."""
    prefix = Topics(fleet).prefix
    readable = ("tuf/#", "plans/+", "deny", "manifests/#", "payloads/#", "frames/#", "ingest/+")
    return "\n".join(
        [
            *(f"pattern read {prefix}{topic}" for topic in readable),
            f"pattern read {prefix}devices/%u/#",
            f"pattern write {prefix}up/+/%u/#",
            f"pattern write {prefix}presence/%u",
            "",
            f"user {control_identity(fleet)}",
            f"topic readwrite {prefix}#",
            "",
        ]
    )


def configuration(
    directory: Path,
    host: str,
    port: int,
    certificates: Certificates,
    *,
    autosave_s: int,
    as_root: bool,
) -> str:
    """mosquitto.conf. What is retained reaches the disk at most `autosave_s` seconds late."""
    lines = [
        f"listener {port} {host}",
        f"certfile {certificates.certificate.absolute()}",
        f"keyfile {certificates.key.absolute()}",
        f"cafile {certificates.client_ca.absolute()}",
        *([f"crlfile {certificates.revoked.absolute()}"] if certificates.revoked else []),
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        # Without this, a device could take another's client id and so end its connection.
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {directory.absolute() / 'acl'}",
        "persistence true",
        f"persistence_location {directory.absolute() / 'data'}/",
        f"autosave_interval {autosave_s}",
        "persistent_client_expiration 30d",
        f"max_packet_size {MAX_PACKET}",
        "max_inflight_messages 500",
        "max_queued_messages 20000",
        "set_tcp_nodelay true",
        "sys_interval 0",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        # Started by root, Mosquitto becomes a user who can read neither keys nor data.
        *(["user root"] if as_root else []),
    ]
    return "\n".join(lines) + "\n"


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
    ) -> None:
        self.directory = directory
        self.fleet = fleet
        self.certificates = certificates
        self.host = host
        self.port = port
        self.autosave_s = autosave_s
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

    def write_files(self) -> Path:
        """Configuration and ACL; the path of the first."""
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        (self.directory / "acl").write_text(access_list(self.fleet))
        path = self.directory / "mosquitto.conf"
        path.write_text(
            configuration(
                self.directory,
                self.host,
                self.port,
                self.certificates,
                autosave_s=self.autosave_s,
                as_root=os.geteuid() == 0,
            )
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
