"""Evidence that a stream of windows is not what the reference was: a weighted Shiryaev-Roberts
e-detector over fixed bets (Shin, Ramdas and Rinaldo, arXiv 2203.03532).

Each bet is a ratio r over the slots of a feature with mean 1 under the reference: rank tilts of
location and scale, and spikes of single slots. The evidence of a bet restarts at every window t
with weight 1/(t(t+1)), which sum to 1; so the mean over the bets ever exceeds 1/alpha with at most
chance alpha for independent rows. Two things are allowed for:

- The reference is a sample of N rows. Each row pays log(1 + 2 sd(r)/sqrt(N)), a two-sigma margin
  and so no exact bound.
- Rows of one window depend on each other. Over the first 60 windows the variance of the window
  means of the rank scores is measured against that of independent rows; from then on every
  exponent is divided by that inflation, and by 1.5 times as much where it is more than chance
  alone shows. Until then it is 1/30: only gross faults fire.

Plain Python and plain data: the agent's supervisor steps it once a window without numpy, and the
control plane recomputes it from stored windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from operator import mul
from typing import Final

import msgspec

from protocol.histogram import Counts
from protocol.identifiers import Count
from protocol.members import Feature, Profile
from protocol.scores import scores, shares
from protocol.telemetry import DriftWindow

RULES: Final = 2
"""Of what is bet on, and how: a state of other rules means nothing to these."""
TILTS: Final = (0.15, 0.4, 1.0)
"""Of scores with variance 1. The smallest is the floor of effects that are ever called."""
KAPPA: Final = 2.0
"""Standard deviations of the reference's own sampling error that each row pays for."""
BURN_IN: Final = 60
"""Windows over which the dependence of rows is measured."""
BURN_IN_EXPONENT: Final = 1 / 30
VIF_SAFETY: Final = 1.5
"""The inflation of variance is an estimate from `BURN_IN` windows: one that is there is divided by
this much more."""
VIF_NOTED: Final = 1.35
"""Inflation above this counts as there. That of independent rows is about chi-square over its 59
degrees of freedom, whose upper 95 % point is 1.32: of 100 streams without any, 4 exceed this by
one score, 8 by the larger of two. A safety for what is not there costs a third of all evidence."""
LEAST_ROWS: Final = 20
"""A window of fewer rows steps nothing: it has no histograms either."""
CAP: Final = 40.0
"""Of each bet's log evidence, so that it falls again when a fault ends. A cap from above keeps the
chance of a false alarm at or below alpha."""
MOST_STREAMS: Final = 512
"""Streams beyond these have no bets; peers and cohorts still see them."""
DEFAULT_THRESHOLD: Final = 15.4
"""ln e at which a device says so by itself: at most 1 in 5 million streams of independent rows."""
SENT_FROM: Final = 3.0
MOST_SENT: Final = 16

_TENTHS: Final = 10
_SMALL_SPIKE: Final = (2.0, 0.01)
"""A slot holds twice its share and a hundredth more."""
_LARGE_SPIKE: Final = 0.5
"""Or half of all rows more."""
_MOST_SPIKE: Final = 0.95
_VIF_SCORES: Final = 2


@dataclass(frozen=True, slots=True)
class Bets:
    """All bets on one feature. The log ratio of a window is linear in few sums of its counts."""

    slots: int
    scores: tuple[tuple[float, ...], ...]
    """At most two scores per slot whose inflation of variance is measured."""
    means: tuple[float, ...]
    """Of each score under the reference."""
    deviations: tuple[float, ...]
    lines: tuple[tuple[int, float, float], ...]
    """Per bet `(which, slope, per_row)`: the log ratio is `slope * sum + per_row * n`, where `sum`
    is that of score `which`, or the count of slot `which - len(scores)`. Margins are in it."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream between two windows."""

    m: tuple[float, ...] = ()
    """Log evidence per bet; none before the first window, which is -inf for all."""
    z: tuple[tuple[Count, float, float], ...] = ()
    """Welford's (windows, mean, sum of squares) of each standardised score, during burn-in."""
    vif: float | None = None
    """Inflation of variance, once it is measured: the larger one of the scores."""


@dataclass(frozen=True, slots=True)
class DetectorState:
    """All streams of one profile."""

    t: Count = 0
    """Windows so far."""
    streams: tuple[StreamState, ...] = ()


@dataclass(frozen=True, slots=True)
class Stepped:
    state: DetectorState
    ln_e: tuple[float, ...]
    """Per stream; -inf where it has no bets, or too few rows in this window."""


def bets_of(feature: Feature) -> Bets:
    """The bets on one feature; none if its reference holds no rows."""
    p = shares(feature)
    measured = [each.values for each in scores(feature) if each.name != "outside"][:_VIF_SCORES]
    means = [_sum(p, h) for h in measured]
    deviations = [
        math.sqrt(sum(share * (x - mean) ** 2 for share, x in zip(p, h, strict=True)))
        for h, mean in zip(measured, means, strict=True)
    ]
    rows = sum(feature.counts)
    lines: list[tuple[int, float, float]] = []
    if rows and feature.kind == "number":
        for which, h in enumerate(measured):
            for tilt in (sign * theta for theta in TILTS for sign in (1, -1)):
                tilted = [math.exp(tilt * x) for x in h]
                norm = _sum(p, tilted)
                spread = sum(
                    share * (ratio / norm - 1) ** 2 for share, ratio in zip(p, tilted, strict=True)
                )
                lines.append((which, tilt, -math.log(norm) - _margin(spread, rows)))
    if rows:
        for slot, share in enumerate(p):
            for to in _spikes(share):
                inside, elsewhere = to / share, (1 - to) / (1 - share)
                spread = share * (inside - 1) ** 2 + (1 - share) * (elsewhere - 1) ** 2
                slope = math.log(inside) - math.log(elsewhere)
                per_row = math.log(elsewhere) - _margin(spread, rows)
                lines.append((len(measured) + slot, slope, per_row))
    return Bets(len(p), tuple(measured), tuple(means), tuple(deviations), tuple(lines))


def all_bets(profile: Profile) -> tuple[Bets, ...]:
    """Those on each stream of a profile, in order: features, then the residual; at most
    `MOST_STREAMS`."""
    streams = min(profile.streams, MOST_STREAMS)
    return tuple(bets_of(profile.stream(index)) for index in range(streams))


def exponent(stream: StreamState) -> float:
    """The power of the next window's ratios: what is known before that window comes."""
    if stream.vif is None:
        return BURN_IN_EXPONENT
    return 1 / max(1.0, stream.vif * (VIF_SAFETY if stream.vif > VIF_NOTED else 1.0))


def step(bets: Sequence[Bets], state: DetectorState, counts: Sequence[Counts]) -> Stepped:
    """One closed window. `counts` has one histogram per stream, `()` for one that is not kept;
    each of `bets` is asked for once.

    A histogram of other slots than the stream's bets is passed over as if it were empty.
    """
    t = state.t + 1
    fresh = -math.log(t * (t + 1))
    streams, ln_e = [], []
    for index, histogram in enumerate(counts):
        if index >= len(bets):
            ln_e.append(-math.inf)
            continue
        own = bets[index]
        stream = state.streams[index] if index < len(state.streams) else StreamState()
        rows = sum(histogram)
        if len(histogram) == own.slots and rows >= LEAST_ROWS:
            stream = _advance(own, stream, histogram, rows, fresh)
            ln_e.append(_log_mean(stream.m))
        else:
            ln_e.append(-math.inf)
        streams.append(stream)
    return Stepped(DetectorState(t, tuple(streams)), tuple(ln_e))


def evidence(ln_e: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """`(stream, floor(10 ln e))` of the at most 16 strongest from `SENT_FROM` on, by stream: what
    a `DriftWindow` carries. Equal ones in the order of streams."""
    strong = [(-value, index) for index, value in enumerate(ln_e) if value >= SENT_FROM]
    found = ((index, math.floor(-_TENTHS * value)) for value, index in nsmallest(MOST_SENT, strong))
    return tuple(sorted(found))


def histograms(window: DriftWindow, profile: Profile) -> tuple[Counts, ...] | None:
    """What `step` takes of a window; None if it steps nothing: too few rows, given up histograms,
    or not of this profile's form."""
    return laid_out(window, len(profile.features), residual=profile.residual is not None)


def laid_out(window: DriftWindow, features: int, *, residual: bool) -> tuple[Counts, ...] | None:
    """`histograms` for whoever keeps no more of a profile than how many features it has, and
    whether a residual."""
    if window.rows < LEAST_ROWS or len(window.counts) != features:
        return None
    if not window.counts and not window.residual:
        return None
    return (*window.counts, window.residual) if residual else window.counts


def run(profile: Profile, windows: Iterable[DriftWindow]) -> Iterator[Stepped]:
    """The detector from its start over windows in the order in which they were closed. Those that
    step nothing are passed over."""
    bets, state = all_bets(profile), DetectorState()
    for window in windows:
        counts = histograms(window, profile)
        if counts is not None:
            stepped = step(bets, state, counts)
            state = stepped.state
            yield stepped


def encode_state(state: DetectorState) -> bytes:
    return msgspec.msgpack.encode((RULES, state))


def decode_state(data: bytes) -> DetectorState:
    """Raises `ValueError` for bytes that are no state, or one of other bets."""
    rules, state = msgspec.msgpack.decode(data, type=tuple[int, DetectorState])
    if rules != RULES:
        raise ValueError(f"a state of rules {rules}; these are {RULES}")
    if not all(m <= CAP for stream in state.streams for m in stream.m):
        raise ValueError("evidence that no step leads to")
    return state


def _advance(
    bets: Bets, stream: StreamState, counts: Counts, rows: int, fresh: float
) -> StreamState:
    power = exponent(stream)
    sums = [_sum(counts, h) for h in bets.scores]
    known = [*sums, *counts]
    before = stream.m if len(stream.m) == len(bets.lines) else (-math.inf,) * len(bets.lines)
    after = []
    for m, (which, slope, per_row) in zip(before, bets.lines, strict=True):
        high, low = (m, fresh) if m > fresh else (fresh, m)
        grown = high + math.log1p(math.exp(low - high))
        after.append(min(CAP, grown + power * (slope * known[which] + per_row * rows)))
    if stream.vif is not None:
        return StreamState(tuple(after), (), stream.vif)
    z, vif = _measured(bets, stream.z, sums, rows)
    return StreamState(tuple(after), z, vif)


def _measured(
    bets: Bets, z: tuple[tuple[Count, float, float], ...], sums: Sequence[float], rows: int
) -> tuple[tuple[tuple[Count, float, float], ...], float | None]:
    """One more window of burn-in; after the last one the inflation, and nothing else is kept."""
    if not bets.scores:
        return (), 1.0
    taken = []
    for (count, mean, squares), total, expected, deviation in zip(
        z if len(z) == len(sums) else ((0, 0.0, 0.0),) * len(sums),
        sums,
        bets.means,
        bets.deviations,
        strict=True,
    ):
        value = (total - rows * expected) / (math.sqrt(rows) * deviation)
        moved = mean + (value - mean) / (count + 1)
        taken.append((count + 1, moved, squares + (value - mean) * (value - moved)))
    if taken[0][0] < BURN_IN:
        return tuple(taken), None
    return (), max(squares / (count - 1) for count, _, squares in taken)


def _spikes(share: float) -> list[float]:
    times, more = _SMALL_SPIKE
    goals = (min(_MOST_SPIKE, times * share + more), min(_MOST_SPIKE, share + _LARGE_SPIKE))
    return [goal for goal in goals if goal > share]


def _margin(spread: float, rows: int) -> float:
    return math.log1p(KAPPA * math.sqrt(spread / rows))


def _log_mean(m: Sequence[float]) -> float:
    """ln of the mean of exp(m); -inf for none."""
    high = max(m, default=-math.inf)
    if high == -math.inf:
        return high
    return high + math.log(sum(math.exp(x - high) for x in m) / len(m))


def _sum(counts: Sequence[float], values: Sequence[float]) -> float:
    total: float = sum(map(mul, counts, values))
    return total
