"""What the devices of one model should run: the signed plan, and `resolve()`, its only reading.

Pure: both sides of the wire call `resolve()`, so the control plane predicts what a device does.
It decides *which bundles a device may head for, in which order*. It does not decide whether
trust is fresh enough to start one, whether this device has backed off for a while, or how to get
there: that is reconciliation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta

from protocol.approval import Approvals
from protocol.bundle import Facts, unfit
from protocol.device import DeviceDocument, Pin, TransferWindow
from protocol.identifiers import (
    Count,
    DeviceId,
    Digest,
    FleetName,
    ModelName,
    digest,
    fleet_name,
    local_name,
    model_name,
)
from protocol.membership import EVERYONE, check_salt, position
from protocol.selector import Selector, matches

MAX_RULES: Final = 64
MAX_LISTED: Final = 200
MAX_BY_LABEL: Final = 500
MAX_WINDOWS: Final = 64

Threshold = Annotated[int, Meta(ge=0, le=EVERYONE)]


@dataclass(frozen=True, slots=True)
class Wave:
    """Who is in: a threshold for positions, with small tables. Exclude beats include beats it."""

    threshold: Threshold
    include: tuple[str, ...] = ()
    """Local device names."""
    exclude: tuple[str, ...] = ()
    by_label: str | None = None
    """Label whose value selects a threshold of `threshold_by`."""
    threshold_by: dict[str, Threshold] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.include) > MAX_LISTED or len(self.exclude) > MAX_LISTED:
            raise ValueError(f"a wave lists at most {MAX_LISTED} devices")
        if len(self.threshold_by) > MAX_BY_LABEL:
            raise ValueError(f"a wave has at most {MAX_BY_LABEL} thresholds")
        for name in (*self.include, *self.exclude):
            local_name(name)

    def threshold_for(self, labels: Mapping[str, str]) -> int:
        if self.by_label is None:
            return self.threshold
        return self.threshold_by.get(labels.get(self.by_label, ""), self.threshold)


@dataclass(frozen=True, slots=True)
class HealthOverride:
    """Makes a trial stricter than the bundle's policy; a laxer value has no effect."""

    health_window_s: Count | None = None
    min_requests: Count | None = None
    error_share: float | None = None
    crashes: Count | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """A candidate on its way through the waves of one rule."""

    id: str
    attempt: Count
    candidate: Digest
    salt: str
    as_of: Count
    """A device whose labels changed after this number is in only when everyone is."""
    wave: Wave
    holdback: Threshold = 0
    """Size of the control cohort at the upper end of positions."""
    require_shadow: bool = False
    """The candidate runs beside what is in use, is compared with it, and answers nobody."""
    window: tuple[TransferWindow, ...] = ()
    """Maintenance windows, in the device's local time, in which a trial may begin; none: always."""
    plan_max_age_s: Count = 86_400
    health: HealthOverride = HealthOverride()
    shadow_rows: Count = 0
    """Rows to compare while `require_shadow` is set; 0: as many as the bundle's policy wants of a
    trial."""

    def __post_init__(self) -> None:
        digest(self.candidate)
        check_salt(self.salt)
        if not 0 < len(self.id) <= 96:
            raise ValueError("a rollout has an id of at most 96 characters")
        if len(self.window) > MAX_WINDOWS:
            raise ValueError(f"a rollout has at most {MAX_WINDOWS} maintenance windows")

    def takes(self, device: DeviceId, name: str, labels: Mapping[str, str], since: int) -> bool:
        """Whether a device that the rule selects is in the current wave."""
        if name in self.wave.exclude:
            return False
        if name in self.wave.include:
            return True
        threshold = self.wave.threshold_for(labels)
        if since > self.as_of:
            return threshold == EVERYONE
        place = position(self.salt, device)
        return place < threshold and place < EVERYONE - self.holdback


@dataclass(frozen=True, slots=True)
class Rule:
    """Devices of a selector run `stable`, except those that its rollout takes."""

    selector: Selector | None
    stable: Digest | None
    rollout: Rollout | None = None

    def __post_init__(self) -> None:
        if self.stable is not None:
            digest(self.stable)
        elif self.rollout is None:
            raise ValueError("a rule has a stable bundle or a rollout")


@dataclass(frozen=True, slots=True)
class Ended:
    """The last rollout that ended, so that devices that left its selector learn of it."""

    rollout: str
    candidate: Digest
    end: Literal["completed", "aborted"]


@dataclass(frozen=True, slots=True)
class Plan:
    """TUF target `rollouts/plan-<model>`. `number` is for people, `version` for security."""

    fleet: FleetName
    model: ModelName
    version: Count
    number: Count
    rules: tuple[Rule, ...] = ()
    ended: Ended | None = None
    must_understand: tuple[str, ...] = ("plan/1", "selector/1")

    def __post_init__(self) -> None:
        fleet_name(self.fleet)
        model_name(self.model)
        if len(self.rules) > MAX_RULES:
            raise ValueError(f"a plan has at most {MAX_RULES} rules")


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """`custom` of a plan's TUF target: whom it concerns (None: everyone)."""

    selector: Selector | None = None
    must_understand: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Denied:
    model: ModelName
    digest: Digest
    why: str = ""


@dataclass(frozen=True, slots=True)
class DenyList:
    """TUF target `rollouts/deny-list`: operators take away quickly; they can never add."""

    fleet: FleetName
    version: Count
    denied: tuple[Denied, ...] = ()
    must_understand: tuple[str, ...] = ("deny/1",)

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset(entry.digest for entry in self.denied)


# --- reading it ---------------------------------------------------------------------------------

Origin = Literal["technician", "pin", "rollout", "ended", "stable", "fallback"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle that the device may head for, and on whose word."""

    digest: Digest
    origin: Origin
    rollout: str | None = None
    attempt: int = 0
    plan_max_age_s: int = 86_400
    health: HealthOverride = HealthOverride()
    rule: int | None = None
    require_shadow: bool = False
    shadow_rows: int = 0
    window: tuple[TransferWindow, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A candidate that is out, with the reason that a technician is told."""

    digest: Digest
    origin: Origin
    why: Literal["not approved", "revoked", "denied", "unfit", "denied here"]


@dataclass(frozen=True, slots=True)
class Local:
    """What only the device knows."""

    now_ms: int
    facts: Facts = Facts()
    pin: Pin | None = None
    """The technician's."""
    denied: frozenset[Digest] = frozenset()
    """Denials of this device that nothing has lifted yet."""
    current: Digest | None = None
    previous: Digest | None = None
    trial: Digest | None = None
    """A candidate that is active but not committed."""
    fallback: Digest | None = None
    """Of the signed policy of what runs."""
    instead: Digest | None = None
    """The same, once what runs has stopped working well and its policy says to go there."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where to head, first choice first; none means: keep what runs."""

    candidates: tuple[Candidate, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    @property
    def choice(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


def resolve(
    plan: Plan | None,
    document: DeviceDocument | None,
    approvals: Approvals,
    denied: frozenset[Digest],
    local: Local,
    model: ModelName,
) -> Resolution:
    """Order: technician's pin, document's pin, rollout, stable, signed fallback; then drop.

    Without a verified document nothing is assigned, except what a technician pinned; and where
    nothing is, nobody needs a fallback.
    """
    wanted: list[Candidate] = []
    if local.instead is not None:
        wanted.append(Candidate(local.instead, "fallback"))
    if local.pin is not None and _holds(local.pin, local.now_ms):
        wanted.append(Candidate(local.pin.digest, "technician"))
    if document is not None:
        pin = document.pins.get(model)
        if pin is not None and _holds(pin, local.now_ms):
            wanted.append(Candidate(pin.digest, "pin"))
        if plan is not None:
            wanted.extend(_assigned(plan, document, local))
    if local.fallback is not None and wanted:
        wanted.append(Candidate(local.fallback, "fallback"))
    candidates: list[Candidate] = []
    dropped: list[Dropped] = []
    for candidate in wanted:
        why = _out(candidate.digest, approvals, denied, local)
        if why is not None:
            dropped.append(Dropped(candidate.digest, candidate.origin, why))
        elif candidate.digest not in {other.digest for other in candidates}:
            candidates.append(candidate)
    return Resolution(tuple(candidates), tuple(dropped))


def rule_for(plan: Plan, document: DeviceDocument) -> int | None:
    """Number of the first rule that selects the device."""
    labels = document.selectable
    return next((n for n, rule in enumerate(plan.rules) if matches(rule.selector, labels)), None)


def takes(rollout: Rollout, document: DeviceDocument) -> bool:
    """Whether a rollout takes a device that its rule selects."""
    labels = document.selectable
    return rollout.takes(document.device, labels["id"], labels, document.since)


def _assigned(plan: Plan, document: DeviceDocument, local: Local) -> list[Candidate]:
    number = rule_for(plan, document)
    rule = plan.rules[number] if number is not None else None
    running = {local.current, local.trial} - {None}
    wanted: list[Candidate] = []
    if rule is not None and rule.rollout is not None and takes(rule.rollout, document):
        wanted.append(_candidate(rule.rollout, number))
    else:
        # A device that left the selector after it activated stays with its cohort until the end,
        # otherwise a change of labels would bias what the rollout sees.
        name = document.selectable["id"]
        for n, other in enumerate(plan.rules):
            going = other.rollout
            if going and going.candidate in running and name not in going.wave.exclude:
                wanted.append(_candidate(going, n))
    if rule is not None and rule.stable is not None:
        wanted.append(Candidate(rule.stable, "stable", rule=number))
    elif _was_aborted(plan, running) and local.previous is not None:
        wanted.append(Candidate(local.previous, "ended"))
    return wanted


def _was_aborted(plan: Plan, running: set[Digest | None]) -> bool:
    ended = plan.ended
    return ended is not None and ended.end == "aborted" and ended.candidate in running


def _candidate(rollout: Rollout, number: int | None) -> Candidate:
    return Candidate(
        rollout.candidate,
        "rollout",
        rollout.id,
        rollout.attempt,
        rollout.plan_max_age_s,
        rollout.health,
        number,
        rollout.require_shadow,
        rollout.shadow_rows,
        rollout.window,
    )


def _holds(pin: Pin, now_ms: int) -> bool:
    return pin.until is None or now_ms < pin.until


def _out(
    bundle: Digest, approvals: Approvals, denied: frozenset[Digest], local: Local
) -> Literal["not approved", "revoked", "denied", "unfit", "denied here"] | None:
    approved = approvals.get(bundle)
    if approved is None:
        return "not approved"
    if approved.revoked:
        return "revoked"
    if bundle in denied:
        return "denied"
    if unfit(approved.terms.needs, local.facts) is not None:
        return "unfit"
    if bundle in local.denied:
        return "denied here"
    return None
