"""What a runner counted lately, so that a fault that begins after a year is seen in minutes.

Totals since load cannot show it: a year of good answers outweighs any fault. So counts are
remembered at moments in time, and what came since each of them is judged. For requests that fail
the measure is Chernoff's bound: of n requests, k bad ones are too many if
n · KL(k/n || share) > ln(1/1e-9), where exp(-n · KL) bounds the chance of k or more at the share
that is allowed (Hoeffding 1963, theorem 1). At a share of 1 % these are five failures in a row, or
5 % of 600 requests; a sound bundle that is looked at every few seconds for years stays clear of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from protocol.telemetry import InferenceWindow

SLICE_S: Final = 10.0
"""Between two remembered moments."""
HORIZON_S: Final = 600.0
"""How far back is looked: ten minutes, or as long as it takes to see `ENOUGH` requests."""
ENOUGH: Final = 100
FALSE_ALARM: Final = 1e-9
LEAST_SHARE: Final = 1e-3
"""A share below this is held to this: one odd answer in a year is no fault."""
BLOCK: Final = 400
"""Rows, or requests, that are compared with the version before at once; each only once."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests, by what became of them. Like `InferenceWindow`, `errors` and `refused` come on top
    of `answers`."""

    answers: int = 0
    errors: int = 0
    nonfinite: int = 0
    refused: int = 0

    @property
    def requests(self) -> int:
        return self.answers + self.errors

    def since(self, earlier: Counts) -> Counts:
        return Counts(
            self.answers - earlier.answers,
            self.errors - earlier.errors,
            self.nonfinite - earlier.nonfinite,
            self.refused - earlier.refused,
        )


@dataclass(frozen=True, slots=True)
class Lately:
    """The recent past of one bundle in one runner. What was there at the first look is past."""

    moments: tuple[tuple[float, Counts], ...] = ()
    """Monotonic seconds and what was counted until then; oldest first."""
    now: Counts = Counts()
    begun: InferenceWindow | None = None
    """Everything counted when the open block began."""

    def saw(self, window: InferenceWindow, now_s: float) -> Lately:
        """After another look; `window` is everything since the runner loaded the bundle."""
        counts = Counts(window.answers, window.errors, window.nonfinite, window.refused)
        if not self.moments or _went_back(self.now, counts):
            return Lately(((now_s, counts),), counts, window)
        moments = self.moments
        at_s, last = moments[-1]
        if now_s - at_s >= SLICE_S and counts != last:
            moments = (*moments, (now_s, counts))
        while len(moments) > 1 and _spare(moments[1], counts, now_s):
            moments = moments[1:]
        return replace(self, moments=moments, now=counts)

    def spans(self) -> Iterator[Counts]:
        """What was counted since each remembered moment."""
        for _, counts in self.moments:
            yield self.now.since(counts)

    def block(self, window: InferenceWindow) -> tuple[Lately, InferenceWindow | None]:
        """The counts to compare with the version before, if there are enough; and then the next
        block begins."""
        if self.begun is None:
            return self, None
        fresh = minus(window, self.begun)
        if max(fresh.answers, sum(fresh.confidence), sum(fresh.classes)) < BLOCK:
            return self, None
        return replace(self, begun=window), fresh


def too_many(bad: int, of: int, share: float) -> bool:
    """Whether `bad` of so many requests cannot be chance where `share` is allowed."""
    share = max(share, LEAST_SHARE)
    if share >= 1 or not bad or bad <= share * of:
        return False
    return of * _divergence(bad / of, share) > -math.log(FALSE_ALARM)


def minus(later: InferenceWindow, earlier: InferenceWindow) -> InferenceWindow:
    """What was counted between two looks at one runner's totals since load."""
    return replace(
        later,
        answers=later.answers - earlier.answers,
        rows=later.rows - earlier.rows,
        errors=later.errors - earlier.errors,
        refused=later.refused - earlier.refused,
        nonfinite=later.nonfinite - earlier.nonfinite,
        latency=_less(later.latency, earlier.latency),
        confidence=_less(later.confidence, earlier.confidence),
        classes=_less(later.classes, earlier.classes),
        by_rules=later.by_rules - earlier.by_rules,
    )


def _less(later: tuple[int, ...], earlier: tuple[int, ...]) -> tuple[int, ...]:
    if not earlier:
        return later
    return tuple(x - y for x, y in zip(later, earlier, strict=True))


def _divergence(seen: float, allowed: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli distributions, in nats."""
    whole = seen * math.log(seen / allowed)
    return whole if seen >= 1 else whole + (1 - seen) * math.log((1 - seen) / (1 - allowed))


def _went_back(before: Counts, now: Counts) -> bool:
    return min(now.answers - before.answers, now.errors - before.errors) < 0


def _spare(moment: tuple[float, Counts], now: Counts, now_s: float) -> bool:
    """Whether enough has come since this moment, so that the one before it can be forgotten."""
    at_s, counts = moment
    return now_s - at_s > HORIZON_S and now.since(counts).requests >= ENOUGH
