"""May a rollout go on? Evidence, time and an operator's rules: a verdict with a sentence.

The worst of these holds:

fail           failures: the evidence that more than the limit fail, roll back or fall silent
               reaches 1/alpha; silence alone: that evidence does, and the evidence against control
               as well; scores: one of them is worse than its margin allows, with evidence 1/alpha;
               or the error condition holds
insufficient   fewer than 90 % of the devices that can be expected to answer have come to an end
               with traffic, too few have tried, the soak is not over, or a guard has no data
inconclusive   the failures seen do not exclude rates above L_k, a guard is not shown to be within
               its margin, traffic is missing more than in control, or the success condition lacks
pass           otherwise; so no data never passes

A fail may be said at any time and is final: who calls remembers it, since evidence may fall again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from control_plane.rollout import sentences, shares
from control_plane.rollout.conditions import BAD, Condition
from control_plane.rollout.evidence import Evidence
from control_plane.rollout.figures import PROVEN, Figures, ScoreFigures, figures
from control_plane.rollout.phase import Counts, total
from control_plane.rollout.spec import OnFailure, RolloutSpec
from protocol.codec import convert, to_wire

Verdict = Literal["pass", "fail", "insufficient", "inconclusive"]

GATE: Final = "2"
"""Version of these rules, recorded with every verdict."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a verdict on one wave needs of a rollout's specification."""

    last: bool
    soak_s: float = 0.0
    failure_limit: float = 0.02
    insufficient_after_s: float = 7 * 86_400.0
    on_failure: OnFailure = "abort rollback"
    error_condition: Condition | None = None
    success_condition: Condition | None = None

    @classmethod
    def of(cls, spec: RolloutSpec, wave: int) -> Rules:
        return cls(
            wave >= len(spec.waves),
            spec.soak_of(wave),
            spec.failure_limit,
            spec.insufficient_after_s,
            spec.on_failure,
            spec.error_condition,
            spec.success_condition,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything a verdict is computed from. JSON both ways; see `Judgement.inputs`."""

    rules: Rules
    evidence: Evidence
    wave: int
    now_ms: int
    soak_ms: int | None
    """Since when `enough` holds for the wave, if it does."""
    gate: str = GATE


@dataclass(frozen=True, slots=True)
class Judgement:
    """`id` names the reason. Two are equal if they say the same, whatever they computed it from."""

    verdict: Verdict
    id: str
    sentence: str
    asked: Asked | None = field(default=None, compare=False, repr=False)
    figures: Figures | None = field(default=None, compare=False, repr=False)

    @property
    def inputs(self) -> dict[str, Any]:
        """JSON that `replay` computes the judgement from again."""
        wire: dict[str, Any] = to_wire(self.asked) if self.asked is not None else {}
        # Said although it is the default: a later version of these rules must see the difference.
        return {**wire, "gate": self.asked.gate} if self.asked is not None else wire


def judge(
    spec: RolloutSpec, evidence: Evidence, wave: int, *, now_ms: int, soak_ms: int | None
) -> Judgement:
    """Verdict on `wave` (from 1)."""
    return judged(Asked(Rules.of(spec, wave), evidence, wave, now_ms, soak_ms))


def replay(inputs: Mapping[str, Any]) -> Judgement:
    """The judgement again, from the inputs recorded with it. Raises `PeerError` if they are none.

    By today's rules: compare `inputs["gate"]` with `GATE` before a difference is called one.
    """
    return judged(convert(dict(inputs), Asked))


def enough(spec: RolloutSpec, wave: int, counts: Mapping[int, Counts]) -> bool:
    """Whether as many devices of a wave have tried as it is judged from: its soak begins."""
    newest = counts.get(wave, Counts())
    return newest.tried > 0 and newest.tried >= shares.least(spec.success_condition, newest)


def judged(asked: Asked) -> Judgement:
    counts = asked.evidence.counts
    together = total(each for number, each in counts.items() if number <= asked.wave)
    newest = counts.get(asked.wave, Counts())
    if _silent_wave(asked, newest):
        newest = together
    found = figures(asked.evidence, asked.wave, newest, asked.rules.failure_limit)
    for rule in (_fail, _insufficient, _inconclusive):
        said = rule(asked, newest, together, found)
        if said is not None:
            return Judgement(*said, asked, found)
    return Judgement("pass", "pass", sentences.passes(together, found), asked, found)


def _silent_wave(asked: Asked, newest: Counts) -> bool:
    """Whether nothing can be heard of a wave: it is empty, or the last one and all are away.

    They get the candidate on their return; what earlier waves showed decides, and no soak.
    """
    return newest.all == 0 or (asked.rules.last and newest.waited_for == 0)


_Said = tuple[Verdict, str, str]


def _fail(asked: Asked, newest: Counts, together: Counts, found: Figures) -> _Said | None:
    for counts in (newest, together):
        failing = shares.failing(asked.rules.error_condition, counts)
        if failing is not None:
            return "fail", "error_condition", failing
    if found.ln_a_failed >= found.threshold_failed:
        why = sentences.too_many(together, BAD, found.limit, found.explained)
        return "fail", "failed", _condemn(asked, together, why, found.threshold_failed)
    if min(found.ln_a_silent, found.ln_e_silent) >= found.threshold_silent:
        why = sentences.sooner(together, found.limit, found.fell_a, found.fell_b)
        return "fail", "silent", _condemn(asked, together, why, found.threshold_silent)
    worse = [each for each in found.scores if each.state == "worse"]
    if worse:
        worst = max(worse, key=lambda each: each.ln_m - each.threshold)
        why = sentences.worse(worst)
        return "fail", worst.watched.metric, _condemn(asked, together, why, worst.threshold)
    return None


def _condemn(asked: Asked, together: Counts, why: str, threshold: float) -> str:
    return f"{why} {sentences.consequence(threshold, together, asked.rules.on_failure)}"


def _insufficient(asked: Asked, newest: Counts, together: Counts, found: Figures) -> _Said | None:
    def said(id: str, before: str = "") -> _Said:
        until_ms = None
        if asked.evidence.of(asked.wave).began_ms:
            since_ms = asked.evidence.of(asked.wave).began_ms
            until_ms = since_ms + int(asked.rules.insufficient_after_s * 1000)
        return "insufficient", id, before + sentences.lacks(newest, found, until_ms, asked.now_ms)

    if newest.tried == 0 or together.tried == 0:
        return said("no_data", "No device has activated. ")
    for counts in (newest, together):
        least = shares.least(asked.rules.success_condition, counts)
        if counts.tried < least:
            return said("too_few", f"{counts.tried} activated, judged from {least}. ")
    ended = found.n + newest.refused
    if ended * 10 < newest.waited_for * 9:
        idle = (ended + newest.unexercised) * 10 >= newest.waited_for * 9
        return said("no_traffic" if idle else "under_way")
    if found.n == 0:
        return said("no_data", "No device could be judged. ")
    elapsed_s = (asked.now_ms - asked.soak_ms) / 1000 if asked.soak_ms is not None else 0.0
    heard = not _silent_wave(asked, asked.evidence.of(asked.wave).counts)
    if heard and elapsed_s < asked.rules.soak_s:
        proven = _inconclusive(asked, newest, together, found) is None
        left_s = asked.rules.soak_s - elapsed_s
        return "insufficient", "soaking", sentences.soaks(proven, found, left_s)
    for each in found.scores:
        if each.role == "guard" and _unheard(each, newest, found):
            return said("guard", sentences.unheard(each))
    return None


def _unheard(guard: ScoreFigures, newest: Counts, found: Figures) -> bool:
    """Whether a guard is open and nine tenths of those that may bet have not come to an end."""
    if guard.state == "no data":
        return True
    # With a sample of the wave, as large a part of it has failed as of the wave.
    sampled = min(1.0, guard.n_a / max(newest.tried, 1))
    return guard.state == "open" and guard.judged[0] + found.bad * sampled < 0.9 * guard.n_a


def _inconclusive(asked: Asked, newest: Counts, together: Counts, found: Figures) -> _Said | None:
    for counts in (newest, together):
        lacking = shares.lacking(asked.rules.success_condition, counts)
        if lacking is not None:
            return "inconclusive", "success_condition", lacking
    if found.upper > found.bound:
        return "inconclusive", "failures", sentences.unproven_failures(found)
    open_ = [each for each in found.scores if each.role == "guard" and each.state == "open"]
    if open_:
        return "inconclusive", "scores", sentences.unproven_scores(found, open_)
    if found.ln_unjudged >= PROVEN and found.unjudged is not None:
        return "inconclusive", "traffic", sentences.untraffic(found, found.unjudged)
    return None
