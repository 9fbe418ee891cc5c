"""Rules of others, on the same simulated rollouts: fixed thresholds, counted checks, peeked tests.

hawkBit      errorCondition THRESHOLD: reported failures / devices of the group > 10 %
AWS Jobs     abortConfig: reported failures / completed executions >= 10 %, from a tenth completed
Flagger      rollback on the fifth hourly check with a rate of errors above 2.6 %, or without data
Mann–Whitney Kayenta's: hourly means of both groups, confidence .98 one-sided, tolerance a quarter
             of the Hodges–Lehmann estimate; asked again every two hours from the twelfth on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.bench.gates_world import (
    START,
    WAVE_HOURS,
    WAVES,
    Array,
    Failures,
    Mask,
    World,
)

FIXED_LIMIT: Final = 0.10
FLAGGER_RATE: Final = 0.026
FLAGGER_CHECKS: Final = 5
_Z: Final = 2.326
_TOLERANCE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Stop:
    """When a rule ends a rollout: hours from the simulation's begin, and the wave it is in."""

    hour: float
    wave: int


def hawkbit(world: World, found: Sequence[Failures]) -> Stop | None:
    for number, each in enumerate(found, start=1):
        group = int((world.wave == number).sum())
        hours = each.hour[each.candidate & each.reported]
        for failed, hour in enumerate(hours, start=1):
            if failed / group > FIXED_LIMIT:
                return Stop(hour, number)
    return None


def aws(world: World, found: Sequence[Failures]) -> Stop | None:
    """A device that has not failed within an hour of its start has completed."""
    for number, each in enumerate(found, start=1):
        group = world.wave == number
        ours = each.candidate & each.reported
        completes = group.copy()
        completes[each.device[ours & (each.after < 1)]] = False
        completed = world.start[number - 1][completes] + 1
        for failed, hour in enumerate(each.hour[ours], start=1):
            done = failed + int((completed <= hour).sum())
            if done >= max(1.0, 0.1 * group.sum()) and failed / done >= FIXED_LIMIT:
                return Stop(hour, number)
    return None


def flagger(world: World) -> Stop | None:
    failed = 0
    for number in range(1, WAVES + 1):
        errors, requests = _hourly(world, number, "error_rate")
        candidate = world.wave == number
        for hour in range(1, WAVE_HOURS):
            asked = requests[candidate, hour].sum()
            if not asked or errors[candidate, hour].sum() / asked > FLAGGER_RATE:
                failed += 1
            if failed >= FLAGGER_CHECKS:
                return Stop(_begin(number) + hour, number)
    return None


def mann_whitney(world: World, metric: str) -> Stop | None:
    for number in range(1, WAVES + 1):
        total, weight = _hourly(world, number, metric)
        candidate, control = world.sides(number)
        x, y = (_means(total[side], weight[side]) for side in (candidate, control))
        if metric == "confidence":
            x, y = -x, -y
        heard = weight[candidate].sum(axis=0) > 0
        for hour in range(12, WAVE_HOURS, 2):
            ours, theirs = x[:hour][heard[:hour]], y[:hour]
            if len(ours) >= 8 and _differs(ours, theirs):
                return Stop(_begin(number) + hour, number)
    return None


def _differs(x: Array, y: Array) -> bool:
    m, n = len(x), len(y)
    shifts = np.sort((x[:, None] - y).ravel())
    lowest = int(m * n / 2 - _Z * np.sqrt(m * n * (m + n + 1) / 12))
    shift = float(np.median(shifts))
    return shift > 0 and float(shifts[max(lowest, 0)]) > _TOLERANCE * shift


def _begin(wave: int) -> int:
    return START + (wave - 1) * WAVE_HOURS


def _hourly(world: World, wave: int, metric: str) -> tuple[Array, Array]:
    """Sums and weights by hour of the wave, from each device's own start on."""
    span = slice(_begin(wave), _begin(wave) + WAVE_HOURS)
    on: Mask = np.arange(span.start, span.stop) >= world.start[wave - 1][:, None]
    requests = world.requests[:, span] * on.astype(float)
    if metric == "error_rate":
        return world.errors[:, span] * on.astype(float), requests
    return world.confidence[:, span] * requests, requests


def _means(total: Array, weight: Array) -> Array:
    return np.asarray(total.sum(axis=0) / np.maximum(weight.sum(axis=0), 1))
