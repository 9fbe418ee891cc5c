"""Everything that can be set on a device: one frozen object, read once at the start."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from edge_agent.transfer import NetworkRule, networks
from edge_agent.ways import TRANSPORTS, Transport
from protocol.errors import InvalidRequest

DEFAULT_HOME: Final = Path("/var/lib/outrider")
HOME_VARIABLE: Final = "OUTRIDER_AGENT_HOME"
PORT_VARIABLE: Final = "OUTRIDER_AGENT_PORT"
LISTEN_VARIABLE: Final = "OUTRIDER_AGENT_LISTEN"
NETWORKS_VARIABLE: Final = "OUTRIDER_AGENT_NETWORKS"
TRANSPORTS_VARIABLE: Final = "OUTRIDER_AGENT_TRANSPORTS"
MEMORY_VARIABLE: Final = "OUTRIDER_AGENT_MEMORY"
LOAD_VARIABLE: Final = "OUTRIDER_AGENT_LOAD_SECONDS"
REQUEST_VARIABLE: Final = "OUTRIDER_AGENT_REQUEST_SECONDS"
MAX_RUN_PATH: Final = 80
"""Bytes; a Unix socket's whole path has at most 107."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds of wall time after which a runner is ended that has not done what it should."""

    load: float = 30.0
    """For loading all its models, and again for the golden vectors."""
    request: float = 30.0
    """For one request in a model. The death of its runner is charged to that model."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often things happen, in seconds. Development fleets live faster, and say so."""

    turn: float = 1.0
    """Longest time between two looks at the world; messages wake the agent at once."""
    checkpoint: float = 300.0
    """Counts that are in memory only are at most this old."""
    window: float = 3600.0
    min_window_answers: int = 50
    state: float = 3600.0
    resend: float = 30.0
    """First upper bound of the full-jitter delay before records are sent again."""
    reconnect: float = 60.0
    """Longest pause, before jitter, between two tries to reach the broker."""
    frame_timeout: float = 30.0
    want: float = 600.0
    renew: float = 300.0
    """First upper bound of the pause after a renewal of the certificate failed."""


DEVELOPMENT: Final = Intervals(
    turn=0.2,
    checkpoint=1.0,
    window=2.0,
    min_window_answers=0,
    state=60.0,
    resend=2.0,
    reconnect=2.0,
    frame_timeout=3.0,
    want=5.0,
    renew=2.0,
)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where an agent keeps what. Only `run` is lost with a reboot."""

    home: Path
    run: Path

    @property
    def identity(self) -> Path:
        return self.home / "identity"

    @property
    def tuf(self) -> Path:
        return self.home / "tuf"

    @property
    def documents(self) -> Path:
        return self.home / "documents"

    @property
    def outbox(self) -> Path:
        return self.home / "outbox.db"

    @property
    def budget(self) -> Path:
        """Bytes that travelled today."""
        return self.home / "budget.json"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def inference_socket(self) -> Path:
        """The inference server for applications of this device, beside its port on loopback."""
        return self.run / "infer.sock"

    @property
    def inference_token(self) -> Path:
        """What callers from other machines show; made when it is first needed."""
        return self.home / "inference-token"

    @property
    def socket(self) -> Path:
        """Where the technician's commands reach the running agent."""
        return self.run / "agent.sock"


@dataclass(frozen=True, slots=True)
class Settings:
    paths: Paths
    port: int = 8500
    """Of the inference server on loopback."""
    buffer_bytes: int = 32_000_000
    broker: str | None = None
    """`host:port` instead of the one of the enrolment: a bridge at the site."""
    listen: tuple[str, int] | None = None
    """Address and port besides loopback, for callers that show the token."""
    token: Path | None = None
    """File of that token, instead of `<home>/inference-token`."""
    networks: tuple[NetworkRule, ...] = ()
    """What this device may move on which of its networks."""
    transports: tuple[Transport, ...] = TRANSPORTS
    """How payloads may come, the preferred way first."""
    memory_bytes: int | None = None
    """What agent and runners may use together; None: what machine and control groups allow."""
    deadlines: Deadlines = Deadlines()


def read(
    environment: Mapping[str, str],
    home: Path | None = None,
    port: int | None = None,
    broker: str | None = None,
    listen: str | None = None,
    token: Path | None = None,
) -> Settings:
    """Flags win over the environment, the environment over defaults.

    Without `home`, root uses `/var/lib/outrider`, anybody else `~/.outrider-agent`.
    Raises `InvalidRequest` OUT-S120 for a port or address that is none, or networks or transports
    that cannot be read.
    """
    fallback = DEFAULT_HOME if os.geteuid() == 0 else Path.home() / ".outrider-agent"
    chosen = home or Path(environment.get(HOME_VARIABLE) or fallback)
    chosen = chosen.expanduser().absolute()
    named = _number(environment, PORT_VARIABLE, 8500)
    port = port if port is not None else named
    address = _address(listen or environment.get(LISTEN_VARIABLE, ""), port)
    return Settings(
        paths=Paths(chosen, _run_folder(chosen)),
        port=port,
        broker=broker,
        listen=address,
        token=token.absolute() if token is not None else None,
        networks=networks(environment.get(NETWORKS_VARIABLE, "")),
        transports=_transports(environment.get(TRANSPORTS_VARIABLE, "")),
        memory_bytes=_number(environment, MEMORY_VARIABLE, 0) or None,
        deadlines=Deadlines(
            load=_number(environment, LOAD_VARIABLE, 30, least=1),
            request=_number(environment, REQUEST_VARIABLE, 30, least=1),
        ),
    )


def _transports(text: str) -> tuple[Transport, ...]:
    """`http,mqtt`; nothing: the default. Raises `InvalidRequest` OUT-S120."""
    named = [part.strip() for part in text.split(",")] if text else list(TRANSPORTS)
    chosen = tuple(each for name in named for each in TRANSPORTS if each == name)
    if len(chosen) != len(named) or len(set(chosen)) != len(chosen):
        raise InvalidRequest(
            "OUT-S120",
            f"{TRANSPORTS_VARIABLE}: {text!r:.40}",
            do="mqtt,http or http,mqtt, or one of them",
        )
    return chosen


def _number(environment: Mapping[str, str], variable: str, default: int, least: int = 0) -> int:
    try:
        value = int(environment.get(variable, str(default)))
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"{variable}: {error}") from error
    if value < least:
        raise InvalidRequest("OUT-S120", f"{variable}: {value} is less than {least}")
    return value


def _address(text: str, port: int) -> tuple[str, int] | None:
    """`HOST:PORT`, `[IPv6]:PORT`; None for nothing. Raises `InvalidRequest` OUT-S120."""
    if not text:
        return None
    host, _, number = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(host)
        chosen = int(number) if number.isascii() and number.isdigit() else 0
        if not 0 < chosen < 2**16:
            raise ValueError(f"{number!a} is no port")
    except ValueError as error:
        raise InvalidRequest(
            "OUT-S120",
            f"--listen {text[:80]}: {error}",
            do="for instance --listen 192.168.1.20:8501",
        ) from error
    if chosen == port and (address.is_unspecified or address.is_loopback):
        raise InvalidRequest(
            "OUT-S120",
            f"--listen {text}: port {port} on loopback is for this device's own applications",
            do="choose another port",
        )
    return str(address), chosen


def _run_folder(home: Path) -> Path:
    """`<home>/run`, or a private folder of the same name for ever where that path is too long."""
    run = home / "run"
    if len(os.fsencode(run)) <= MAX_RUN_PATH:
        return run
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"outrider-{os.getuid()}-{name}"
