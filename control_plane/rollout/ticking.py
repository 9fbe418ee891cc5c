"""From changes of single devices to slots of an hour, and to the terms that they are read in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from control_plane.rollout import score
from control_plane.rollout.evidence import Slots, Tick, Watched
from control_plane.rollout.exposure import most_classes
from control_plane.rollout.score import Series
from protocol.histogram import Counts, add

Side = Literal["a", "b"]
"""Of the wave, or a control."""

SCORES_ALPHA: Final = 0.02
"""The chance that any score ever calls a fine model worse, all series and waves together."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one device after one exposure. `changes` without tolerance, + = worse.

    Empty `changes`: too little traffic after it, or before. `records`: first and last number of
    ingest among the windows that were looked at; (0, 0) without any.
    """

    side: Side
    changes: Mapping[str, float]
    records: tuple[int, int] = (0, 0)


def needs_earlier(now: Sequence[Change], watched: Iterable[Watched]) -> bool:
    """Whether an hour has too few changes of some series to find its centre by itself."""
    found = Counter(key for each in now for key in each.changes)
    judged = {each.key for each in watched if each.scale is not None}
    return any(number < score.LEAST for key, number in found.items() if key in judged)


def tick_of(
    hour: int, now: Sequence[Change], earlier: Sequence[Change], watched: Iterable[Watched]
) -> Tick:
    """Slots of one closed hour. `earlier`: changes of the wave's hours before it, if it needs them.

    The tolerance is taken off candidates before the centre is found, so at exactly the margin
    both arms look alike.
    """
    slots: dict[str, Slots] = {}
    for each in watched:
        if each.scale is None:
            continue
        a, b = (_values(now, each, side) for side in ("a", "b"))
        if not a and not b:
            continue
        here = [*a, *b]
        so_far = (
            here
            if len(here) >= score.LEAST
            else [*_values(earlier, each, "a"), *_values(earlier, each, "b"), *here]
        )
        centre = score.centre(here, so_far)
        slots[each.key] = Slots(
            centre,
            score.slot_counts(a, centre, each.scale),
            score.slot_counts(b, centre, each.scale),
        )
    numbers = [number for each in now if each.records[1] for number in each.records]
    return Tick(hour, slots, (min(numbers, default=0), max(numbers, default=0)))


def _values(changes: Iterable[Change], watched: Watched, side: str) -> list[float]:
    margin = watched.margin if side == "a" else 0.0
    return [
        each.changes[watched.key] - margin
        for each in changes
        if each.side == side and watched.key in each.changes
    ]


# --- terms ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One device on the last day before the start, when nothing had changed."""

    changes: Mapping[str, float]
    classes: int = 0
    confidence: Counts = ()
    labelled: bool = False
    """It was sent true labels."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """How much devices change by themselves, per series."""

    by_key: dict[str, list[float]] = field(default_factory=dict)
    classes: int = 0
    confidence: Counts = ()

    @property
    def row_sd(self) -> float | None:
        return score.row_sd(self.confidence)


def scatter(rehearsed: Sequence[Rehearsed]) -> Scatter:
    """Changes per series. Of class mixes, only those of the number of classes that most have."""
    classes = most_classes(each.classes for each in rehearsed)
    by_key: dict[str, list[float]] = defaultdict(list)
    confidence: Counts = ()
    for each in rehearsed:
        confidence = add(confidence, each.confidence)
        for key, value in each.changes.items():
            if not key.startswith("class_mix") or each.classes == classes:
                by_key[key].append(value)
    return Scatter(dict(by_key), classes, confidence)


def watched_of(series: Sequence[Series], found: Scatter) -> tuple[Watched, ...]:
    """Each series with its scale, and its part of the chance of a wrong verdict.

    A series whose scatter is not known is in the list, is not judged, and has no part.
    """
    scales = {each.key: score.scale(each.metric, found.by_key.get(each.key, ())) for each in series}
    judged = [each for each in series if scales[each.key] is not None]
    alphas = score.alphas(judged, SCORES_ALPHA)
    return tuple(
        Watched(
            each.key,
            each.metric,
            each.exposure_s,
            each.margin,
            scales[each.key],
            alphas.get(each.key, 0.0),
            each.part,
            each.sign,
        )
        for each in series
    )


def series_in(watched: Iterable[Watched], exposure_s: float) -> tuple[Series, ...]:
    """The series of one exposure that devices are judged in."""
    return tuple(
        Series(each.key, each.metric, each.exposure_s, each.margin, each.part, each.sign)
        for each in watched
        if each.scale is not None and each.exposure_s == exposure_s
    )
