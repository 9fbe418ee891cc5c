"""What one model should run, as far as signed documents and this device's memory decide it.

`decide()` puts together `protocol.plan.resolve`, local denials, expiry and the thrash guard, so
that reconciliation sees one of three values and need not know where they came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from edge_agent import denials, hours
from edge_agent.journal import Journal
from protocol.approval import Approvals
from protocol.device import DeviceDocument
from protocol.identifiers import Digest, ModelName
from protocol.plan import Candidate, Local, Plan, Resolution, resolve


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why a trial may not begin now. Fetching and staging go on, and so does a running trial."""

    reason: str
    """Problem code."""
    detail: str = ""
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Head for this bundle."""

    candidate: Candidate
    allow: int = 0
    """The document's number for it, noted with a denial."""
    hindrance: Hindrance | None = None
    counts: bool = True
    """Whether the thrash guard counts its trial."""
    stable: Digest | None = None
    """What the rule returns to, if it is another bundle."""
    shadow: bool = False
    """Run it beside what is in use, and do not activate it."""

    @property
    def digest(self) -> Digest:
        return self.candidate.digest


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is assigned, or nothing that is may run here: keep what runs."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Serve nothing: only somebody with root on the device asks for this."""


Desired: TypeAlias = Run | Hold | Nothing

LocalTime: TypeAlias = Callable[[int], datetime]
"""From a moment (Unix ms) to this device's local time, with its offset."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """What was verified, and how recently. Ages are in trusted time."""

    plan: Plan | None
    document: DeviceDocument | None
    approvals: Approvals
    denied: frozenset[Digest] = frozenset()
    models_expired: bool = False
    plan_age_s: float | None = None
    """Seconds since the plan was last confirmed by a fresh timestamp; None: never."""
    granted: frozenset[Digest] = frozenset()
    """Bundles that a person carried here with the plan that is in force: freshness is not asked."""


@dataclass(frozen=True, slots=True)
class Decision:
    desired: Desired
    resolution: Resolution


def decide(
    model: ModelName,
    trusted: Trusted,
    local: Local,
    journal: Journal,
    *,
    agent: str,
    guarded: Callable[[Digest], bool] = lambda _: True,
    stopped: bool = False,
    local_time: LocalTime | None = None,
) -> Decision:
    """What to head for now. `local.denied` is filled in here; `stopped`: root wants no service.

    `guarded`: whether the thrash guard holds for a bundle (not under its dev policy).
    `local_time`: None while nobody vouches for the time.
    """

    def reading(denied: frozenset[Digest], instead: Digest | None = None) -> Resolution:
        told = replace(local, denied=denied, instead=instead)
        return resolve(
            trusted.plan, trusted.document, trusted.approvals, trusted.denied, told, model
        )

    # Twice, because what lifts a denial is the attempt of the very candidate that it denies.
    attempts: dict[Digest, int] = {}
    asked = reading(frozenset())
    for candidate in asked.candidates:
        attempts[candidate.digest] = max(attempts.get(candidate.digest, 0), candidate.attempt)
    allow = allowances(trusted.document, model)
    denied = denials.standing(journal, attempts, allow, agent)
    resolution = reading(denied)
    away = denials.away(journal, attempts, allow, local.now_ms)
    if away is not None and (asked.choice is None or asked.choice.digest == away[0]):
        resolution = reading(denied | {away[0]}, away[1])
    if stopped:
        return Decision(Nothing(), resolution)
    choice = _choice(resolution, journal)
    if choice is None:
        return Decision(Hold(), resolution)
    counts = not _uncounted(choice, trusted.plan, journal)
    guard = counts and guarded(choice.digest)
    held = hindrance(choice, trusted, journal, local.now_ms, guarded=guard)
    shadow = shadows(choice, journal)
    if held is None and not shadow:
        # What runs beside answers nobody, and needs the traffic of the day.
        held = maintenance(choice, journal, local.now_ms, local_time)
    run = Run(
        choice,
        allow.get(choice.digest, 0),
        held,
        counts,
        stable_of(choice, trusted.plan),
        shadow,
    )
    return Decision(run, resolution)


def _choice(resolution: Resolution, journal: Journal) -> Candidate | None:
    """The first choice; but a device on which nothing was proven yet has nothing that a candidate
    could run beside, and begins with the next one."""
    choice = resolution.choice
    if choice is None or journal.current is not None or not shadows(choice, journal):
        return choice
    others = (each for each in resolution.candidates if not shadows(each, journal))
    return next(others, choice)


def shadows(candidate: Candidate, journal: Journal) -> bool:
    """Whether it is to run beside what is in use first. Not what was proven here."""
    return candidate.require_shadow and candidate.digest not in journal.slots


def allowances(document: DeviceDocument | None, model: ModelName) -> Mapping[Digest, int]:
    return document.allow.get(model, {}) if document is not None else {}


def hindrance(
    candidate: Candidate, trusted: Trusted, journal: Journal, now_ms: int, *, guarded: bool
) -> Hindrance | None:
    """What forbids to activate a candidate now: expired trust, a stale plan, the guard.

    Going back to a bundle that the journal's slots name needs neither freshness, nor does one
    that came on a stick.
    """
    if candidate.digest not in journal.slots and candidate.digest not in trusted.granted:
        if trusted.models_expired:
            return Hindrance("OUT-T121", "approvals have expired")
        from_plan = candidate.origin in ("rollout", "stable", "ended")
        age = trusted.plan_age_s
        if from_plan and (age is None or age > candidate.plan_max_age_s):
            said = "never" if age is None else f"{age / 3600:.0f} h ago"
            return Hindrance("OUT-T122", f"the plan was last confirmed {said}")
    if guarded:
        until = denials.guarded_until(journal, candidate.digest, now_ms)
        if until is not None:
            return Hindrance(denials.GUARDED, "", until)
    return None


def maintenance(
    candidate: Candidate, journal: Journal, now_ms: int, local_time: LocalTime | None
) -> Hindrance | None:
    """Whether the rollout's maintenance windows are closed. A return never waits for one.

    Where nobody vouches for the time, trusted time is only the earliest that it can be: then no
    window is taken for open.
    """
    window = candidate.window
    if not window or candidate.digest in journal.slots:
        return None
    said = f"starts in the window {hours.said(window)}"
    if local_time is None:
        why = "the clock is not synchronised, so nobody knows whether it is open"
        return Hindrance(denials.MAINTENANCE, f"{said}; {why}")
    opens = hours.opens_ms(window, now_ms, local_time)
    return None if opens is None else Hindrance(denials.MAINTENANCE, said, opens)


def stable_of(candidate: Candidate, plan: Plan | None) -> Digest | None:
    """The bundle that the candidate's rule returns to, if there is one and it is another."""
    if plan is None or candidate.rule is None or candidate.rule >= len(plan.rules):
        return None
    stable = plan.rules[candidate.rule].stable
    return stable if stable != candidate.digest else None


def _uncounted(candidate: Candidate, plan: Plan | None, journal: Journal) -> bool:
    """A technician's order and an abort's return are never held back by the guard."""
    if candidate.origin in ("technician", "ended"):
        return True
    ended = plan.ended if plan is not None else None
    return (
        ended is not None
        and ended.end == "aborted"
        and ended.candidate in (journal.current, journal.tried)
        and candidate.digest in journal.slots
    )
