"""What an operator's condition makes of counts: a part, a whole, and a sentence.

- A share of failures is a share of devices that tried (activated, or given up on the way), with
  those that rolled back or fell silent in it, and of at least `min_completed` devices: what has
  not tried yet counts as fine, so an early abort would also be one later.
- A wave is judged by itself and together with those before it, so that many good devices of
  earlier waves cannot hide a bad wave.
"""

from __future__ import annotations

from typing import Final, assert_never

from control_plane.rollout.conditions import Condition
from control_plane.rollout.phase import Counts, Phase

_WORDS: Final[dict[Phase, str]] = {
    "failed": "failed",
    "rolled_back": "rolled back",
    "silent": "fell silent",
    "refused": "refused",
    "healthy": "healthy",
    "unexercised": "without traffic",
}


def failing(condition: Condition | None, counts: Counts) -> str | None:
    """Why a wave fails by its error condition; None: it does not."""
    if condition is None:
        return None
    part, whole = share(condition, counts)
    least = min(condition.min_completed, counts.all)
    if part == 0 or not condition.holds(part, max(whole, least)):
        return None
    of = f"{whole} {condition.denominator}" if whole >= least else f"the {least} that are judged:"
    devices = "devices " if whole >= least else ""
    limit = f"{'more than' if condition.operator == '>' else 'from'} {condition.percent:g} %"
    return f"{part} of {of} {devices}{how(condition.phases, counts)}; {limit} aborts"


def lacking(condition: Condition | None, counts: Counts) -> str | None:
    """What a wave lacks for its success condition; None: nothing."""
    if condition is None:
        return None
    part, whole = share(condition, counts)
    if condition.holds(part, whole):
        return None
    good = " or ".join(_WORDS[phase] for phase in condition.phases)
    without = f", {counts.unexercised} had too little traffic" if counts.unexercised else ""
    said = f"{part} of {whole} {condition.denominator} devices {good}"
    return f"{said}{without}; wanted {condition.text}"


def least(condition: Condition | None, counts: Counts) -> int:
    """From how many devices a wave is judged; a smaller wave is judged from all of its devices."""
    return max(1, min(condition.min_completed if condition else 1, counts.waited_for))


def share(condition: Condition, counts: Counts) -> tuple[int, int]:
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


def how(phases: tuple[Phase, ...], counts: Counts) -> str:
    """ "rolled back", or "went wrong (1 failed, 2 fell silent)"."""
    apart = [f"{n} {_WORDS[phase]}" for phase in phases if (n := getattr(counts, phase))]
    if len(apart) == 1:
        return apart[0].partition(" ")[2]
    return f"went wrong ({', '.join(apart)})"
