"""Verdicts in words: plain, with numbers and denominators, and what would change them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, exp
from typing import Final

from control_plane.rollout import sequential, shares
from control_plane.rollout.evidence import Exposed, Watched
from control_plane.rollout.figures import PROVEN, Figures, ScoreFigures
from control_plane.rollout.phase import Counts, Phase
from control_plane.rollout.score import EDGES, METRICS, Metric
from control_plane.rollout.spec import OnFailure
from protocol.wording import clock, duration

WORDS: Final[dict[Metric, str]] = {
    "error_rate": "error rate",
    "out_of_contract": "answers out of contract",
    "latency": "latency",
    "confidence": "confidence",
    "class_mix": "class mix",
    "accuracy": "accuracy",
    "drift": "distance of inputs from the reference",
}
_MOST_MORE: Final = 100_000
"""Above so many devices nobody is told that they would settle something."""


def percent(share: float) -> str:
    """ "63 %", "8.9 %", "0.3 %": two significant digits."""
    return f"{float(f'{share * 100:.2g}'):g} %"


def passes(together: Counts, found: Figures) -> str:
    said = f"{found.bad} of {found.n} devices failed; rates above {percent(found.upper)} are"
    said += f" excluded (95 %).{scores(found)}"
    return f"{said} {together.unlinked} not linked." if together.unlinked else said


def scores(found: Figures) -> str:
    """ " Latency is within tolerance. Not proven: confidence."; empty where none is judged."""
    by_metric: dict[Metric, list[ScoreFigures]] = {}
    longest: dict[object, float] = {}
    for each in found.scores:
        key = each.watched.score
        longest[key] = max(longest.get(key, 0.0), each.watched.exposure_s)
    for each in found.scores:
        if each.watched.exposure_s == longest[each.watched.score]:
            by_metric.setdefault(each.watched.metric, []).append(each)
    within = [m for m, them in by_metric.items() if all(e.state == "within" for e in them)]
    alone = [m for m, them in by_metric.items() if all(e.state == "no control" for e in them)]
    rest = [m for m in by_metric if m not in within and m not in alone]
    said = ""
    if within:
        verb = "is" if len(within) == 1 else "are"
        said += f" {names(within).capitalize()} {verb} within tolerance."
    if rest:
        said += f" Not proven: {names(rest)}."
    if alone:
        said += f" Not judged, no control left: {names(alone)}."
    return said


def names(metrics: Iterable[Metric]) -> str:
    words = [WORDS[metric] for metric in METRICS if metric in set(metrics)]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def too_many(
    counts: Counts, phases: tuple[Phase, ...], limit: float, explained: float = 0.0
) -> str:
    """`explained`: of the silent, how many the silence of control explains."""
    part = sum(getattr(counts, phase) for phase in phases)
    said = f"{part} of {counts.tried} devices {shares.how(phases, counts)}"
    also = f" and silence among old devices (up to {explained:.0f})" if explained else ""
    verb = "explain" if explained else "explains"
    return f"{said}: more than the limit of {percent(limit)}{also} {verb}."


def sooner(counts: Counts, limit: float, a: tuple[int, int], b: tuple[int, int]) -> str:
    """Silence: `a`, `b` are (fell silent, at risk) of the wave and of control."""
    said = too_many(counts, ("silent",), limit).removesuffix(".")
    return f"{said}, and {a[0]} of {a[1]} new against {b[0]} of {b[1]} old devices."


def worse(score: ScoreFigures) -> str:
    """Seen from the edge between two slots at which the arms differ most."""
    edge, a, b = _edge(score)
    n, m = score.judged
    watched = score.watched
    what = series(watched)
    what = what[0].upper() + what[1:]
    said = f"{what} is worse than tolerated: {a} of {n} new against {b} of {m} old"
    return f"{said} devices above {beyond(watched, edge)}."


def series(watched: Watched) -> str:
    """ "error rate after 6 h", "share of class 3 after 24 h"."""
    what = WORDS[watched.metric]
    if watched.part is not None:
        what = f"share of class {watched.part}"
    if watched.metric in ("confidence", "class_mix") and watched.part is None:
        what += "" if watched.sign > 0 else ", upwards,"
    elif watched.part is not None:
        what += " upwards" if watched.sign > 0 else " downwards"
    return f"{what} after {duration(watched.exposure_s)}"


def beyond(watched: Watched, edge: float) -> str:
    """A change, in scales from the middle of that hour, as an operator reads it."""
    far = edge * (watched.scale or 0.0)
    match watched.metric:
        case "confidence":
            what, margin = f"{far:.2g} more change than usual", f"{watched.margin:.2g}"
        case "accuracy":
            what, margin = f"{far * 100:.2g} points", f"{watched.margin * 100:.2g} points"
        case "drift":
            what, margin = f"{far:.2g} PSI", f"{watched.margin:.2g} PSI"
        case "class_mix" if watched.part is None:
            what, margin = f"a distance of {far:.2g}", f"{watched.margin:.2g}"
        case _:
            what, margin = f"{exp(far):.2f} times the usual", f"{exp(watched.margin):.3g} times"
    return f"{what} (beyond the {margin} that new ones may)"


def consequence(threshold: float, counts: Counts, on_failure: OnFailure) -> str:
    runs = counts.activated + counts.healthy + counts.unexercised
    then = {
        "abort rollback": ("returns to what it ran before", "return to what they ran before"),
        "abort keep": ("keeps it", "keep it"),
        "pause": ("runs it", "run it"),
    }[on_failure]
    devices = f"1 device {then[0]}" if runs == 1 else f"{runs} devices {then[1]}"
    chance = percent(exp(-threshold))
    said = f"A fine model gets this verdict with chance below {chance}."
    # Where all have gone back by themselves, there is no more to say.
    return f"{said} {devices}." if runs else said


def lacks(newest: Counts, found: Figures, until_ms: int | None, now_ms: int) -> str:
    under_way = newest.reached + newest.downloading + newest.staged + newest.activated
    apart = [
        f"{newest.targeted} not reached",
        f"{under_way} under way" if under_way else "",
        f"{newest.unexercised} without traffic",
        f"{newest.refused} refused it" if newest.refused else "",
        f"{newest.silent} silent since activation",
    ]
    said = f"{found.n} of {newest.all} judged: {', '.join(filter(None, apart))}."
    said += f" {newest.unlinked} not linked." if newest.unlinked else ""
    return said if until_ms is None else f"{said} Waiting until {clock(until_ms, now_ms)}."


def soaks(proven: bool, found: Figures, left_s: float) -> str:
    so_far = "pass" if proven else f"{found.bad} of {found.n} failed, not proven"
    return f"{so_far} so far; soak ends in {duration(left_s)}"


def unheard(score: ScoreFigures) -> str:
    (a, b), what = score.judged, series(score.watched)
    what = what[0].upper() + what[1:]
    return f"{what}: {a} of {score.n_a} new and {b} of {score.n_b} old devices. "


def unproven_failures(found: Figures) -> str:
    why = f"{found.bad} of {found.n} failed, which allows rates up to {percent(found.upper)}"
    more = more_devices(found.n, found.bad, found.bound, found.background)
    return _unproven(found, f"{why}, wanted {percent(found.bound)}", more)


def unproven_scores(found: Figures, guards: Sequence[ScoreFigures]) -> str:
    metrics = {each.watched.metric for each in guards}
    verb = "is" if len(metrics) == 1 else "are"
    why = f"{names(metrics)} {verb} not shown to be within tolerance"
    slowest = min(guards, key=lambda each: each.ln_pass)
    more = None
    if slowest.ln_pass > 0:
        # Evidence grows in proportion to devices.
        more = ceil(slowest.judged[0] * (PROVEN / slowest.ln_pass - 1))
    return _unproven(found, why, more)


def untraffic(found: Figures, exposed: Exposed) -> str:
    a, b = exposed.due_a - exposed.a, exposed.due_b - exposed.b
    why = f"{a} of {exposed.due_a} new against {b} of {exposed.due_b} old devices without traffic"
    return _unproven(found, why, None)


def more_devices(n: int, bad: int, bound: float, background: float) -> int | None:
    """How many more would exclude rates above `bound` if they fail at `background`; None: too many.

    Found by doubling, then halving: what is excluded falls with more devices, but for rounding.
    """

    def settled(more: int) -> bool:
        return sequential.excluded(n + more, bad + round(background * more)) <= bound

    high = 1
    while not settled(high):
        high *= 2
        if high > _MOST_MORE:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high


def _unproven(found: Figures, why: str, more: int | None) -> str:
    said = f"{found.n} devices judged: neither harm nor safety shown; {why}."
    if more is None or more > _MOST_MORE:
        return f"{said} More devices like these would not settle it."
    return f"{said} About {more} more would settle it."


def _edge(score: ScoreFigures) -> tuple[float, int, int]:
    """(edge, devices of the wave above it, controls above it), where their shares differ most."""
    n, m = score.judged

    def at(slot: int) -> tuple[float, int, int]:
        return EDGES[slot], sum(score.a[slot + 1 :]), sum(score.b[slot + 1 :])

    ahead = [at(slot) for slot in range(len(EDGES)) if EDGES[slot] >= 0]
    return max(ahead, key=lambda each: each[1] / max(n, 1) - each[2] / max(m, 1))
