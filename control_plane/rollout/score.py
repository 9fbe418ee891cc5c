"""What changed on one device: its windows after a point in time against its own before.

A change D is larger the worse it is, and knows nothing of rollouts: the tolerance is subtracted by
whoever counts, for candidates only. Changes go into twelve slots of the fleet's own spread; the
evidence of `sequential` is computed from nothing but the counts of those slots.

    error_rate, out_of_contract   ln((e₁ + ½)/(n₁ + 1)) − ln((e₀ + ½)/(n₀ + 1))
    latency                       ln(p95₁ / p95₀), interpolated in logarithmic bins
    confidence                    mean₀ − mean₁ of the largest probability, per row
    class_mix                     per class ± the change of the logarithm of its share, as above;
                                  with more than ten classes the Hellinger distance of both mixes
    accuracy                      correct₀/labelled₀ − correct₁/labelled₁
    drift                         score₁ − score₀: how far the inputs are from the reference of the
                                  bundle that counted them (`drift.distance.drift_score`)

₁ is after, ₀ before: the same hours of the clock in the seasons before, so that a day's rhythm
cancels. A side with fewer than `LEAST` observations has no change at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS, Counts, add, quantile_s
from protocol.telemetry import InferenceWindow

if TYPE_CHECKING:
    from control_plane.rollout.conditions import Gates

Metric = Literal[
    "error_rate", "out_of_contract", "latency", "confidence", "class_mix", "accuracy", "drift"
]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
Array = npt.NDArray[np.float64]

LEAST: Final = 20
"""Observations a change needs, after and before; also devices whose median is an hour's centre."""
LEAST_SCALED: Final = 5
"""Changes a scale needs. A wrong scale costs power, never a wrong verdict."""
MOST_CLASSES: Final = 10
"""Classes that are watched one by one; more of them are watched as one distance."""

EDGES: Final = tuple(-2.5 + 0.5 * k for k in range(11))
"""Of the slots, in scales from the centre; a value on an edge is in the slot below it."""
SLOTS: Final = len(EDGES) + 1
_EDGES: Final = np.asarray(EDGES)

FLOORS: Final[Mapping[Metric, float]] = {
    "error_rate": 0.1,
    "out_of_contract": 0.1,
    "latency": 0.05,
    "confidence": 0.01,
    "class_mix": 0.1,
    "accuracy": 0.01,
    "drift": 0.005,
}
"""The smallest scales: a fleet that has not moved at all still has slots of some width."""

_MIDDLES: Final = (np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS
_RISE_WEIGHT: Final = 0.25
_SIGNS: Final = ((1, "+"), (-1, "-"))


@dataclass(frozen=True, slots=True)
class Sums:
    """What one device's windows of one bundle add up to over a span of time."""

    requests: int = 0
    """Answered."""
    rows: int = 0
    errors: int = 0
    """Requests that the model failed on; not among `requests`."""
    outside: int = 0
    """Rows outside of the contract's range."""
    latency: Counts = ()
    confidence: Counts = ()
    classes: Counts = ()
    labelled: int = 0
    """Rows whose true label has arrived."""
    correct: int = 0
    drift: float | None = None
    """Distance of the inputs from the reference; None: not looked at, or too few rows."""
    drift_rows: int = 0
    """Behind `drift`; 0 without one."""

    @classmethod
    def of(cls, window: InferenceWindow) -> Sums:
        return cls(
            window.answers,
            window.rows,
            window.errors,
            window.outside,
            window.latency,
            window.confidence,
            window.classes,
            window.labelled,
            window.correct,
        )

    def __add__(self, other: Sums) -> Sums:
        """Distances are weighed by rows. Raises `ValueError` for histograms over different
        classes."""
        drift_rows = self.drift_rows + other.drift_rows
        drift = None
        if drift_rows:
            weighed = (each.drift_rows * (each.drift or 0.0) for each in (self, other))
            drift = sum(weighed) / drift_rows
        return Sums(
            self.requests + other.requests,
            self.rows + other.rows,
            self.errors + other.errors,
            self.outside + other.outside,
            add(self.latency, other.latency),
            add(self.confidence, other.confidence),
            add(self.classes, other.classes),
            self.labelled + other.labelled,
            self.correct + other.correct,
            drift,
            drift_rows,
        )


@dataclass(frozen=True, slots=True)
class Table:
    """`Sums` of many devices, a column per field; histograms have the shape (devices, slots)."""

    requests: Array
    rows: Array
    errors: Array
    outside: Array
    latency: Array
    confidence: Array
    classes: Array
    labelled: Array
    correct: Array
    drift: Array
    """NaN where there is none."""
    drift_rows: Array

    @classmethod
    def of(cls, sums: Sequence[Sums]) -> Table:
        """Raises `ValueError` for devices with different classes."""
        classes = {len(each.classes) for each in sums if each.classes} or {0}
        if len(classes) > 1:
            raise ValueError(f"mixes of {sorted(classes)} classes do not compare")
        return cls(
            np.array([each.requests for each in sums], float),
            np.array([each.rows for each in sums], float),
            np.array([each.errors for each in sums], float),
            np.array([each.outside for each in sums], float),
            _histograms([each.latency for each in sums], LATENCY_SLOTS),
            _histograms([each.confidence for each in sums], CONFIDENCE_BINS),
            _histograms([each.classes for each in sums], classes.pop()),
            np.array([each.labelled for each in sums], float),
            np.array([each.correct for each in sums], float),
            np.array([np.nan if each.drift is None else each.drift for each in sums], float),
            np.array([each.drift_rows for each in sums], float),
        )


@dataclass(frozen=True, slots=True)
class Series:
    """One score: a metric over one exposure, with its tolerance in the units of D.

    Keys are like "error_rate/21600", "confidence+/21600", "class_mix.3-/86400".
    """

    key: str
    metric: Metric
    exposure_s: float
    margin: float
    part: int | None = None
    """Class of a class mix; None: the whole mix."""
    sign: int = 1
    """−1: a change in the other direction is the bad one."""


def series_of(
    gates: Gates,
    exposures_s: Sequence[float],
    classes: int,
    row_sd: float | None,
    *,
    labelled: bool = False,
) -> tuple[Series, ...]:
    """The scores of a rollout, exposure by exposure, with margins as tolerances of D.

    `classes`: of the model, 0 if it has none. `row_sd`: see `row_sd`; without it no confidence.
    `labelled`: devices send true labels. Accuracy and drift are judged on the last exposure only.
    """
    found = []
    for exposure_s in exposures_s:
        end = f"/{exposure_s:g}"
        for metric in METRICS:
            given = getattr(gates, metric)
            if given is None:
                continue
            match metric:
                case "error_rate" | "out_of_contract" | "latency":
                    found.append(Series(metric + end, metric, exposure_s, log(given)))
                case "confidence" if row_sd is not None:
                    found += [
                        Series(f"{metric}{mark}{end}", metric, exposure_s, given * row_sd, None, s)
                        for s, mark in _SIGNS
                    ]
                case "class_mix" if classes > MOST_CLASSES:
                    # The distance between two mixes whose shares all differ by the ratio.
                    far = log(given) / sqrt(8)
                    found.append(Series(metric + end, metric, exposure_s, far))
                case "class_mix" if classes > 1:
                    found += [
                        Series(f"{metric}.{c}{mark}{end}", metric, exposure_s, log(given), c, s)
                        for c in range(classes)
                        for s, mark in _SIGNS
                    ]
                case "accuracy" if labelled and exposure_s == exposures_s[-1]:
                    found.append(Series(metric + end, metric, exposure_s, given / 100))
                case "drift" if exposure_s == exposures_s[-1]:
                    found.append(Series(metric + end, metric, exposure_s, given))
                case _:
                    pass
    return tuple(found)


def alphas(series: Sequence[Series], total: float) -> dict[str, float]:
    """`total` shared out by key: evenly over metrics, then over a metric's exposures and parts.

    Of confidence a fall has four times the share of a rise, which is far less often a fault.
    """
    weights = {
        each.key: _RISE_WEIGHT if (each.metric, each.sign) == ("confidence", -1) else 1.0
        for each in series
    }
    sums = {
        metric: sum(weights[each.key] for each in series if each.metric == metric)
        for metric in METRICS
    }
    metrics = sum(each > 0 for each in sums.values())
    return {each.key: total / metrics * weights[each.key] / sums[each.metric] for each in series}


def changes(series: Sequence[Series], after: Sums, before: Sums) -> dict[str, float]:
    """D of one device per key, + = worse, without tolerance; absent where a side has too little.

    `after` and `before` span one exposure; `series` are those of that exposure.
    """
    found = changes_of_many(series, Table.of([after]), Table.of([before]))
    return {key: float(d[0]) for key, d in found.items() if not np.isnan(d[0])}


def changes_of_many(series: Sequence[Series], after: Table, before: Table) -> dict[str, Array]:
    """`changes` of many devices at once, shape (devices,); NaN where a side has too little.

    Raises `ValueError` for a class mix over other classes on either side.
    """
    found: dict[str, Array] = {}
    known: dict[tuple[Metric, bool], Array] = {}
    for each in series:
        whole = each.part is None
        if (each.metric, whole) not in known:
            known[each.metric, whole] = _change(each.metric, after, before, whole)
        d = known[each.metric, whole]
        if each.part is not None:
            # Without any mix on both sides it is not even known how many classes there are.
            d = d[:, each.part] if d.shape[1] else np.full(len(d), np.nan)
        found[each.key] = each.sign * d
    return found


def row_sd(confidence: Sequence[int]) -> float | None:
    """Standard deviation of rows' confidence; None below `LEAST` rows.

    At least that of rows spread over one bin: what is inside of a bin is not known.
    """
    counts = np.asarray(confidence, float)
    n = counts.sum()
    if n < LEAST:
        return None
    mean = counts @ _MIDDLES / n
    return max(sqrt(counts @ (_MIDDLES - mean) ** 2 / n), 1 / CONFIDENCE_BINS / sqrt(12))


def scale(metric: Metric, changes: Sequence[float] | Array) -> float | None:
    """Half the distance of the 16 % and 84 % quantiles, with a floor; None below `LEAST_SCALED`.

    The standard deviation of a normal distribution, and not moved by a few wild devices.
    """
    if len(changes) < LEAST_SCALED:
        return None
    low, high = np.quantile(np.asarray(changes, float), (0.16, 0.84))
    return max(float(high - low) / 2, FLOORS[metric])


def centre(this_hour: Sequence[float] | Array, all_so_far: Sequence[float] | Array) -> float:
    """Median of both arms together: this hour's, or of all so far where this hour has few.

    Raises `ValueError` when there is nothing at all.
    """
    values = this_hour if len(this_hour) >= LEAST else all_so_far
    if not len(values):
        raise ValueError("no values, no centre")
    return float(np.median(np.asarray(values, float)))


def slot_counts(values: Sequence[float] | Array, centre: float, scale: float) -> Counts:
    """How many values are in each of the twelve slots. Raises `ValueError` for NaN."""
    z = (np.asarray(values, float) - centre) / scale
    if np.isnan(z).any():
        raise ValueError("a change that is not a number has no slot")
    return tuple(np.bincount(np.searchsorted(_EDGES, z), minlength=SLOTS).tolist())


def _change(metric: Metric, after: Table, before: Table, whole: bool) -> Array:
    """Shape (devices,), or (devices, classes) of a class mix that is not taken as a whole."""
    d, n, n_before = _measured(metric, after, before, whole)
    d[(n < LEAST) | (n_before < LEAST)] = np.nan
    return d


def _measured(
    metric: Metric, after: Table, before: Table, whole: bool
) -> tuple[Array, Array, Array]:
    """D, and how many observations it is from on either side."""
    match metric:
        case "error_rate":
            n, n_before = after.requests + after.errors, before.requests + before.errors
            return _log_rate(after.errors, n) - _log_rate(before.errors, n_before), n, n_before
        case "out_of_contract":
            n, n_before = after.rows, before.rows
            return _log_rate(after.outside, n) - _log_rate(before.outside, n_before), n, n_before
        case "latency":
            n, n_before = after.latency.sum(axis=1), before.latency.sum(axis=1)
            return np.log(_p95(after.latency) / _p95(before.latency)), n, n_before
        case "confidence":
            n, n_before = after.confidence.sum(axis=1), before.confidence.sum(axis=1)
            mean = _mean(after.confidence @ _MIDDLES, n)
            return _mean(before.confidence @ _MIDDLES, n_before) - mean, n, n_before
        case "accuracy":
            n, n_before = after.labelled, before.labelled
            return _mean(before.correct, n_before) - _mean(after.correct, n), n, n_before
        case "drift":
            return after.drift - before.drift, after.drift_rows, before.drift_rows
        case "class_mix":
            n, n_before = after.classes.sum(axis=1), before.classes.sum(axis=1)
            mixes, mixes_before = _alike(after.classes, before.classes)
            if not whole:
                rates = _log_rate(mixes, n[:, None]) - _log_rate(mixes_before, n_before[:, None])
                return rates, n, n_before
            shares = _mean(mixes, n[:, None]) * _mean(mixes_before, n_before[:, None])
            return np.sqrt(np.maximum(1 - np.sqrt(shares).sum(axis=1), 0)), n, n_before


def _alike(a: Array, b: Array) -> tuple[Array, Array]:
    """Both mixes over the same classes; one that has none at all gets empty ones."""
    if a.shape[1] == b.shape[1]:
        return a, b
    if a.shape[1] and b.shape[1]:
        raise ValueError(f"mixes of {a.shape[1]} and {b.shape[1]} classes do not compare")
    width = max(a.shape[1], b.shape[1])
    return (
        a if a.shape[1] else np.zeros((len(a), width)),
        b if b.shape[1] else np.zeros((len(b), width)),
    )


def _log_rate(events: Array, n: Array) -> Array:
    return np.asarray(np.log((events + 0.5) / (n + 1)))


def _mean(total: Array, n: Array) -> Array:
    return np.asarray(total / np.maximum(n, 1))


def _p95(histograms: Array) -> Array:
    """Seconds; 1 where there are no counts, which are too little anyway."""
    return np.array([quantile_s(each, 0.95) or 1.0 for each in histograms.tolist()])


def _histograms(rows: Sequence[Counts], slots: int) -> Array:
    nothing = (0,) * slots
    return np.array([each or nothing for each in rows], float).reshape(len(rows), slots)
