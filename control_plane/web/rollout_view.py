"""What the API says of rollouts: shapes of answers, and of what is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ConfigDict

from control_plane.rollout.spec import Status
from protocol.identifiers import DeviceId, Digest

Verdict = Literal["pass", "fail", "insufficient", "inconclusive"]

EXAMPLE: Final = {
    "version": "digits/v2",
    "to": "site = leeds",
    "waves": ["12", {"percent": 25, "soak": "24h", "per": "site"}, "100 %"],
    "soak": "24h",
    "error_condition": {"bad": "> 10 %", "denominator": "activated", "min_completed": 10},
    "gates": {"error_rate": {"ratio": 1.2}, "confidence": {"sd": 0.05}},
    "expect_devices": 307,
}


@dataclass(frozen=True, slots=True)
class Wave:
    """`devices` are planned, with those of earlier waves; `counts` are of this wave alone."""

    wave: int
    state: Literal["waiting", "running", "done"]
    devices: int
    soak_seconds: float
    approve: bool
    """Whether it begins only once a person says so."""
    counts: dict[str, int]
    began: str | None
    ended: str | None
    verdict: Verdict | None
    """The last one on this wave."""
    sentence: str
    evidence: Digest | None


@dataclass(frozen=True, slots=True)
class GateRow:
    """One score after one exposure: how much worse than control it is, and what is allowed.

    A *guard* has to be shown to be within, a *watch* can only fail. `seen` is an estimate, null
    where nobody is to compare. Evidence is the natural logarithm of an e-value: at the threshold
    a fine model is called worse; `ln_within` from 3 on shows that the margin is kept.
    """

    series: str
    metric: str
    part: int | None
    """The class, of a class mix."""
    sign: int
    exposure_seconds: float
    unit: Literal["ratio", "sd", "points", "psi"]
    allowed: float | None
    seen: float | None
    role: Literal["guard", "watch"]
    state: Literal["worse", "within", "open", "no scale", "no control", "no data"]
    candidates: int
    controls: int
    candidates_of: int
    controls_of: int
    ln_evidence: float | None
    ln_threshold: float | None
    ln_within: float | None


@dataclass(frozen=True, slots=True)
class Control:
    """Devices that wait for a later wave or are held back; `reporting`: heard lately."""

    version: str | None
    devices: int
    reporting: int


@dataclass(frozen=True, slots=True)
class Soak:
    """Of the current wave. `since` null: too few devices have activated for it to begin."""

    seconds: float
    since: str | None
    left_seconds: float | None


@dataclass(frozen=True, slots=True)
class ShadowProgress:
    """Of the current wave. `with_rows` of `devices` have compared as many rows as are wanted;
    `rows` and `agreed` are of those."""

    active: bool
    """Whether devices of the wave wait for it; false: they may activate."""
    rows_wanted: int
    agreement_wanted: float
    devices: int
    with_rows: int
    rows: int
    agreed: int


@dataclass(frozen=True, slots=True)
class AwayDevice:
    device: str
    """Its local name."""
    last_contact: str | None
    silent_seconds: float | None


@dataclass(frozen=True, slots=True)
class NotReached:
    """Devices of the waves so far that have not said that they know of it; `newest`: a few of
    them, those that were heard last."""

    devices: int
    newest: list[AwayDevice]


@dataclass(frozen=True, slots=True)
class WaitsFor:
    """A person has to decide: `code` says what. `wave` would begin, or activate what has run beside
    so far; null: the rollout would complete."""

    code: str
    wave: int | None
    why: str
    help: str


@dataclass(frozen=True, slots=True)
class Returning:
    """After an abort: devices that had activated, those of them that serve another version, and
    those that have not been heard since."""

    confirmed: int
    of: int
    not_linked: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """`counts` are of the waves that have begun: targeted contains reached contains staged
    contains activated, the others are ends. `targeted` is of all devices."""

    id: str
    model: str
    version: str
    over: str | None
    """The version that was stable before."""
    candidate: Digest
    to: str
    status: Status
    attempt: int
    wave: int
    """From 1; 0 before the first."""
    waves: list[Wave]
    targeted: int
    held: int
    """Devices that are held back to compare with."""
    excluded: dict[str, int]
    """Devices that match and are no targets, by reason."""
    verdict: Verdict | None
    verdict_id: str | None
    sentence: str
    """What the verdict says, in words."""
    evidence: Digest | None
    """Of the record that the newest verdict rests on."""
    gates: list[GateRow]
    counts: dict[str, int]
    reasons: dict[str, int]
    """Problem codes behind devices that failed, rolled back or refused."""
    control: Control
    soak: Soak | None
    shadow: ShadowProgress | None
    not_reached: NotReached
    waits_for: WaitsFor | None
    why: str
    """Of a pause or of the end."""
    superseded_by: str | None
    plan: int | None
    """Number of the last plan, for people."""
    started: str
    ended: str | None
    kept: bool | None = None
    """Once aborted: whether devices that run it keep it."""
    returning: Returning | None = None
    pending: int | None = None
    """Once completed: devices that get it when they return."""


@dataclass(frozen=True, slots=True)
class RolloutDetails(Rollout):
    spec: dict[str, Any] | None = None
    """What was asked for, with the waves that were decided when it started."""


@dataclass(frozen=True, slots=True)
class PreviewWave:
    """`devices` with those of earlier waves, `more` of its own; `linked` of those now."""

    wave: int
    devices: int
    more: int
    linked: int
    sites: dict[str, int]
    soak_seconds: float
    approve: bool
    earliest: str
    """When it begins if every verdict is pass and nobody has to be waited for."""


@dataclass(frozen=True, slots=True)
class Received:
    """Devices that receive so many bytes each; `base`: the version that makes it less."""

    base: str | None
    devices: int
    bytes_each: int


@dataclass(frozen=True, slots=True)
class PreviewPayload:
    file: Digest
    payload: Digest | None
    base: Digest | None
    size_bytes: int
    devices: int


@dataclass(frozen=True, slots=True)
class InTheWay:
    rollout: str
    devices: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What starting it would do now."""

    model: str
    version: str
    over: str | None
    to: str
    matched: int
    targeted: int
    excluded: dict[str, int]
    linked: dict[str, int]
    """Targets heard lately (now), within 30 days, or not."""
    held: int
    by: str | None
    """The label that `sites` are values of."""
    waves: list[PreviewWave]
    bundle_size_bytes: int
    published_bytes: int | None
    """Once, for any number of devices; null where the bundle cannot be looked into."""
    received_bytes: int | None
    """By all devices together."""
    received: list[Received]
    payloads: list[PreviewPayload]
    returns: dict[str, int]
    """Targets that would return from their own disk, with a download, or to nothing."""
    in_the_way: list[InTheWay]
    """Rollouts that have some of these devices."""
    detects: list[dict[str, Any]]
    """Per wave what it can and cannot show."""
    sentences: list[str]
    """The same of the first wave, in words."""
    estimated: bool | None = None
    """Whether something is not encoded yet, so that less will travel."""


@dataclass(frozen=True, slots=True)
class ReturnPreview:
    """What a return would do now. Of `targeted`, `changing` run another version or may soon, and
    `downloading` do not have this one on their disk."""

    model: str
    version: str
    to: str
    matched: int
    targeted: int
    excluded: dict[str, int]
    changing: int
    downloading: int
    supersedes: list[str]
    """Rollouts that would end with it."""


@dataclass(frozen=True, slots=True)
class Member:
    device: DeviceId
    wave: int
    phase: str
    since: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Members:
    items: list[Member]


@dataclass(frozen=True, slots=True)
class Why:
    __pydantic_config__ = ConfigDict(extra="forbid")
    why: str = ""


@dataclass(frozen=True, slots=True)
class Abort:
    __pydantic_config__ = ConfigDict(extra="forbid")
    why: str = ""
    keep: bool = False
    """Devices that run the candidate keep it; no other gets it."""


UNSAID: Final = Why()
RETURNING: Final = Abort()


@dataclass(frozen=True, slots=True)
class Return:
    __pydantic_config__ = ConfigDict(extra="forbid")
    version: str
    to: str = "all"
    why: str = ""
    expect_devices: int | None = None
    """How many targets the preview showed; another number now is refused."""


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """What a verdict rests on, in short. `previous`: the record before it, null for the first."""

    digest: Digest
    number: int
    at: str
    wave: int
    verdict: Verdict
    id: str
    sentence: str
    previous: Digest | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """The verdict computed again from its record. `same`: it says the same as what is recorded."""

    same: bool
    said: str
    verdict: Verdict
    id: str
    sentence: str
    rules: str
    """Version of the rules that it was computed with now."""
    recorded_rules: str
    code: str
    """Version of the program that computed it now."""


@dataclass(frozen=True, slots=True)
class VerdictExplained:
    record: EvidenceRecord
    counts: dict[str, int]
    """Devices of the wave by how far they were."""
    gates: list[GateRow]
    inputs: dict[str, Any]
    """All that the verdict was computed from."""
    replayed: Replayed
