"""What was observed of one soak run, as data: `invariants` judges it, and tests can make it up.

Moments are seconds of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that was not answered well."""

    began: float
    ended: float
    why: str


@dataclass(frozen=True, slots=True)
class Span:
    begin: float
    end: float

    def meets(self, begin: float, end: float) -> bool:
        return self.begin <= end and begin <= self.end


@dataclass(frozen=True, slots=True)
class RunnerLife:
    """A runner that was promoted at some time."""

    pid: int
    promoted: float
    ended: Span | None
    """It ended somewhere in it."""
    drained: bool
    """It was told to leave, and nobody killed it: its end is no death."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the agent said of itself at one moment."""

    at: float
    counted: int
    """Answers in its outbox."""
    asked: int
    """Answers that the application had got."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Everything that may only rise: of TUF roles, plan, document. 0: not known now."""


@dataclass(frozen=True, slots=True)
class Model:
    """The model as the agent sees it at the end; versions instead of digests."""

    serving: str | None = None
    current: str | None = None
    target: str | None = None
    waiting: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    """What it holds against versions."""
    last: tuple[str, str] = ("", "")
    """Version and reason of the last outcome."""


@dataclass(frozen=True, slots=True)
class Outcome:
    number: int
    result: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    # --- continuously ---
    answered: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)
    """Answers by the version that they name."""
    wrong: tuple[str, ...] = ()
    """Answers that are not what an approved version computes."""
    failures: tuple[Failure, ...] = ()
    runners: tuple[RunnerLife, ...] = ()
    absences: tuple[Span, ...] = ()
    """When no agent ran: killed, and not started again yet."""
    harmless: tuple[Span, ...] = ()
    """When clocks were wrong, or the network or the control plane away: no reason to fail."""
    surprises: tuple[str, ...] = ()
    """Processes that ended although nobody killed them."""
    samples: tuple[Sample, ...] = ()
    peaks: Mapping[str, int] = field(default_factory=dict)
    """Most bytes in memory, by process."""
    # --- at the end ---
    answers_now: bool = True
    approved: frozenset[str] = frozenset()
    """Versions that approvers signed, also those that they revoked."""
    revoked: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    wanted: str = ""
    """What the operators' wishes come to."""
    model: Model = Model()
    forgotten: tuple[str, ...] = ()
    """Wishes that the control plane confirmed and does not know any more."""
    agreed: bool = True
    """Whether the control plane shows the device as the device sees itself."""
    counted: int = 0
    stored: int = 0
    conflicts: int = 0
    held: int = 0
    """Records that the device still keeps because nobody confirmed them."""
    loss_said: bool = False
    """Whether the device says that it lost records with a damaged outbox."""
    outcomes: tuple[Outcome, ...] = ()
    """In the device's journal."""
    outcomes_stored: frozenset[int] = frozenset()
    """Numbers of those that the control plane has."""
    verdicts: tuple[str, ...] = ()
    """Verdicts that are not the same when they are judged again from their inputs."""
    leaks: tuple[str, ...] = ()
    """Where raw inputs were found."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Messages that everybody gets, by kind; what only this device gets is not among them."""
    frame_bytes: int = 0
    payload_bytes: int = 0
    """Of all payloads of the fleet, each once."""
    restarts: int = 0
    """Of control plane and broker."""
    wishes: int = 0
    lasted_s: float = 0.0
