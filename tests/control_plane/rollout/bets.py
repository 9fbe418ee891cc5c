"""Evidence for tests: a wave of devices whose changes are as they are said to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from control_plane.rollout.evidence import (
    Evidence,
    Exposed,
    Silence,
    Slots,
    Terms,
    Tick,
    Watched,
    WaveEvidence,
)
from control_plane.rollout.phase import Counts
from control_plane.rollout.score import slot_counts

HOUR = 3_600_000
ERRORS = Watched("error_rate/86400", "error_rate", 86_400.0, 0.182, 0.25, 0.004)
LATENCY = Watched("latency/86400", "latency", 86_400.0, 0.14, 0.05, 0.004)
CONFIDENCE = Watched("confidence+/86400", "confidence", 86_400.0, 0.005, 0.02, 0.004)


def terms(*watched: Watched, devices: int = 300, limit: float = 0.02) -> Terms:
    return Terms("2", "ab" * 16, devices, "sha256-" + "1" * 64, None, limit, 0.02, watched)


def tick(
    hour: int, watched: Watched, a: Sequence[float], b: Sequence[float], centre: float = 0.0
) -> Tick:
    """`a`, `b`: changes of devices of the wave, tolerance taken off, and of controls."""
    assert watched.scale is not None
    slots = Slots(
        centre,
        slot_counts(list(a), centre, watched.scale),
        slot_counts(list(b), centre, watched.scale),
    )
    return Tick(hour, {watched.key: slots}, (hour, hour))


def shifted(watched: Watched, n: int, by: float) -> list[float]:
    """A bell of `n` changes in the middle of `by`: not chance, so that tests are tables."""
    assert watched.scale is not None
    places = (np.arange(n) + 0.5) / n
    return [by + watched.scale * float(ndtri(place)) for place in places]


def compared(watched: Watched, n: int, m: int, change: float, hour: int = 500) -> Tick:
    """One hour in which `n` new devices changed by `change` for the worse and `m` old by 0."""
    return tick(hour, watched, shifted(watched, n, change - watched.margin), shifted(watched, m, 0))


def evidence(
    counts: Counts | dict[int, Counts],
    *ticks: Tick,
    watched: Sequence[Watched] = (),
    eligible: tuple[int, int] = (0, 0),
    silences: Sequence[Silence] = (),
    judged: dict[str, Exposed] | None = None,
    limit: float = 0.02,
    began_ms: int = HOUR,
) -> Evidence:
    """All but `counts` is of the last wave."""
    by_wave = {1: counts} if isinstance(counts, Counts) else counts
    last = max(by_wave)
    waves = tuple(
        WaveEvidence(
            number,
            began_ms,
            each,
            eligible if number == last else (0, 0),
            tuple(ticks) if number == last else (),
            tuple(silences) if number == last else (),
            judged or {} if number == last else {},
        )
        for number, each in by_wave.items()
    )
    return Evidence(terms(*watched, limit=limit), waves)
