"""What a device says is true of itself, and why something failed: the body of a state record.

Always the *complete* state, never a difference: the record with the highest `order` is the whole
truth, whatever was lost before it. Reasons are codes of the problem catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from protocol.bundle import Facts
from protocol.errors import NotUnderstood
from protocol.histogram import Counts
from protocol.identifiers import Count, Digest, ModelName, digest, model_name

Phase = Literal["idle", "waiting", "fetching", "staged", "probing", "standby", "probation"]
"""How far the device is with the bundle it heads for; `idle` when it runs what it should."""

Result = Literal["committed", "rejected", "rolled_back", "rescued", "degraded"]
"""`degraded`: it stays what was proven here, but its signed rules answer, or nothing does."""

Answering = Literal["model", "rules", "refuses"]
"""What answers requests: the model, the signed rules of its policy, or, as that says, nothing."""

MAX_MODELS = 64
MAX_NOTES = 8
MAX_WHY = 200
MAX_WHO = 64


@dataclass(frozen=True, slots=True)
class Note:
    """What the device remembers of one bundle that it gave up or is trying."""

    reason: str | None = None
    """Problem code; None while nothing is held against the bundle."""
    detail: str = ""
    definite: bool = False
    """Stands until it is lifted; otherwise tried again after `until_ms`."""
    until_ms: Count | None = None
    activated: bool = False
    """Whether it served requests before it was given up."""
    attempt: Count = 0
    allow: Count = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One numbered end of a trial. Numbers never repeat on a device and model."""

    number: Count
    model: ModelName
    digest: Digest
    result: Result
    reason: str | None = None
    detail: str = ""
    rollout: str | None = None
    unexercised: bool = False
    """Committed without enough traffic to judge: never shown as healthy."""
    at_ms: Count = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Frames of the file being fetched."""

    frames: Count
    of: Count


@dataclass(frozen=True, slots=True)
class Shadow:
    """What came of running a candidate beside what is in use, on copies of its requests.

    Histograms are empty while there are fewer rows than are private (`telemetry.PRIVATE_BELOW`).
    Counts begin again when the agent starts, and with another attempt of the rollout.
    """

    digest: Digest
    """The candidate."""
    rows: Count = 0
    """Rows that both answered."""
    agreed: Count = 0
    """Of those: the same predicted class; without classes, outputs within the golden tolerance."""
    latency: Counts = ()
    """The candidate's time per request, at low priority: an upper bound of what it would take."""
    confidence: Counts = ()
    base_confidence: Counts = ()
    """The same rows, by the candidate and by what is in use."""
    failures: Count = 0
    """Requests that the candidate could not answer, its runner's deaths among them."""
    of: Count = 0
    """Rows that are asked for."""

    def __post_init__(self) -> None:
        digest(self.digest)


@dataclass(frozen=True, slots=True)
class Guards:
    """Which trial guards could judge. A guard that is absent is said to be, never passed over."""

    confidence: Literal["active", "no probabilities", "no baseline"] = "no probabilities"
    looks: Count = 0
    requests: Count = 0
    marks: Count = 0
    of: Count = 10


@dataclass(frozen=True, slots=True)
class LocalPin:
    """One model held at one bundle by whoever stands at the device. It overrides no denial."""

    digest: Digest
    until_ms: Count | None = None
    """Trusted time at which it ends by itself; None: when somebody takes it back."""
    why: str = ""
    who: str = ""
    """The user of the device who asked for it."""
    at_ms: Count = 0

    def __post_init__(self) -> None:
        digest(self.digest)
        if len(self.why) > MAX_WHY or len(self.who) > MAX_WHO:
            raise ValueError(f"why has at most {MAX_WHY} characters, who {MAX_WHO}")

    def holds(self, now_ms: int) -> bool:
        return self.until_ms is None or now_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class DriftState:
    """What the device itself makes of its inputs, also offline: the evidence of its detectors that
    they are not the reference's, as natural logarithms."""

    ln_e: float = 0.0
    """The largest of all monitored columns, now."""
    feature: str = ""
    """The column that has it."""
    threshold: float = 15.4
    """From which the device says so."""
    windows: Count = 0
    """Windows that the detectors have seen."""
    settled: bool = False
    """Whether they know by how much this device's rows depend on each other."""
    since_ms: Count = 0
    """Since when the evidence is at or above the threshold; 0: it is not."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model on one device."""

    current: Digest | None = None
    """Committed: proven here."""
    previous: Digest | None = None
    serving: Digest | None = None
    manifest: Digest | None = None
    """Variant of the serving bundle."""
    target: Digest | None = None
    """What it heads for, on the word of `origin`."""
    origin: str = ""
    rollout: str | None = None
    attempt: Count = 0
    phase: Phase = "idle"
    progress: Progress | None = None
    plan_version: Count = 0
    plan_number: Count = 0
    rule: Count | None = None
    since_ms: Count = 0
    """When what serves began to, in trusted time."""
    waiting: str | None = None
    """Problem code of what holds the device back, if anything does."""
    waiting_detail: str = ""
    returns_to: Digest | None = None
    return_needs_download: bool = False
    committed_unexercised: bool = False
    guards: Guards | None = None
    answering: Answering = "model"
    triggers: dict[str, str] = field(default_factory=dict)
    """Per trigger of its policy `active`, or why it cannot judge what serves."""
    notes: dict[Digest, Note] = field(default_factory=dict)
    last: Outcome | None = None
    pinned: LocalPin | None = None
    """What a technician holds it at, whether or not that may run."""
    shadow: Shadow | None = None
    """Of the target, since it runs beside what is in use and until it is committed."""
    drift: DriftState | None = None
    """Of what serves; None while no window of it was closed."""

    def __post_init__(self) -> None:
        for value in (self.current, self.previous, self.serving, self.target, *self.notes):
            if value is not None:
                digest(value)
        if len(self.notes) > MAX_NOTES:
            raise ValueError(f"at most {MAX_NOTES} notes")


@dataclass(frozen=True, slots=True)
class TrustState:
    root: Count = 0
    timestamp: Count = 0
    snapshot: Count = 0
    targets: Count = 0
    models: Count = 0
    rollouts: Count = 0
    fresh_until: str = ""
    """RFC 3339 expiry of the trusted timestamp."""
    models_until: str = ""
    """RFC 3339 expiry of trusted `models`."""


@dataclass(frozen=True, slots=True)
class BufferState:
    records: Count = 0
    bytes: Count = 0
    limit_bytes: Count = 0
    conflicts: Count = 0
    thinned: Count = 0
    """Records whose histograms were given up for room; their counts are kept."""
    merged: Count = 0
    """Records that went into coarser ones for room; only resolution is lost by that."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A signed document that this agent does not run, and why."""

    what: str
    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReportedState:
    """Everything a device reports. `order` decides which of two states is newer."""

    order: Count
    agent: str
    protocol: Count = 1
    features: tuple[str, ...] = ()
    facts: Facts = Facts()
    document_version: Count = 0
    labels: dict[str, str] = field(default_factory=dict)
    models: dict[ModelName, ModelState] = field(default_factory=dict)
    trust: TrustState = TrustState()
    buffer: BufferState = BufferState()
    refused: tuple[Refused, ...] = ()
    clock: str = "floor"
    """What trusted time rests on: synchronised, floor, or a development clock."""
    disk_free_bytes: Count = 0
    counters: dict[str, Count] = field(default_factory=dict)
    """Totals since the agent started: bad messages by problem code, reconnects, answers."""
    dev: bool = False

    def __post_init__(self) -> None:
        if len(self.models) > MAX_MODELS:
            raise NotUnderstood((f"more than {MAX_MODELS} models",))
        for name in self.models:
            model_name(name)
