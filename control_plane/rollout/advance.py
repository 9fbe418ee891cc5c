"""What to do with a rollout now: a decision as a value, from evidence and time alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control_plane.rollout.evidence import Evidence
from control_plane.rollout.gate import Judgement, enough, judge
from control_plane.rollout.phase import total
from control_plane.rollout.sentences import percent
from control_plane.rollout.spec import RolloutSpec, ShadowSpec, Status
from protocol.problems import problem
from protocol.wording import duration

NEEDS_APPROVAL: Final = "OUT-R205"
UNPROVEN: Final = "OUT-R213"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a rollout is. `withdrawn` says why its candidate may not be used any more."""

    status: Status
    wave: int
    started_ms: int
    soak_ms: int | None = None
    withdrawn: str | None = None
    accepted: bool = False
    """Whether a person has said to go on although the wave was not shown to be good."""
    wave_ms: int | None = None
    """When the wave began."""
    approved: bool = False
    """Whether a person has said that the next wave may begin."""
    shadowing: bool = False
    """Whether devices of the wave run the candidate beside the current model, not instead."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """How the shadows of a wave do. `reached`: devices that can be expected to answer, `with_rows`:
    those of them with as many rows as the rollout wants; `rows`, `agreed`: of all of those."""

    reached: int
    with_rows: int
    rows: int
    agreed: int


@dataclass(frozen=True, slots=True)
class Begin:
    """What devices need lies ready: the first wave is asked."""


@dataclass(frozen=True, slots=True)
class Advance:
    """The next wave is asked."""

    wave: int


@dataclass(frozen=True, slots=True)
class StartSoak:
    """From now on the wave's soak counts."""


@dataclass(frozen=True, slots=True)
class LiftShadow:
    """Enough devices of the wave agree: they may activate."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A person decides. `code`: the problem that says how, where there is one."""

    why: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Abort:
    """`keep`: devices that run the candidate keep it."""

    why: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Complete:
    """The candidate is stable from now on, also for devices that are away."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing changes."""


Decision = Begin | Advance | StartSoak | LiftShadow | Pause | Abort | Complete | Wait


def decide(
    spec: RolloutSpec,
    at: Position,
    evidence: Evidence,
    *,
    now_ms: int,
    ready: bool,
    shadowed: Shadowed | None = None,
) -> tuple[Decision, Judgement | None]:
    """One step. `ready`: everything of the candidate is published.

    A paused rollout is judged too, and aborts: pausing holds back waves, never a rescue.
    """
    if at.status in ("completed", "aborted"):
        return Wait(), None
    if at.withdrawn is not None:
        return Abort(at.withdrawn), None
    if at.wave == 0:
        return _first(spec, at, ready), None
    judgement = judge(spec, evidence, at.wave, now_ms=now_ms, soak_ms=at.soak_ms)
    if judgement.verdict == "fail":
        return _failed(spec, at, judgement), judgement
    if at.status != "running":
        return Wait(), judgement
    # A device that was pinned until now is out of its wave until it has said that it is not.
    empty = evidence.of(at.wave).counts.all == 0 and _patient(spec, _began_ms(at, evidence), now_ms)
    step = _shadow(spec.shadow, at, shadowed, empty=empty) if at.shadowing else None
    if step is None and not at.shadowing:
        step = _judged(spec, at, evidence, judgement, now_ms)
    return step or _late(spec, at, judgement, evidence, now_ms), judgement


def _first(spec: RolloutSpec, at: Position, ready: bool) -> Decision:
    if not ready or at.status != "preparing":
        return Wait()
    return Pause(*_asks(1)) if _approve(spec, 1) and not at.approved else Begin()


def _failed(spec: RolloutSpec, at: Position, judgement: Judgement) -> Decision:
    if spec.on_failure == "pause":
        return Pause(judgement.sentence) if at.status == "running" else Wait()
    return Abort(judgement.sentence, keep=spec.on_failure == "abort keep")


def _shadow(
    spec: ShadowSpec | None, at: Position, shadowed: Shadowed | None, *, empty: bool
) -> Decision | None:
    """`empty`: no device is in the wave, nor about to be, so nothing could ever be compared."""
    if spec is None or empty:
        return LiftShadow()
    if shadowed is None or shadowed.reached == 0 or shadowed.rows == 0:
        return None
    if shadowed.with_rows * 10 < shadowed.reached * 9:
        return None
    if at.accepted or shadowed.agreed >= spec.agreement * shadowed.rows:
        return LiftShadow()
    return Pause(
        f"beside the current model {shadowed.agreed:,} of {shadowed.rows:,} answers of"
        f" {shadowed.with_rows} of {shadowed.reached} devices agree"
        f" ({percent(shadowed.agreed / shadowed.rows)}); wanted {percent(spec.agreement)}"
    )


def _judged(
    spec: RolloutSpec, at: Position, evidence: Evidence, judgement: Judgement, now_ms: int
) -> Decision | None:
    if at.soak_ms is None and enough(spec, at.wave, evidence.counts):
        return StartSoak()
    goes_on = judgement.verdict == "pass"
    if judgement.verdict == "inconclusive" and _heard(spec, at, evidence, now_ms):
        goes_on = at.accepted or (spec.unproven == "proceed" and _by_gates(judgement))
        if not goes_on:
            return Pause(judgement.sentence, UNPROVEN)
    if not goes_on:
        return None
    if at.wave >= len(spec.waves):
        return Complete()
    if _approve(spec, at.wave + 1) and not (at.approved or at.accepted):
        return Pause(*_asks(at.wave + 1))
    return Advance(at.wave + 1)


def _by_gates(judgement: Judgement) -> bool:
    """Whether the gates alone leave it open: an operator's own condition is never passed over."""
    return judgement.id != "success_condition"


def _late(
    spec: RolloutSpec, at: Position, judgement: Judgement, evidence: Evidence, now_ms: int
) -> Decision:
    began_ms = _began_ms(at, evidence)
    # Earlier waves may have shown enough while nothing is heard of the shadows of this one.
    lacks = judgement.verdict == "insufficient" or at.shadowing
    if lacks and not at.accepted:
        if spec.on_insufficient == "pause" and not at.shadowing:
            if _soaked(spec, at, began_ms, now_ms) and _patient(spec, began_ms, now_ms):
                return Pause(judgement.sentence)
        elif now_ms - began_ms > spec.insufficient_after_s * 1000:
            said = f"not enough evidence after {duration(spec.insufficient_after_s)}"
            return Pause(f"{said}: {judgement.sentence}")
    # Whoever has said to go on knows that it is late: asked once per wave.
    late_ms = now_ms - at.started_ms
    if spec.deadline_s is not None and late_ms > spec.deadline_s * 1000 and not at.accepted:
        return Pause(f"not completed after {duration(spec.deadline_s)}")
    return Wait()


def _heard(spec: RolloutSpec, at: Position, evidence: Evidence, now_ms: int) -> bool:
    """Whether more waiting would show nothing new: all that can be expected to answer have.

    Or those that have not have had the time after which no contact is silence.
    """
    together = total((each for number, each in evidence.counts.items() if number <= at.wave))
    if together.judged >= together.waited_for:
        return True
    return _patient(spec, _began_ms(at, evidence), now_ms)


def _soaked(spec: RolloutSpec, at: Position, began_ms: int, now_ms: int) -> bool:
    since_ms = began_ms if at.soak_ms is None else at.soak_ms
    return now_ms - since_ms >= spec.soak_of(at.wave) * 1000


def _patient(spec: RolloutSpec, began_ms: int, now_ms: int) -> bool:
    return now_ms - began_ms >= max(spec.silent_after_s, spec.in_progress_timeout_s or 0.0) * 1000


def _began_ms(at: Position, evidence: Evidence) -> int:
    if at.wave_ms is not None:
        return at.wave_ms
    return evidence.of(at.wave).began_ms or at.started_ms


def _approve(spec: RolloutSpec, wave: int) -> bool:
    return wave <= len(spec.waves) and spec.waves[wave - 1].approve


def _asks(wave: int) -> tuple[str, str]:
    return f"{problem(NEEDS_APPROVAL).title}: wave {wave}", NEEDS_APPROVAL
