"""May a rollout go on? Counts, conditions, time: a verdict with a sentence.

Honest rules, whatever the conditions say:

- a share of failures is a share of devices that tried (activated, or given up on the way), with
  those that rolled back or fell silent in it, and of at least `min_completed` devices: what has
  not tried yet counts as fine, so an early abort would also be one later;
- a wave is judged by itself and together with those before it, so that many good devices of
  earlier waves cannot hide a bad wave;
- no data never passes, and a share of successes is not asked while more than a tenth of the
  devices that can be expected to answer have not come to an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, assert_never

from control_plane.rollout.phase import Counts, Phase, total
from control_plane.rollout.spec import Condition, RolloutSpec
from protocol.wording import duration

Verdict = Literal["pass", "fail", "insufficient", "inconclusive"]

GATE: Final = "1"
"""Version of these rules, recorded with every verdict."""

_WORDS: Final[dict[Phase, str]] = {
    "failed": "failed",
    "rolled_back": "rolled back",
    "silent": "fell silent",
    "refused": "refused",
    "healthy": "healthy",
    "unexercised": "without traffic",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """`id` names the sentence; `inputs` are what the verdict can be computed from again."""

    verdict: Verdict
    id: str
    sentence: str
    inputs: dict[str, Any] = field(default_factory=dict)


def judge(
    spec: RolloutSpec,
    wave: int,
    counts: Mapping[int, Counts],
    *,
    now_ms: int,
    soak_ms: int | None,
) -> Judgement:
    """Verdict on `wave` (from 1). `soak_ms`: since when `enough` holds for it, if it does."""
    together = total(each for number, each in counts.items() if number <= wave)
    newest = counts.get(wave, Counts())
    verdict, id, sentence = _judge(spec, wave, newest, together, now_ms, soak_ms)
    inputs = {
        "gate": GATE,
        "wave": wave,
        "counts": {str(number): asdict(counts[number]) for number in sorted(counts)},
        "error_condition": asdict(spec.error_condition),
        "success_condition": asdict(spec.success_condition),
        "soak_s": spec.soak_of(wave),
        "soak_ms": soak_ms,
        "now_ms": now_ms,
    }
    return Judgement(verdict, id, sentence, inputs)


def replay(spec: RolloutSpec, inputs: Mapping[str, Any]) -> Judgement:
    """The judgement again, from the inputs that were recorded with it."""
    counts = {int(wave): Counts(**numbers) for wave, numbers in inputs["counts"].items()}
    return judge(spec, inputs["wave"], counts, now_ms=inputs["now_ms"], soak_ms=inputs["soak_ms"])


def enough(spec: RolloutSpec, wave: int, counts: Mapping[int, Counts]) -> bool:
    """Whether as many devices of a wave have tried as it is judged from: its soak begins."""
    newest = counts.get(wave, Counts())
    return newest.tried > 0 and newest.tried >= _least(spec.success_condition, newest)


def _judge(
    spec: RolloutSpec, wave: int, newest: Counts, together: Counts, now_ms: int, soak_ms: int | None
) -> tuple[Verdict, str, str]:
    last = wave == len(spec.waves)
    for counts in (newest, together):
        failing = _fails(spec.error_condition, counts)
        if failing is not None:
            return "fail", "error_condition", failing
    success = spec.success_condition
    if together.tried == 0:
        return "insufficient", "no_data", f"no device has activated: {_absent(together)}"
    # Nothing can be heard of a last wave whose devices are all away: they get it on their return.
    alone = [] if newest.all == 0 or (last and newest.waited_for == 0) else [newest]
    for counts in (*alone, together):
        least = _least(success, counts)
        if counts.tried < max(1, least):
            few = f"{counts.tried} activated, judged from {max(1, least)}"
            return "insufficient", "too_few", few
    if together.judged * 10 < together.waited_for * 9:
        still = together.waited_for - together.judged
        return (
            "insufficient",
            "under_way",
            f"{together.judged} of {together.waited_for} came to an end, {still} are under way",
        )
    soak_s = spec.soak_of(wave)
    elapsed_s = (now_ms - soak_ms) / 1000 if soak_ms is not None else 0.0
    for counts in (*alone, together):
        part, whole = _share(success, counts)
        if not success.holds(part, whole):
            without = f", {counts.unexercised} had too little traffic" if counts.unexercised else ""
            return (
                "inconclusive",
                "success_condition",
                f"{_said(success, part, whole)}{without}; wanted {success.text}",
            )
    if elapsed_s < soak_s:
        left = duration(soak_s - elapsed_s)
        return "insufficient", "soaking", f"pass so far; soak ends in {left}"
    part, whole = _share(success, together)
    away = f"; {together.unlinked} not linked" if together.unlinked else ""
    return "pass", "success", f"{_said(success, part, whole)}{away}"


def _fails(condition: Condition, counts: Counts) -> str | None:
    part, whole = _share(condition, counts)
    least = _least(condition, counts, reachable=False)
    if part == 0 or not condition.holds(part, max(whole, least)):
        return None
    apart = [
        f"{number} {_WORDS[phase]}"
        for phase in condition.phases
        if (number := getattr(counts, phase))
    ]
    what = apart[0].partition(" ")[2] if len(apart) == 1 else f"went wrong ({', '.join(apart)})"
    of = f"{whole} {condition.denominator}" if whole >= least else f"the {least} that are judged:"
    devices = "devices " if whole >= least else ""
    limit = f"{'more than' if condition.operator == '>' else 'from'} {condition.percent:g} %"
    return f"{part} of {of} {devices}{what}; {limit} aborts"


def _least(condition: Condition, counts: Counts, *, reachable: bool = True) -> int:
    """From how many devices a wave is judged; a smaller wave is judged from all of its devices."""
    return min(condition.min_completed, counts.waited_for if reachable else counts.all)


def _share(condition: Condition, counts: Counts) -> tuple[int, int]:
    """`(part, whole)` of a condition. Every device of the part is in the whole."""
    part = sum(getattr(counts, phase) for phase in condition.phases)
    match condition.denominator:
        case "activated":
            whole = counts.tried
            if "refused" in condition.phases:
                whole += counts.refused
        case "reached":
            whole = counts.ever_reached
        case "targeted":
            whole = counts.all
        case _:
            assert_never(condition.denominator)
    return part, whole


def _said(condition: Condition, part: int, whole: int) -> str:
    good = " or ".join(_WORDS[phase] for phase in condition.phases)
    return f"{part} of {whole} {condition.denominator} devices {good}"


def _absent(counts: Counts) -> str:
    here = counts.all - counts.unlinked
    return f"{here} of {counts.all} are linked, {counts.ever_reached} reached"
