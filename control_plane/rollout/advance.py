"""What to do with a rollout now: a decision as a value, from counts and time alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.rollout.gate import Judgement, enough, judge
from control_plane.rollout.phase import Counts, total
from control_plane.rollout.spec import RolloutSpec, Status
from protocol.wording import duration


@dataclass(frozen=True, slots=True)
class Position:
    """Where a rollout is. `withdrawn` says why its candidate may not be used any more."""

    status: Status
    wave: int
    started_ms: int
    soak_ms: int | None = None
    withdrawn: str | None = None
    accepted: bool = False
    """Whether an operator has resumed it although the wave was inconclusive."""


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
class Pause:
    why: str


@dataclass(frozen=True, slots=True)
class Abort:
    why: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The candidate is stable from now on, also for devices that are away."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing changes."""


Decision = Begin | Advance | StartSoak | Pause | Abort | Complete | Wait


def decide(
    spec: RolloutSpec,
    at: Position,
    counts: Mapping[int, Counts],
    *,
    now_ms: int,
    ready: bool,
) -> tuple[Decision, Judgement | None]:
    """One step. `ready`: everything of the candidate is published.

    A paused rollout is judged too, and aborts: pausing holds back waves, never a rescue.
    """
    if at.status in ("completed", "aborted"):
        return Wait(), None
    if at.withdrawn is not None:
        return Abort(at.withdrawn), None
    if at.wave == 0:
        return (Begin() if ready and at.status == "preparing" else Wait()), None
    judgement = judge(spec, at.wave, counts, now_ms=now_ms, soak_ms=at.soak_ms)
    if judgement.verdict == "fail":
        if spec.on_failure == "abort rollback":
            return Abort(judgement.sentence), judgement
        return (Pause(judgement.sentence) if at.status == "running" else Wait()), judgement
    if at.status != "running":
        return Wait(), judgement
    if at.soak_ms is None and enough(spec, at.wave, counts):
        return StartSoak(), judgement
    if judgement.verdict == "inconclusive" and _at_its_end(at.wave, counts) and not at.accepted:
        # More waiting would show nothing new: a person decides.
        return Pause(judgement.sentence), judgement
    if judgement.verdict == "pass" or (judgement.verdict == "inconclusive" and at.accepted):
        last = at.wave == len(spec.waves)
        return (Complete() if last else Advance(at.wave + 1)), judgement
    if spec.deadline_s is not None and now_ms - at.started_ms > spec.deadline_s * 1000:
        return Pause(f"not completed after {duration(spec.deadline_s)}"), judgement
    return Wait(), judgement


def _at_its_end(wave: int, counts: Mapping[int, Counts]) -> bool:
    """Whether every device of the waves so far that can be expected to answer has done so."""
    together = total(each for number, each in counts.items() if number <= wave)
    return together.judged >= together.waited_for
