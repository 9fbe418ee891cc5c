"""Everything that can be set on a device: one frozen object, read once at the start."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import InvalidRequest

DEFAULT_HOME: Final = Path("/var/lib/outrider")
HOME_VARIABLE: Final = "OUTRIDER_AGENT_HOME"
PORT_VARIABLE: Final = "OUTRIDER_AGENT_PORT"
MAX_RUN_PATH: Final = 80
"""Bytes; a Unix socket's whole path has at most 107."""


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
    def lock(self) -> Path:
        return self.run / "lock"

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


def read(
    environment: Mapping[str, str],
    home: Path | None = None,
    port: int | None = None,
    broker: str | None = None,
) -> Settings:
    """Flags win over the environment, the environment over defaults.

    Without `home`, root uses `/var/lib/outrider`, anybody else `~/.outrider-agent`.
    Raises `InvalidRequest` OUT-S120 for a port that is none.
    """
    fallback = DEFAULT_HOME if os.geteuid() == 0 else Path.home() / ".outrider-agent"
    chosen = home or Path(environment.get(HOME_VARIABLE) or fallback)
    chosen = chosen.expanduser().absolute()
    try:
        named = int(environment.get(PORT_VARIABLE, "8500"))
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"{PORT_VARIABLE}: {error}") from error
    return Settings(
        paths=Paths(chosen, _run_folder(chosen)),
        port=port if port is not None else named,
        broker=broker,
    )


def _run_folder(home: Path) -> Path:
    """`<home>/run`, or a private folder of the same name for ever where that path is too long."""
    run = home / "run"
    if len(os.fsencode(run)) <= MAX_RUN_PATH:
        return run
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"outrider-{os.getuid()}-{name}"
