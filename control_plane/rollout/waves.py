"""From sizes of waves to thresholds of positions.

"Exactly 20 devices", "37 %" and "25 % of each site" all become numbers that a device compares
with its own position; so each wave is a few numbers in the plan, for any size of fleet. Waves
only grow: a device that is in stays in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from control_plane.rollout.spec import WaveSpec
from protocol.errors import InvalidRequest
from protocol.identifiers import DeviceId
from protocol.membership import EVERYONE, position
from protocol.plan import MAX_BY_LABEL, Wave

NO_VALUE: Final = ""
"""Stands for devices without the label; the wave's own threshold applies to them."""


@dataclass(frozen=True, slots=True)
class Target:
    """A device that the rollout may change: not pinned, fit, and not already there."""

    device: DeviceId
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PlannedWave:
    """`devices` that are in, with those of the waves before it."""

    wave: Wave
    devices: int


@dataclass(frozen=True, slots=True)
class _Placed:
    place: int
    group: str
    device: DeviceId


def plan_waves(
    specs: Sequence[WaveSpec], targets: Sequence[Target], salt: str
) -> tuple[PlannedWave, ...]:
    """Thresholds for every wave. Raises `InvalidRequest` OUT-S120.

    A share is rounded up to whole devices, per group where the wave says `per`. The last wave
    must reach every target, and then everyone: what was enrolled later is taken with it.
    """
    per = next((spec.per for spec in specs if spec.per), None)
    placed = sorted(
        (
            _Placed(position(salt, t.device), t.labels.get(per, NO_VALUE) if per else "", t.device)
            for t in targets
        ),
        key=lambda each: (each.place, each.device),
    )
    groups: dict[str, list[int]] = defaultdict(list)
    for each in placed:
        groups[each.group].append(each.place)
    if per and len(groups) > MAX_BY_LABEL:
        raise InvalidRequest("OUT-S120", f"waves: {per} has more than {MAX_BY_LABEL} values")
    planned: list[PlannedWave] = []
    before: dict[str, int] = dict.fromkeys(groups, 0)
    floor = 0
    for number, spec in enumerate(specs, start=1):
        last = number == len(specs)
        if spec.everyone or (last and (spec.devices or 0) >= len(placed)):
            planned.append(PlannedWave(Wave(EVERYONE), len(placed)))
            before, floor = dict.fromkeys(groups, EVERYONE), EVERYONE
            continue
        if last:
            raise InvalidRequest(
                "OUT-S120",
                f"waves: the last one leaves out some of {len(placed)} devices",
                do="end with 100 %",
            )
        if spec.per:
            own = {
                group: _threshold(places, _whole(spec, len(places)))
                for group, places in groups.items()
            }
        else:
            floor = max(floor, _additional(placed, before, _whole(spec, len(placed))))
            own = dict.fromkeys(groups, floor)
        before = {group: max(before[group], own[group]) for group in groups}
        planned.append(
            PlannedWave(
                _wave(before, per, floor),
                sum(each.place < before[each.group] for each in placed),
            )
        )
    return tuple(planned)


def wave_of(
    planned: Sequence[PlannedWave], salt: str, device: DeviceId, labels: Mapping[str, str], *,
    late: bool = False,
) -> int | None:  # fmt: skip
    """The first wave, from 1, that takes a device; `late`: its labels changed after the start."""
    place = position(salt, device)
    for number, each in enumerate(planned, start=1):
        threshold = each.wave.threshold_for(labels)
        if (threshold == EVERYONE) if late else (place < threshold):
            return number
    return None


def _wave(thresholds: Mapping[str, int], per: str | None, floor: int) -> Wave:
    if per is None or set(thresholds.values()) <= {floor}:
        return Wave(floor)
    return Wave(
        # Also for devices without the label: they are a group like any other.
        thresholds.get(NO_VALUE, floor),
        by_label=per,
        threshold_by={group: value for group, value in thresholds.items() if group != NO_VALUE},
    )


def _whole(spec: WaveSpec, available: int) -> int:
    if spec.devices is not None:
        return min(spec.devices, available)
    return -((-Fraction(str(spec.percent)) * available) // 100)


def _threshold(places: Sequence[int], count: int) -> int:
    """The smallest number that `count` of the sorted places are below."""
    return places[count - 1] + 1 if count else 0


def _additional(placed: Sequence[_Placed], before: Mapping[str, int], count: int) -> int:
    """The smallest threshold that makes the wave `count` devices, with those already in."""
    inside = sum(each.place < before[each.group] for each in placed)
    waiting = [each.place for each in placed if each.place >= before[each.group]]
    return _threshold(waiting, max(0, count - inside))
