"""Has a bundle failed, on trial or after it was committed? Errors, non-finite outputs, requests out
of contract, latency, confidence and class mix.

Of a trial, input is what the runner counted since it loaded the candidate; of a committed bundle it
is what it counted lately (`lately`). The verdict can only be "failed, because" or "not so far":
whether enough was seen to commit is reconciliation's question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from edge_agent.journal import MARKS
from edge_agent.watch import confidence
from edge_agent.watch.lately import Lately, too_many
from edge_agent.watch.slowness import slower
from protocol.members import TRIGGERS, Limits, Policy, Trigger
from protocol.plan import HealthOverride
from protocol.telemetry import InferenceWindow

Guard = Literal["active", "no probabilities", "no baseline"]

DEATHS_S: Final = 600.0
"""Deaths of runners within this time count together against a committed bundle."""
AFTER_ALPHA: Final = 1e-3
"""Share of `Limits.alpha` that each comparison of a committed bundle spends: none is the last."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a trial is held to: the bundle's policy, made stricter by the plan."""

    health_window_s: float
    max_duration_s: float
    min_requests: int
    limits: Limits
    guarded: bool = True
    """Whether the thrash guard holds."""

    @property
    def mark_s(self) -> float:
        return self.health_window_s / MARKS


def terms(policy: Policy, override: HealthOverride | None = None, *, dev: bool) -> Terms:
    """Merge what may only become stricter. `dev`: the agent itself runs in dev mode.

    A dev policy in a bundle does nothing on a production agent, and the other way round.
    """
    override = override or HealthOverride()
    relaxed = policy.dev if dev else None
    window = relaxed.health_window_s if relaxed else policy.health_window_s
    longest = relaxed.max_duration_s if relaxed else policy.max_duration_s
    window = max(window, override.health_window_s or 0)
    limits = policy.limits
    if override.error_share is not None:
        limits = replace(limits, error_share=min(limits.error_share, override.error_share))
    if override.crashes is not None:
        limits = replace(limits, crashes=min(limits.crashes, override.crashes))
    return Terms(
        window,
        max(longest, window),
        max(policy.min_requests, override.min_requests or 0),
        limits,
        relaxed.guard if relaxed else True,
    )


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the bundle before answered, and its name for people (model/version)."""

    window: InferenceWindow
    name: str


@dataclass(frozen=True, slots=True)
class Verdict:
    failed: str | None = None
    """What was seen, for people; None: nothing is wrong so far."""
    guard: Guard = "no probabilities"
    looks: int = 0
    """Looks of the confidence and class tests that have been spent."""
    latency_looks: int = 0
    trigger: Trigger | None = None
    """What failed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a bundle, and what was seen, for people."""

    trigger: Trigger
    detail: str


def judge(
    window: InferenceWindow,
    baseline: Baseline | None,
    classes: tuple[str, ...],
    held_to: Terms,
    looks: int = 0,
    latency_looks: int = 0,
) -> Verdict:
    """Judge the counts of one candidate since it was loaded; looks are those already spent."""
    guard = guard_of(window, baseline)
    fault = _shares(window, held_to)
    if fault is None and guard == "active" and baseline is not None:
        due = confidence.looks_due(sum(window.confidence))
        if due > looks:
            fault = _against(window, baseline, classes, due, held_to.limits)
            looks = due
    if fault is None and baseline is not None:
        due = confidence.looks_due(sum(window.latency))
        if due > latency_looks:
            fault = _slower(window, baseline, due, held_to.limits)
            latency_looks = due
    if fault is None:
        return Verdict(None, guard, looks, latency_looks)
    return Verdict(fault.detail, guard, looks, latency_looks, fault.trigger)


def judge_lately(
    lately: Lately, deaths: Sequence[float], policy: Policy, now_s: float
) -> Fault | None:
    """Whether a committed bundle has stopped working well, by what it did lately.

    `deaths`: monotonic times of its runners' deaths. They are always watched; the rest only where
    the policy says so.
    """
    limits, watched = policy.limits, policy.after_commit
    recent = sum(now_s - at_s < DEATHS_S for at_s in deaths)
    if recent >= limits.crashes:
        return Fault("crashes", f"{recent} runner deaths in {DEATHS_S / 60:.0f} minutes")
    for seen in lately.spans():
        requests = seen.requests
        if "errors" in watched and too_many(seen.errors, requests, limits.error_share):
            return Fault("errors", f"errors {seen.errors:,} of the last {requests:,} requests")
        if "nonfinite" in watched and too_many(seen.nonfinite, requests, limits.nonfinite_share):
            return Fault(
                "nonfinite",
                f"NaN or infinity in {seen.nonfinite:,} of the last {requests:,} answers",
            )
        share, asked = limits.contract_share, requests + seen.refused
        if share is not None and "contract" in watched and too_many(seen.refused, asked, share):
            return Fault(
                "contract", f"{seen.refused:,} of the last {asked:,} requests broke the contract"
            )
    return None


def judge_block(
    block: InferenceWindow, baseline: Baseline, classes: tuple[str, ...], policy: Policy
) -> Fault | None:
    """Compare a block of a committed bundle's recent answers with the version before it."""
    limits = replace(policy.limits, alpha=policy.limits.alpha * AFTER_ALPHA)
    enough = sum(block.confidence) >= confidence.FIRST_LOOK
    comparable = enough and guard_of(block, baseline) == "active"
    faults = (
        _against(block, baseline, classes, 1, limits) if comparable else None,
        _slower(block, baseline, 1, limits),
    )
    return next((f for f in faults if f is not None and f.trigger in policy.after_commit), None)


def compares(policy: Policy) -> bool:
    """Whether the policy wants a committed bundle compared with the version before it."""
    return not {"confidence", "drift", "latency"}.isdisjoint(policy.after_commit)


def standing(
    window: InferenceWindow, baseline: Baseline | None, policy: Policy, *, committed: bool
) -> dict[str, str]:
    """Per trigger `active`, or why it cannot judge: a guard that is absent is said to be."""
    said: dict[str, str] = {}
    for trigger in TRIGGERS:
        if committed and trigger != "crashes" and trigger not in policy.after_commit:
            said[trigger] = "on probation only"
        else:
            said[trigger] = _absence(trigger, window, baseline, policy.limits) or "active"
    return said


def _absence(
    trigger: Trigger, window: InferenceWindow, baseline: Baseline | None, limits: Limits
) -> str:
    before = baseline.window if baseline is not None else None
    match trigger:
        case "contract" if limits.contract_share is None:
            return "no limit in the policy"
        case "latency" if before is None or sum(before.latency) < confidence.FIRST_LOOK:
            return "no baseline"
        case "confidence" | "drift" if (guard := guard_of(window, baseline)) != "active":
            return guard
        case "drift":
            if window.rows and not window.classes:
                return "no classes"
            if before is None or sum(before.classes) < confidence.FIRST_LOOK:
                return "no baseline"
            if window.classes and len(window.classes) != len(before.classes):
                return "other classes than before"
    return ""


def guard_of(window: InferenceWindow, baseline: Baseline | None) -> Guard:
    """Whether confidence and class mix can be compared at all, and what is missing if not."""
    if baseline is not None and sum(baseline.window.confidence) >= confidence.FIRST_LOOK:
        return "active" if window.confidence or not window.rows else "no probabilities"
    if window.rows and not window.confidence:
        return "no probabilities"
    return "no baseline"


def _shares(window: InferenceWindow, held_to: Terms) -> Fault | None:
    limits = held_to.limits
    # The runner counts requests that it could not answer apart from those that it did.
    requests = window.answers + window.errors
    if _exceeds(window.errors, requests, limits.error_share, held_to.min_requests):
        return Fault(
            "errors",
            f"errors {window.errors:,} of {requests:,} requests, at most {limits.error_share:.3%}",
        )
    if _exceeds(window.nonfinite, requests, limits.nonfinite_share, held_to.min_requests):
        return Fault(
            "nonfinite", f"NaN or infinity in {window.nonfinite:,} of {requests:,} answers"
        )
    share, asked = limits.contract_share, requests + window.refused
    if share is not None and _exceeds(window.refused, asked, share, held_to.min_requests):
        return Fault(
            "contract",
            f"{window.refused:,} of {asked:,} requests broke the contract, at most {share:.3%}",
        )
    return None


def _exceeds(bad: int, requests: int, share: float, least: int) -> bool:
    """Whether `bad` is over a share of the requests, or already of the fewest that could be seen.

    A share cannot be told from fewer requests than its reciprocal, so one error alone is never
    1 % of something; a share of zero allows none.
    """
    least = max(least, round(1 / share)) if share > 0 else least
    return bad > share * max(requests, least)


def _against(
    window: InferenceWindow, baseline: Baseline, classes: tuple[str, ...], look: int, limits: Limits
) -> Fault | None:
    before = baseline.window
    rows = f"({sum(window.confidence):,} answers)"
    # Any two models differ significantly once enough is counted: what returns one is a fall that
    # matters, or a mix that matters, and that chance does not explain.
    if len(window.confidence) == len(before.confidence):
        now, then = confidence.mean(window.confidence), confidence.mean(before.confidence)
        if then - now >= limits.confidence_drop and confidence.differ(
            window.confidence, before.confidence, look, limits.alpha
        ):
            said = f"confidence {now:.2f}, was {then:.2f} under {baseline.name} {rows}"
            return Fault("confidence", said)
    if (
        len(window.classes) == len(before.classes)
        and min(sum(window.classes), sum(before.classes)) >= confidence.FIRST_LOOK
        and confidence.distance(window.classes, before.classes) >= limits.class_shift
        and confidence.differ(window.classes, before.classes, look, limits.alpha)
    ):
        moved = _most_moved(window.classes, before.classes)
        name = classes[moved] if moved < len(classes) else str(moved)
        now = window.classes[moved] / sum(window.classes)
        then = before.classes[moved] / sum(before.classes)
        said = f"class {name} {now:.0%}, was {then:.0%} under {baseline.name} {rows}"
        return Fault("drift", said)
    return None


def _slower(window: InferenceWindow, baseline: Baseline, look: int, limits: Limits) -> Fault | None:
    found = slower(window.latency, baseline.window.latency, look, limits)
    if found is None:
        return None
    return Fault(
        "latency",
        f"p95 {found.now_s * 1000:.1f} ms, was {found.was_s * 1000:.1f} ms under {baseline.name}"
        f" ({sum(window.latency):,} requests)",
    )


def _most_moved(mine: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    a, b = sum(mine), sum(theirs)
    return max(range(len(mine)), key=lambda n: abs(mine[n] / a - theirs[n] / b))
