"""Before the start: what a wave of n devices can see, and what it cannot.

Everything is exact for devices that fail independently at one rate. Ten canaries cannot prove
much; whoever starts a rollout reads here how little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, log
from typing import Final

import numpy as np
from scipy.special import bdtrc

from control_plane.rollout.conditions import Condition
from control_plane.rollout.sequential import NOTHING, carry, excluded, limit_evidence, passable
from protocol.wording import duration

RATES: Final = (0.05, 0.10, 0.30)
"""Failure rates of a bad model that are told about."""
TELLING: Final = 0.10
"""A wave that cannot exclude this failure rate is said to prove little."""


@dataclass(frozen=True, slots=True)
class Detects:
    """What failures in one wave of `devices` can and cannot show. Rates are from 0 to 1."""

    devices: int
    excluded: float
    """Without any failure, higher rates are excluded (95 %)."""
    passable: int
    """Failures with which the wave still passes."""
    limit: float
    """The rate that the wave excludes when it passes with `passable` failures."""
    notices: tuple[tuple[float, float], ...]
    """(true rate, chance that the wave does not pass)."""
    fails_from: int | None
    """Failures for the verdict *fail*, with all devices tried; None: not even all of them."""


@dataclass(frozen=True, slots=True)
class Aborts:
    """How often an operator's `error_condition` ends one wave of `devices`."""

    devices: int
    judged_from: int
    needed: int
    """Failures among `judged_from` that are too many."""
    chances: tuple[tuple[float, float], ...]
    """(true rate, chance that the condition ever holds)."""


def detects(
    devices: int,
    *,
    limit: float = 0.02,
    background: float = 0.02,
    alpha: float = 0.025,
    share: float = 0.5,
    rates: Sequence[float] = RATES,
) -> Detects:
    """`limit`: failures tolerated; `background`: the share of devices that fails anyway;
    `alpha`: of the verdict *fail* for failures; `share`: of the wave in it, ½ for the first.

    Raises `ValueError` for a wave without devices.
    """
    if devices < 1:
        raise ValueError("a wave has at least one device")
    most, shown = passable(devices, background, limit)
    return Detects(
        devices,
        excluded(devices, 0),
        most,
        shown,
        tuple((rate, float(bdtrc(most, devices, rate))) for rate in rates),
        _fails_from(devices, limit, alpha, share),
    )


def aborts(condition: Condition, devices: int, rates: Sequence[float] = RATES) -> Aborts:
    """Exact chances that an `error_condition` ever holds as the devices of a wave try one by one.

    It is judged from `min_completed` devices on, or from all of a smaller wave, after each.
    Raises `ValueError` for a condition that is not about too many.
    """
    first = min(condition.min_completed, devices)
    return Aborts(
        devices,
        first,
        too_many(condition, first if condition.denominator == "activated" else devices),
        tuple((rate, _ever(condition, devices, first, rate)) for rate in rates),
    )


def too_many(condition: Condition, whole: int) -> int:
    """The smallest number of `whole` for which the condition holds; more than `whole`: none."""
    part = Fraction(str(condition.percent)) * whole / 100
    match condition.operator:
        case ">":
            return floor(part) + 1
        case ">=":
            return ceil(part)
    raise ValueError(f"{condition.text} is not about too many")


def sentences(
    waves: Sequence[Detects],
    targeted: int,
    soak_s: float,
    *,
    rate: float = TELLING,
    proven: Sequence[str] = (),
    watched: Sequence[str] = (),
    aborting: Aborts | None = None,
) -> tuple[str, ...]:
    """What the first wave can and cannot detect, as text: a row per fact.

    `proven`, `watched`: names of scores that the first wave can, or cannot, show to be within
    their tolerance. `waves` in order, each by itself. Empty without waves.
    """
    if not waves:
        return ()
    first = waves[0]
    only = "only excludes" if first.excluded > TELLING else "excludes"
    missed = 1 - float(bdtrc(first.passable, first.devices, rate))
    rows = [
        f"wave 1: {first.devices} of {targeted} devices, {duration(soak_s)}",
        f"with no failure it {only} failure rates above {percent(first.excluded)} (95 %)",
        f"it misses a model that breaks {100 * rate:g} % of devices {_times(missed)}",
    ]
    if first.fails_from is None:
        rows.append("not even all of its devices failing prove that the model is to blame: it asks")
    else:
        rows.append(f"it fails from {first.fails_from} failures on")
    if aborting is not None:
        rows.append(
            f"error_condition aborts from {aborting.needed} of {aborting.judged_from}: "
            + ", ".join(f"at {100 * r:g} % {_times(chance)}" for r, chance in aborting.chances)
        )
    if proven:
        rows.append(f"proven within tolerance: {', '.join(proven)}")
    if watched:
        rows.append(f"watched, not proven: {', '.join(watched)}")
    if first.limit > TELLING:
        later = next((n for n, each in enumerate(waves, 1) if each.limit <= TELLING), None)
        if later is None:
            rows.append(f"no wave can exclude a failure rate of {100 * TELLING:g} %")
        else:
            found = waves[later - 1]
            rows.append(
                f"wave {later} ({found.devices}) is the first that can exclude "
                f"{percent(found.limit)}"
            )
    return tuple(rows)


def percent(share: float) -> str:
    """Two digits are enough: 63 %, 9.5 %, 0.3 %."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def _times(chance: float) -> str:
    return f"{100 * chance:.0f} times in 100"


def _fails_from(devices: int, limit: float, alpha: float, share: float) -> int | None:
    goal = log(1 / alpha)
    for failed in range(1, devices + 1):
        wealths = limit_evidence(devices, failed, limit, devices=devices)
        if carry(NOTHING, share, wealths) >= goal:
            return failed
    return None


def _ever(condition: Condition, devices: int, first: int, rate: float) -> float:
    """Dynamic programming over the number of failures, while the condition has never held."""
    going = np.zeros(devices + 1)
    going[0] = 1.0
    for tried in range(1, devices + 1):
        going[1:] = going[1:] * (1 - rate) + going[:-1] * rate
        going[0] *= 1 - rate
        if tried >= first:
            whole = tried if condition.denominator == "activated" else devices
            going[too_many(condition, whole) :] = 0.0
    return 1.0 - float(going.sum())
