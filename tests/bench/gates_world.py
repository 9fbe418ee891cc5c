"""Simulated fleets for the measurement of gates: traffic, errors, confidence, labels, failures.

Ten devices per canary; the waves are the canaries, a quarter and a half of the fleet, 48 hours
each, and nobody after them. Three in ten devices are flaky: they read their plan late, and fail
silently. Traffic and error rates differ by orders of magnitude from device to device, wander
(AR(1), .95 an hour), follow a season of a day and shocks that are common to all.

Every array has a row per device; those by hour have `HOURS` columns, the first `START` of them
before the rollout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from control_plane.rollout.score import Table
from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS

Array = npt.NDArray[np.float64]
Hourly = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WAVES: Final = 3
START: Final = 72
WAVE_HOURS: Final = 48
HOURS: Final = START + WAVES * WAVE_HOURS
SEASON: Final = 24
PER_CANARY: Final = 10
LATER: Final = 9
"""Wave of the half that no judged wave takes: control to the end."""

ROW_SD: Final = 0.15
"""Standard deviation of the confidence of rows."""
LABEL_DELAY: Final = 12
"""Hours from an answer to its true label."""
SILENCE_KNOWN: Final = 12
"""Hours from a device's end to the verdict that it is silent."""


@dataclass(frozen=True, slots=True)
class World:
    canaries: int
    wave: Numbers
    """1 to 3, or `LATER`."""
    start: Numbers
    """(WAVES, devices): hour from which a device counts in each wave, on either side."""
    flaky: Mask
    requests: Hourly
    error_rate: Hourly
    errors: Hourly
    confidence: Hourly
    """Mean over the rows of an hour."""
    labels: Hourly
    correct: Hourly
    background: Array
    """(WAVES, devices): hours from the start to a failure that has nothing to do with the model;
    infinite: none."""

    @property
    def devices(self) -> int:
        return len(self.wave)

    def sides(self, wave: int) -> tuple[Mask, Mask]:
        """Devices of the wave, and those that are its control."""
        return self.wave == wave, self.wave > wave


@dataclass(frozen=True, slots=True)
class Failures:
    """Of one wave, in the order in which they become known. A row per failing device."""

    device: Numbers
    hour: Array
    after: Array
    """Hours since the device's start."""
    candidate: Mask
    reported: Mask
    """False: it falls silent."""


def make(canaries: int, rng: np.random.Generator) -> World:
    """A fleet in which the candidate changes nothing yet."""
    n = PER_CANARY * canaries
    ends = [canaries, round(0.25 * n), round(0.5 * n)]
    place = rng.permutation(n)
    wave = np.full(n, LATER)
    for number, (first, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
        wave[(place >= first) & (place < end)] = number
    flaky = rng.random(n) < 0.3
    late = np.minimum(rng.geometric(0.2, (WAVES, n)) - 1, 11)
    lag = np.where(flaky, late, rng.integers(0, 2, (WAVES, n)))
    hour = np.arange(HOURS)
    traffic = 60 * np.exp(rng.normal(size=n))
    season = 1 + 0.8 * np.sin(2 * np.pi * hour / SEASON)
    requests = rng.poisson(traffic[:, None] * season).astype(np.float32)
    shocks = 0.4 * np.sin(2 * np.pi * (hour + 5) / SEASON) + _wander(1, 0.2, 0.97, rng)[0]
    own = np.exp(0.7 * rng.normal(size=n))[:, None] * np.exp(_wander(n, 0.3, 0.95, rng))
    rate = (0.01 * own * np.exp(shocks)).clip(0, 0.5).astype(np.float32)
    common = 0.03 * np.sin(2 * np.pi * hour / SEASON) + _wander(1, 0.01, 0.97, rng)[0]
    noise = ROW_SD * rng.normal(size=(n, HOURS)) / np.sqrt(np.maximum(requests, 1))
    level = (0.8 + 0.05 * rng.normal(size=n))[:, None]
    confidence = (level + common + _wander(n, 0.02, 0.95, rng) + noise).astype(np.float32)
    labelled = (rng.random(n) < 0.1)[:, None]
    right = 0.9 + 0.03 * rng.normal(size=n)[:, None] + _wander(n, 0.01, 0.95, rng)
    labels = np.where(labelled, 4, 0) * np.ones(HOURS, np.float32)
    correct = np.where(labelled, rng.binomial(4, np.clip(right, 0.5, 0.99)), 0)
    fails = rng.random((WAVES, n)) < np.where(flaky, 0.03, 0.01)
    return World(
        canaries,
        wave,
        START + WAVE_HOURS * np.arange(WAVES)[:, None] + lag,
        flaky,
        requests,
        rate,
        rng.poisson(requests * rate).astype(np.float32),
        confidence,
        labels.astype(np.float32),
        correct.astype(np.float32),
        np.where(fails, rng.random((WAVES, n)) * 36, np.inf),
    )


def worse(
    world: World,
    rng: np.random.Generator,
    *,
    errors: float = 1.0,
    confidence: float = 0.0,
    accuracy: float = 0.0,
) -> World:
    """The same fleet with a candidate that multiplies the rate of errors, and takes so much
    (of 1) off the confidence and off the share of correct answers, on every device that runs it."""
    runs = np.zeros((world.devices, HOURS), bool)
    for number in range(1, WAVES + 1):
        those = world.wave == number
        runs[those] = np.arange(HOURS) >= world.start[number - 1][those][:, None]
    changed = world
    if errors > 1:
        more = rng.poisson(world.requests * world.error_rate * (errors - 1) * runs)
        changed = replace(changed, errors=(world.errors + more).astype(np.float32))
    if confidence:
        less = world.confidence - np.float32(confidence) * runs
        changed = replace(changed, confidence=less.astype(np.float32))
    if accuracy:
        wrong = rng.binomial(world.correct.astype(int), accuracy / 0.9) * runs
        changed = replace(changed, correct=(world.correct - wrong).astype(np.float32))
    return changed


def failures(world: World, rng: np.random.Generator, more: float) -> tuple[Failures, ...]:
    """Of each wave: the background's, and those of a candidate that breaks a share `more` of its
    devices, mostly within an hour; a third of the latter fall silent. 48 hours per device."""
    found = []
    for number in range(1, WAVES + 1):
        candidate, control = world.sides(number)
        after = world.background[number - 1].copy()
        reported = ~world.flaky
        broken = candidate & (rng.random(world.devices) < more)
        soon, said = rng.exponential(1.0, world.devices), rng.random(world.devices) < 2 / 3
        first = broken & (soon < after)
        after[first], reported = soon[first], np.where(first, said, reported)
        known = np.where(reported, after, after + SILENCE_KNOWN)
        those = np.flatnonzero((candidate | control) & (known < WAVE_HOURS))
        hour = (world.start[number - 1] + known)[those]
        order = np.argsort(hour, kind="stable")
        those = those[order]
        found.append(Failures(those, hour[order], known[those], candidate[those], reported[those]))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Totals:
    """Running sums by hour, so that any span of hours of any device is one subtraction."""

    requests: Array
    errors: Array
    confidence: Array
    """Sum over rows."""
    labels: Array
    correct: Array

    @classmethod
    def of(cls, world: World, known: tuple[World, Totals] | None = None) -> Totals:
        """`known`: those of a fleet that may have streams in common with this one."""
        like, old = known or (None, None)

        def same(name: str) -> bool:
            return like is not None and getattr(world, name) is getattr(like, name)

        return cls(
            old.requests if old and same("requests") else _running(world.requests),
            old.errors if old and same("errors") else _running(world.errors),
            old.confidence
            if old and same("confidence")
            else _running(world.confidence * world.requests),
            old.labels if old and same("labels") else _running(world.labels),
            old.correct if old and same("correct") else _running(world.correct),
        )

    def over(self, start: Numbers, hours: int) -> tuple[Table, Table]:
        """Every device's `hours` from its start on, and the same hours one and two days before."""
        after = self._table([(start, start + hours)])
        earlier = [(start - back, start - back + hours) for back in (2 * SEASON, SEASON)]
        return after, self._table(earlier)

    def _table(self, spans: list[tuple[Numbers, Numbers]]) -> Table:
        def total(running: Array) -> Array:
            device = np.arange(len(running))
            within = [np.clip(ends, 0, HOURS) for span in spans for ends in span]
            found = [
                running[device, end] - running[device, first]
                for first, end in zip(within[::2], within[1::2], strict=True)
            ]
            return np.asarray(sum(found))

        asked, errors = total(self.requests), total(self.errors)
        n = len(asked)
        return Table(
            requests=np.maximum(asked - errors, 0),
            rows=asked,
            errors=errors,
            outside=np.zeros(n),
            latency=np.zeros((n, LATENCY_SLOTS)),
            confidence=_around(total(self.confidence), asked),
            classes=np.zeros((n, 0)),
            labelled=total(self.labels),
            correct=total(self.correct),
            drift=np.full(n, np.nan),
            drift_rows=np.zeros(n),
        )


def _around(total: Array, rows: Array) -> Array:
    """A histogram with the mean that was simulated: all rows in the two bins around it."""
    place = np.clip(total / np.maximum(rows, 1) * CONFIDENCE_BINS - 0.5, 0, CONFIDENCE_BINS - 1.001)
    below = place.astype(int)
    device = np.arange(len(rows))
    found = np.zeros((len(rows), CONFIDENCE_BINS))
    found[device, below] = rows * (1 - (place - below))
    found[device, below + 1] = rows * (place - below)
    return found


def _running(hourly: Hourly) -> Array:
    return np.concatenate(
        [np.zeros((len(hourly), 1)), np.cumsum(hourly, axis=1, dtype=float)], axis=1
    )


def _wander(n: int, sd: float, memory: float, rng: np.random.Generator) -> Hourly:
    """Stationary AR(1), a row per device."""
    found = np.empty((n, HOURS), np.float32)
    found[:, 0] = rng.normal(size=n) * sd
    steps = rng.normal(size=(n, HOURS)).astype(np.float32) * sd * np.sqrt(1 - memory**2)
    for hour in range(1, HOURS):
        found[:, hour] = memory * found[:, hour - 1] + steps[:, hour]
    return found
