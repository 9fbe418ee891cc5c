"""What the supervisor sees of its runners, and what it gets from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_agent.room import Need
from edge_agent.runner.sample import Sample as Sample
from protocol.errors import Failed
from protocol.identifiers import Count, Digest
from protocol.reported import Answering, Shadow
from protocol.telemetry import DriftWindow, InferenceWindow

Role = Literal["standby", "serving", "draining", "parked"]
"""parked: it served, is loaded, answers nobody, and can be promoted again at once."""

Door = Literal["loopback", "socket", "network"]
"""Where callers come from: this machine's TCP, its Unix socket, or an address that is reached from
elsewhere and asks for a token."""


@dataclass(frozen=True, slots=True)
class Load:
    """One bundle to hold: `digest` of its index, `manifest` of the variant that lies at `path`."""

    model: str
    digest: Digest
    manifest: Digest
    path: Path
    need: Need = field(default=Need(), compare=False)
    """Memory that it takes; a runner that was found again does not know it."""
    answering: Answering = "model"
    """What is to answer: the model, or, without loading that, its signed rules, or nothing."""


@dataclass(frozen=True, slots=True)
class RunnerView:
    id: str
    pid: int
    role: Role
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True)
class Death:
    """A runner ended that nobody asked to end.

    `model` and `digest` name what it was busy with when it died, None if it was with nothing.
    `status` is its exit status or minus the signal that ended it, None if that cannot be known
    (it was started by an earlier supervisor).
    """

    runner: str
    role: Role
    status: int | None
    model: str | None
    digest: Digest | None
    detail: str


@dataclass(frozen=True, slots=True)
class ModelWindows:
    """Counts of one model. `inference.answers` are requests answered with 200: `errors` and
    `refused` come on top of them. `window_s` and `window_rows` are those of its profile."""

    model: str
    digest: Digest
    inference: InferenceWindow
    drift: DriftWindow
    window_s: float = 3600.0
    window_rows: Count = 50


@dataclass(frozen=True, slots=True)
class Take:
    """Counts since the last acknowledged take of this runner.

    Without windows there was nothing to count: `seq` is then that of the last take, and there is
    nothing to commit, unless it is `final`.
    """

    runner: str
    seq: int
    windows: tuple[ModelWindows, ...]
    final: bool


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What came of running copied requests in a standby, since it was loaded."""

    shadow: Shadow
    hungry: bool
    """Whether more of them are welcome."""


class RunnerFailed(Failed):
    """A runner could not do what it was asked; `model` and `digest` say with which model."""

    def __init__(
        self, code: str, why: str, *, model: str | None = None, digest: Digest | None = None
    ) -> None:
        super().__init__(code, why)
        self.model = model
        self.digest = digest
