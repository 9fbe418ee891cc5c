"""Has a trial failed? Errors, non-finite outputs, crashes, confidence and class mix.

Input is what the runner counted since it loaded the candidate. The verdict can only be "failed,
because" or "not so far": whether enough was seen to commit is reconciliation's question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edge_agent.journal import MARKS
from edge_agent.watch import confidence
from protocol.members import Limits, Policy
from protocol.plan import HealthOverride
from protocol.telemetry import InferenceWindow

Guard = Literal["active", "no probabilities", "no baseline"]


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


def judge(
    window: InferenceWindow,
    baseline: Baseline | None,
    classes: tuple[str, ...],
    held_to: Terms,
    looks: int = 0,
) -> Verdict:
    """Judge the counts of one candidate since it was loaded; `looks` are those already spent."""
    guard = guard_of(window, baseline)
    failed = _shares(window, held_to)
    if failed is None and guard == "active" and baseline is not None:
        due = confidence.looks_due(sum(window.confidence))
        if due > looks:
            failed = _against(window, baseline, classes, due, held_to.limits)
            looks = due
    return Verdict(failed, guard, looks)


def guard_of(window: InferenceWindow, baseline: Baseline | None) -> Guard:
    """Whether confidence and class mix can be compared at all, and what is missing if not."""
    if baseline is not None and sum(baseline.window.confidence) >= confidence.FIRST_LOOK:
        return "active" if window.confidence or not window.rows else "no probabilities"
    if window.rows and not window.confidence:
        return "no probabilities"
    return "no baseline"


def _shares(window: InferenceWindow, held_to: Terms) -> str | None:
    limits = held_to.limits
    # The runner counts requests that it could not answer apart from those that it did.
    requests = window.answers + window.errors
    if _exceeds(window.errors, requests, limits.error_share, held_to.min_requests):
        return (
            f"errors {window.errors:,} of {requests:,} requests, at most {limits.error_share:.3%}"
        )
    if _exceeds(window.nonfinite, requests, limits.nonfinite_share, held_to.min_requests):
        return f"NaN or infinity in {window.nonfinite:,} of {requests:,} answers"
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
) -> str | None:
    before = baseline.window
    rows = f"({sum(window.confidence):,} answers)"
    # Any two models differ significantly once enough is counted: what returns one is a fall that
    # matters, or a mix that matters, and that chance does not explain.
    if len(window.confidence) == len(before.confidence):
        now, then = confidence.mean(window.confidence), confidence.mean(before.confidence)
        if then - now >= limits.confidence_drop and confidence.differ(
            window.confidence, before.confidence, look, limits.alpha
        ):
            return f"confidence {now:.2f}, was {then:.2f} under {baseline.name} {rows}"
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
        return f"class {name} {now:.0%}, was {then:.0%} under {baseline.name} {rows}"
    return None


def _most_moved(mine: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    a, b = sum(mine), sum(theirs)
    return max(range(len(mine)), key=lambda n: abs(mine[n] / a - theirs[n] / b))
