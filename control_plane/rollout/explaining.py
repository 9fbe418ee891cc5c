"""A rollout's verdict for whoever asks later: its record, the same computed again, its scores.

A record holds everything that the verdict was computed from, so `explain` needs nothing else: no
store, no fleet, no clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, Final

from control_plane.rollout import record as records
from control_plane.rollout.evidence import Watched
from control_plane.rollout.figures import Figures, ScoreFigures
from control_plane.rollout.gate import GATE, Judgement
from control_plane.rollout.score import EDGES
from control_plane.store.rollouts import Rollout

SAID: Final = ("verdict", "id", "sentence")


def record_of(
    rollout: Rollout, judgement: Judgement, now_ms: int, plan: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The record of a verdict. `plan`: number and version of the one in force, if there is one."""
    about = {
        "rollout": rollout.id,
        "model": rollout.model,
        "version": rollout.spec.version,
        "attempt": rollout.attempt,
        "waves": len(rollout.waves),
        "candidate": rollout.candidate,
        "over": rollout.over,
        "salt": rollout.salt,
        "plan": dict(plan) if plan is not None else None,
        "at_ms": now_ms,
        # Who goes on although nothing was proven is in the audit trail, under this digest.
        "accepted": rollout.accepted,
    }
    return records.record(judgement, about)


def said(judgement: Judgement) -> dict[str, str]:
    return {name: getattr(judgement, name) for name in SAID}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A recorded verdict and the same computed now. `same`: they say the same."""

    recorded: dict[str, str]
    recomputed: Judgement
    gate: str
    """Version of the rules that it was recorded with."""

    @property
    def same(self) -> bool:
        return self.recorded == said(self.recomputed)

    @property
    def sentence(self) -> str:
        """What became of the replay, in words."""
        if self.same:
            return "recomputed from the record: same verdict"
        if self.gate != GATE:
            return f"recorded by rules {self.gate}; by today's rules {GATE} it would be another"
        return "recomputed from the record: it differs, so the record is not what was judged"


def explain(record: Mapping[str, Any]) -> Explanation:
    """Raises `PeerError` for a record that no verdict can be computed from."""
    recorded = {name: str(record.get(name, "")) for name in SAID}
    return Explanation(recorded, records.replay(record), str(record.get("gate", "")))


# --- scores as people are shown them -------------------------------------------------------------


def gate_rows(judgement: Judgement) -> list[dict[str, Any]]:
    """One row per series of the last wave: what was seen, what is allowed, what that comes to.

    `seen` and `allowed` are how much worse than control: a ratio, standard deviations of the
    confidence of single rows, points, or PSI. `seen` is an estimate; None: nobody to compare.
    """
    found: Figures | None = judgement.figures
    if found is None:
        return []
    terms = judgement.asked.evidence.terms if judgement.asked is not None else None
    return [_row(each, terms.row_sd if terms else None) for each in found.scores]


def _row(each: ScoreFigures, row_sd: float | None) -> dict[str, Any]:
    watched = each.watched
    candidates, controls = each.judged
    change = _difference(each.a, each.b)
    seen = None
    if change is not None and watched.scale is not None:
        # The margin was taken off candidates before they were put into slots.
        seen = _shown(watched, change * watched.scale + watched.margin, row_sd)
    return {
        "series": watched.key,
        "metric": watched.metric,
        "part": watched.part,
        "sign": watched.sign,
        "exposure_seconds": watched.exposure_s,
        "unit": _UNITS[watched.metric],
        "allowed": _shown(watched, watched.margin, row_sd),
        "seen": seen,
        "role": each.role,
        "state": each.state,
        "candidates": candidates,
        "controls": controls,
        "candidates_of": each.n_a,
        "controls_of": each.n_b,
        "ln_evidence": _finite(each.ln_m),
        "ln_threshold": _finite(each.threshold),
        "ln_within": _finite(each.ln_pass),
    }


_UNITS: Final = {
    "error_rate": "ratio",
    "out_of_contract": "ratio",
    "latency": "ratio",
    "class_mix": "ratio",
    "confidence": "sd",
    "accuracy": "points",
    "drift": "psi",
}
_MIDDLES: Final = (
    EDGES[0] - 0.25,
    *((low + high) / 2 for low, high in itertools.pairwise(EDGES)),
    EDGES[-1] + 0.25,
)


def _difference(a: Sequence[int], b: Sequence[int]) -> float | None:
    """How much further up devices of the wave are than controls, in scales; ends are cut off."""
    if not sum(a) or not sum(b):
        return None
    return _mean(a) - _mean(b)


def _mean(counts: Sequence[int]) -> float:
    weighted = sum(count * middle for count, middle in zip(counts, _MIDDLES, strict=True))
    return weighted / sum(counts)


def _shown(watched: Watched, change: float, row_sd: float | None) -> float | None:
    match _UNITS[watched.metric]:
        case "ratio":
            return round(exp(change), 4)
        case "sd":
            return round(change / row_sd, 4) if row_sd else None
        case "psi":
            return round(change, 4)
        case _:
            return round(100 * change, 4)


def _finite(value: float) -> float | None:
    return round(value, 4) if abs(value) < float("inf") else None
