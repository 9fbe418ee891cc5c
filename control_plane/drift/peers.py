"""Whether a device sees other inputs than its peers do at the same time.

Each device is compared with all others of its slot of time, never with itself among them; all but
the one that stands out most also without that one: a sensor that is wrong must not make its peers
look wrong, nor hide behind how much it makes them differ. What all of them see, like night and day,
is no difference.

Devices differ a little for good, so what counts as much is taken from how much they differ here:
the middle of the devices' own statistics sets the scale of their tail.

A scaled chi-square through the middle (Satterthwaite 1946) is the tail of differences of many
kinds at once. Where devices differ in one way, in location say, its tail is too light: measured,
a hundred devices with offsets of .2 deviations and 500 rows have .3 that stand out by it, and six
devices 4 of 100. So the statistic is also taken apart into location, spread and the rest, and each
part is divided by its own scale; the larger p counts. Location and spread are tested by themselves
as well.

What differs in location by a healthy o differs in spread, in the rest, and in how much lies
outside, by something like o squared: in a few devices by far more than the middle shows, and with
thousands of rows each of them would stand out. So of each part only what the parts before it do not
bring along counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, gammainccinv, gammaln, ndtr

from control_plane.drift.distance import corrected_psi, grouped
from protocol.histogram import Counts
from protocol.identifiers import DeviceId
from protocol.members import Feature

Array = npt.NDArray[np.float64]

LEAST_PEERS: Final = 5
"""Devices in a slot of time, below which none is judged."""
FITTED_FROM: Final = 12
"""Devices from which on degrees of freedom are fitted as well; below it the scale alone."""
LEAST_ROWS: Final = 50
"""Of a device in a slot, to be judged and to be in the pool."""
NEEDED: Final = 2
LOOKED_AT: Final = 3

_SMALL_DEVICE: Final = 0.1
"""Quantile of the devices' rows for which merged slots are large enough."""
_MEDIAN: Final = 0.5
_QUARTER: Final = 0.25
_STEPS: Final = 50
_DIRECTIONS: Final = 2
"""Parts of one degree of freedom each: location and spread."""
_ALONG: Final = 0.5
"""Measured with 5,000 rows that are normal, Laplace or t, and healthy shifts of .2 deviations: at
most 1 of 1000 devices stands out with it, about 1 of 70 with 0, 1 of 300 with .3. With 1 a fault
has to be larger: of sensors that are off by a whole deviation three are found instead of five."""
_HEALTHY: Final = (0.5, 9.0)
"""The most that location or spread of a healthy device comes to, by which it brings others along:
per row (.7 standard deviations), or as so many times its scale, whichever is more. What is beyond
is a fault, and its other parts count as they are."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much devices differ in one stream: their statistics are about g chi-square(nu)."""

    g: float
    """At least 1: devices never differ less than their rows do."""
    nu: float
    df: int
    """Merged slots less one, without the device that stands out most: nu without differences."""
    devices: int
    """That were judged in this stream."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A device that stands out in one stream."""

    device: DeviceId
    index: int
    """Of the stream."""
    p: float
    psi: float
    """Bias-corrected, against its peers."""
    statistic: float
    """Pearson's, unscaled."""
    rows: int
    outside: bool
    """It has more rows outside of the reference's range than its peers."""


@dataclass(frozen=True, slots=True)
class Compared:
    judged: tuple[DeviceId, ...]
    """By id; empty below `LEAST_PEERS` devices with enough rows."""
    found: tuple[Peer, ...]
    """Smallest p first."""
    scales: tuple[Scale, ...]
    """One per stream; of no devices where it was not judged."""


def compare(
    streams: Sequence[Feature],
    devices: Mapping[DeviceId, Sequence[Counts]],
    report: float = 1e-3,
) -> Compared:
    """Every device against the pool of the others, found where p < `report`.

    `devices`: the counts of each stream, () where a device has none. Per stream Pearson's
    two-sample statistic and its parts, small slots merged alike for all devices, and Fisher's exact
    test that there is more outside of the reference's range; the smaller p counts, doubled. Raises
    `ValueError` for counts of other slots than the stream's.
    """
    judged: set[DeviceId] = set()
    found: list[Peer] = []
    scales: list[Scale] = []
    for index, feature in enumerate(streams):
        names, table = _heard(index, feature, devices)
        if len(names) < LEAST_PEERS:
            scales.append(Scale(1.0, 0.0, 0, 0))
            continue
        judged.update(names)
        scale, peers = _stream(index, feature, names, table, report)
        scales.append(scale)
        found.extend(peers)
    found.sort(key=lambda peer: (peer.p, peer.device, peer.index))
    return Compared(tuple(sorted(judged)), tuple(found), tuple(scales))


def broken(hits: Sequence[bool], *, few: bool = False) -> bool:
    """Whether a device stood out often enough in its own last slots, in one stream, newest last.

    2 of the last 3; with `few` peers (fewer than `FITTED_FROM` devices) 3 of 3.
    """
    last = hits[-LOOKED_AT:]
    return sum(last) >= (LOOKED_AT if few else NEEDED)


def partition(table: Array, merged: Sequence[npt.NDArray[np.intp]]) -> tuple[Array, list[int]]:
    """Pearson's two-sample statistic of each row of counts against the sum of all other rows, in
    orthogonal parts that add up to it, and the degrees of freedom of each part.

    Parts are location and spread by midranks, and the rest; shape (parts, devices). `table` has
    shape (devices, slots); `merged` names the slots of each group, none of which is empty in all
    devices. The others' deviation is this one's with the opposite sign, so that everything follows
    from the shares of all: (1/n + 1/m) Σ (c − n q)² / q.
    """
    groups = np.stack([table[:, each].sum(axis=1) for each in merged], axis=1)
    rows = table.sum(axis=1)
    total = rows.sum()
    q = groups.sum(axis=0) / total
    deviations = groups - rows[:, None] * q
    weights = 1 / rows + 1 / (total - rows)
    whole = weights * (deviations**2 / q).sum(axis=1)
    parts = [weights * (deviations @ each) ** 2 for each in _directions(q)]
    rest = len(merged) - 1 - len(parts)
    if rest:
        parts.append(np.maximum(0.0, whole - np.sum(parts, axis=0)))
    return np.reshape(parts, (len(parts), len(rows))), [1, 1, rest][: len(parts)]


def fitted(statistic: Array, df: int) -> Scale:
    """A scaled chi-square through the median and the upper quartile of the devices' statistics.

    Three quarters of the devices decide: those that stand out do not. Below `FITTED_FROM` devices
    only the median is used.
    """
    count = len(statistic)
    if df == 0:
        return Scale(1.0, 0.0, 0, count)
    middle, upper = np.quantile(statistic, [1 - _MEDIAN, 1 - _QUARTER])
    nu = float(df)
    if count >= FITTED_FROM and middle > 0:
        nu = _freedom(float(upper / middle), df)
    return Scale(max(1.0, float(middle) / _upper_quantile(nu, _MEDIAN)), nu, df, count)


def _heard(
    index: int, feature: Feature, devices: Mapping[DeviceId, Sequence[Counts]]
) -> tuple[tuple[DeviceId, ...], Array]:
    chosen = {
        name: counts[index]
        for name, counts in sorted(devices.items())
        if sum(counts[index]) >= LEAST_ROWS
    }
    if any(len(each) != len(feature.counts) for each in chosen.values()):
        raise ValueError(f"{feature.name}: the counts are of another profile")
    table = np.asarray(list(chosen.values()), float).reshape(len(chosen), len(feature.counts))
    return tuple(chosen), table


def _stream(
    index: int, feature: Feature, names: Sequence[DeviceId], table: Array, report: float
) -> tuple[Scale, list[Peer]]:
    rows = table.sum(axis=1)
    pooled = table.sum(axis=0)
    statistic, main, along, scale = _against_peers(table, float(np.quantile(rows, _SMALL_DEVICE)))
    outside = _outside_p(table[:, list(feature.outside)].sum(axis=1), rows, along, report / 2)
    p = np.minimum(1.0, 2 * np.minimum(main, outside))
    return scale, [
        Peer(
            names[n],
            index,
            float(p[n]),
            corrected_psi(table[n].tolist(), (pooled - table[n]).tolist()),
            float(statistic[n]),
            int(rows[n]),
            bool(outside[n] < main[n]),
        )
        for n in map(int, np.flatnonzero(p < report))
    ]


def _directions(q: Array) -> Iterator[Array]:
    """Up to two orthonormal scores over groups of shares `q`: of midranks, and of their squares."""
    ranks = np.cumsum(q) - q / 2
    known = [np.ones(len(q))]
    for score in (ranks, (ranks - 0.5) ** 2)[: len(q) - 1]:
        free = score - sum((q @ (score * each)) * each for each in known)
        known.append(free / np.sqrt(q @ free**2))
        yield known[-1]


def _against_peers(table: Array, small: float) -> tuple[Array, Array, Array, Scale]:
    """Statistics and p of all devices, by how many standard errors location and spread may move
    another share of theirs, and the scale that they have."""
    every, freedoms = partition(table, grouped(table.sum(axis=0), small))
    first = int(np.argmax(every.sum(axis=0)))
    rest = np.delete(table, first, axis=0)
    others, freedoms_there = partition(rest, grouped(rest.sum(axis=0), small))
    by = _inflations(others, freedoms_there)
    others, along = _alone(others, _error(rest), by)
    one, along_one = _alone(every[:, [first]], _error(table)[[first]], by)
    # Of what is left of them: each part is divided by the scale of that.
    by = _inflations(others, freedoms_there)
    most = others.sum(axis=0)
    scale = fitted(np.append(most, most.max()), sum(freedoms_there))
    p = np.insert(
        _tails(others, sum(freedoms_there), by, scale),
        first,
        _tails(one, sum(freedoms), by, scale),
    )
    statistic = np.insert(most, first, one.sum())
    return statistic, p, np.insert(along, first, along_one), scale


def _error(table: Array) -> Array:
    """Per device, the standard error of a difference from the others, of scores of variance 1."""
    rows = table.sum(axis=1)
    result: Array = np.sqrt(1 / rows + 1 / (rows.sum() - rows))
    return result


def _alone(parts: Array, error: Array, by: Sequence[float]) -> tuple[Array, Array]:
    """Of each part what those before it do not bring along, and by how many standard errors
    location and spread do. `by`: how much larger these are in healthy devices than by chance.

    A shift by o standard deviations makes location about n o² and spread, the rest and what lies
    outside about (c o² √n)², which is c² times location squared by n. c is .6 for the spread of
    normal rows; `_ALONG` is a little less, as all of it also counts with the scales of its own.
    """
    along = np.zeros(len(error))
    alone = []
    for number, part in enumerate(parts):
        alone.append(np.maximum(0.0, np.sqrt(part) - along) ** 2)
        if number < _DIRECTIONS:
            scale = by[number] if number < len(by) else 1.0
            most = np.maximum(_HEALTHY[0] / error**2, _HEALTHY[1] * scale)
            along = along + _ALONG * error * np.minimum(part, most)
    return np.reshape(alone, parts.shape), along


def _tails(parts: Array, df: int, by: Sequence[float], scale: Scale) -> Array:
    """p of each statistic, of location and of spread: the smallest, times how many they are.

    Of each the largest by chi-square, by the fitted one, and part by part. `by` are the scales of
    the parts; a part that only the first device has is taken as it is.
    """
    if df == 0:
        return np.ones(parts.shape[1])
    statistic = parts.sum(axis=0)
    scaled = [part / known for part, known in zip(parts, (*by, 1.0, 1.0), strict=False)]
    whole = np.maximum(chdtrc(df, statistic), chdtrc(df, np.sum(scaled, axis=0)))
    whole = np.maximum(whole, chdtrc(max(scale.nu, 1.0), statistic / scale.g))
    # A gain that is wrong moves one of nine degrees of freedom: alone it is seen far earlier.
    tests = [whole, *(chdtrc(1, each) for each in scaled[:2] if df > 1)]
    result: Array = np.minimum(1.0, len(tests) * np.min(tests, axis=0))
    return result


def _inflations(parts: Array, freedoms: Sequence[int]) -> list[float]:
    """Of the devices' parts, without the one that stands out most.

    It counts as the largest, whichever that is: quantiles stay unbiased.
    """
    fit = np.hstack([parts, parts.max(axis=1, keepdims=True)])
    return [_inflation(each, freedom) for each, freedom in zip(fit, freedoms, strict=True)]


def _inflation(statistic: Array, df: int) -> float:
    """At least 1: how many times chi-square the middle of the devices' statistics is."""
    middle, upper = np.quantile(statistic, [1 - _MEDIAN, 1 - _QUARTER])
    by_middle = float(middle) / _upper_quantile(df, _MEDIAN)
    return max(1.0, by_middle, float(upper) / _upper_quantile(df, _QUARTER))


def _upper_quantile(nu: float, p: float) -> float:
    """What chi-square with nu degrees of freedom exceeds with chance p."""
    return float(2 * gammainccinv(nu / 2, p))


def _freedom(ratio: float, df: int) -> float:
    """nu in 1 to df with an upper quartile `ratio` times its median. The ratio falls with nu."""
    low, high = 1.0, float(df)
    for _ in range(_STEPS):
        nu = (low + high) / 2
        if _upper_quantile(nu, _QUARTER) > ratio * _upper_quantile(nu, _MEDIAN):
            low = nu
        else:
            high = nu
    return (low + high) / 2


def _outside_p(seen: Array, rows: Array, along: Array, report: float) -> Array:
    """p that a device has as few rows as that outside of the reference's range by chance.

    Fisher's exact test, and not below what devices differ in that anyway, nor below what is left
    of it without the standard errors `along` that location and spread bring with them. What is
    above `report` is told as 1: only small p are worth their time.
    """
    result = np.ones(len(seen))
    total, of_all = rows.sum(), seen.sum()
    more = np.flatnonzero(seen * total > rows * of_all)
    # The chance of exactly so many is a lower bound of p, and cheap.
    exactly = _exactly(seen[more], total, of_all, rows[more])
    rare = more[exactly < report]
    if not len(rare):
        return result
    # Takes a second to import, which a control plane that starts again does not have to spend.
    from scipy.stats import hypergeom

    exact = hypergeom.sf(seen[rare] - 1, total, of_all, rows[rare])
    others = (of_all - seen[rare]) / (total - rows[rare])
    share = of_all / total
    error = np.sqrt(share * (1 - share) * (1 / rows[rare] + 1 / (total - rows[rare])))
    far = (seen[rare] / rows[rare] - others) / error - along[rare]
    result[rare] = np.maximum(exact, ndtr(-far / np.sqrt(_scatter(seen, rows))))
    return result


def _scatter(seen: Array, rows: Array) -> float:
    """How much more devices differ in a share than their rows do: a factor on the variance.

    About the median share, which a few broken devices do not move; 1 where that is 0.
    """
    share = float(np.median(seen / rows))
    if not 0 < share < 1:
        return 1.0
    return _inflation((seen - rows * share) ** 2 / (rows * share * (1 - share)), 1)


def _exactly(seen: Array, total: float, of_all: float, rows: Array) -> Array:
    """Hypergeometric chance of exactly `seen` of `of_all` among `rows` of `total`."""

    def ln_choose(n: Array | float, k: Array) -> Array:
        result: Array = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
        return result

    ln_p = ln_choose(of_all, seen) + ln_choose(total - of_all, rows - seen)
    result: Array = np.exp(ln_p - ln_choose(total, rows))
    return result
