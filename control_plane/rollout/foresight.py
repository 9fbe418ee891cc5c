"""What each wave of a rollout can and cannot show, before it starts: rows and sentences.

Failures are exact (detect.py). How far scores scatter is known from an earlier rollout of the
model, or not at all before the first; then only that is said.
"""

from __future__ import annotations

from math import log
from typing import Any, Final

from control_plane.rollout.conditions import UNITS
from control_plane.rollout.detect import Aborts, Detects, aborts, detects, sentences
from control_plane.rollout.evidence import BACKGROUND, Terms, Watched
from control_plane.rollout.score import FLOORS, METRICS, Metric
from control_plane.rollout.sentences import WORDS
from control_plane.rollout.sequential import smallest_margin, smallest_shift
from control_plane.rollout.spec import Gates, RolloutSpec
from control_plane.rollout.waves import Layout
from protocol.wording import duration

MOST_ROW_SD: Final = 0.5
"""Standard deviation that numbers between 0 and 1 cannot exceed."""
ALPHA_FAILED: Final = 0.025
"""Share of wrong aborts that is granted to the verdict *fail* for failures."""


def foresee(layout: Layout, targets: int, terms: Terms | None = None) -> dict[str, Any]:
    """`detects`: a row per wave that has devices of its own; `sentences` about the first one."""
    spec = layout.spec
    background = terms.background if terms else BACKGROUND
    rows: list[dict[str, Any]] = []
    seen: list[Detects] = []
    before = 0
    for number, planned in enumerate(layout.waves, start=1):
        devices, before = planned.devices - before, planned.devices
        if devices < 1:
            continue
        found = detects(
            devices,
            limit=spec.failure_limit,
            background=background,
            alpha=ALPHA_FAILED,
            share=2.0**-number,
        )
        seen.append(found)
        condition = aborts(spec.error_condition, devices) if spec.error_condition else None
        rows.append(
            {
                "wave": number,
                **_failures(found),
                "aborts": _aborts(condition),
                "scores": scores(spec.gates, terms, devices, targets - planned.devices, number),
            }
        )
    first = rows[0]["scores"] if rows else []
    said = sentences(
        seen,
        targets,
        spec.soak_of(1),
        proven=[WORDS[row["metric"]] for row in first if row["role"] == "guard"],
        watched=[WORDS[row["metric"]] for row in first if row["role"] == "watch"],
        aborting=aborts(spec.error_condition, seen[0].devices)
        if spec.error_condition and seen
        else None,
    )
    return {"detects": rows, "sentences": [*said, *unseen(spec, targets, first)]}


def scores(
    gates: Gates, terms: Terms | None, wave: int, control: int, number: int
) -> list[dict[str, Any]]:
    """One row per score that is looked at.

    `role`: *guard* (its tolerance can be shown to be kept, and has to be), *watch* (it can fail
    the rollout, never hold it back), *unknown* (nobody knows yet how much it scatters) or
    *nobody* (no device is left to compare with). `notices`: the change of every device, in the
    unit of the margin's logarithm or as it is, that is caught 80 times in 100; None if unknown.
    """
    rows = []
    for metric in METRICS:
        margin = getattr(gates, metric)
        watched = [each for each in terms.watched if each.metric == metric] if terms else []
        # Without labels from devices accuracy has no source.
        if margin is None or (metric == "accuracy" and not watched):
            continue
        best = _most_tolerance(metric, margin)
        role, notices = _role(metric, best, watched, wave, control, number)
        rows.append(
            {
                "metric": metric,
                "margin": {UNITS[metric][0]: margin},
                "role": role,
                "notices": notices,
            }
        )
    return rows


def unseen(spec: RolloutSpec, targets: int, first: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the first wave cannot see at all."""
    said = []
    if spec.gates.off:
        said.append("scores are off: only failures and silent devices are judged")
    unknown = [WORDS[row["metric"]] for row in first if row["role"] == "unknown"]
    if unknown:
        said.append(
            "how much scores scatter is measured when it starts; until then nobody knows what "
            f"{', '.join(unknown)} can show"
        )
    if any(row["role"] == "nobody" for row in first):
        helps = "; a holdback helps" if targets > 1 else ""
        said.append(f"scores prove nothing: no device is left to compare with{helps}")
    labelled = any(row["metric"] == "accuracy" for row in first)
    if spec.gates.accuracy is not None and not labelled:
        said.append("it cannot see accuracy: no device sends labels")
    soak_s = spec.soak_of(1)
    said.append(
        f"it cannot see faults that show later than {duration(soak_s)}"
        if soak_s
        else "it cannot see faults that take time to show: there is no soak"
    )
    return tuple(said)


def _most_tolerance(metric: Metric, margin: float) -> float:
    """The largest that a margin can come to, in the units of changes."""
    match metric:
        case "confidence":
            return margin * MOST_ROW_SD
        case "accuracy":
            return margin / 100
        case "drift":
            return margin
        case _:
            return log(margin)


def _role(
    metric: Metric, best: float, watched: list[Watched], wave: int, control: int, number: int
) -> tuple[str, float | None]:
    """Of a score with all its series: the weakest decides, after the longest exposure.

    `best`: the largest tolerance that its margin can come to. Where that is too small even for a
    fleet that hardly scatters, nobody needs to know how much it does.
    """
    if control < 1:
        return "nobody", None
    known = [each for each in watched if each.scale is not None]
    if not known:
        hopeless = best < smallest_margin(FLOORS[metric], wave, control)
        return ("watch" if hopeless else "unknown"), None
    last_s = max(each.exposure_s for each in known)
    longest = [each for each in known if each.exposure_s == last_s]
    guards = all(e.margin >= smallest_margin(e.scale or 0, wave, control) for e in longest)
    notices = max(
        e.margin + smallest_shift(e.scale or 0, wave, control, e.alpha * 2.0**-number)
        for e in longest
    )
    return ("guard" if guards else "watch"), notices


def _failures(found: Detects) -> dict[str, Any]:
    return {
        "devices": found.devices,
        "excluded_without_failure": found.excluded,
        "passes_up_to": found.passable,
        "then_excluded": found.limit,
        "notices": [{"rate": rate, "chance": chance} for rate, chance in found.notices],
        "fails_from": found.fails_from,
    }


def _aborts(found: Aborts | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "judged_from": found.judged_from,
        "needed": found.needed,
        "chances": [{"rate": rate, "chance": chance} for rate, chance in found.chances],
    }
