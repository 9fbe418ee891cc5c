"""From sizes of waves to thresholds of positions.

"Exactly 20 devices", "37 %", "25 % of each site", "these two" all become numbers that a device
compares with its own position, and short lists of names; so each wave is a few numbers in the
plan, for any size of fleet. Waves only grow: a device that is in stays in. What is held back is
in none of them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from control_plane.rollout.reading import meant
from control_plane.rollout.sizes import Holdback, WaveSpec, default_waves
from control_plane.rollout.spec import RolloutSpec
from protocol.errors import InvalidRequest
from protocol.identifiers import DeviceId, split_device_id
from protocol.membership import EVERYONE, position
from protocol.plan import MAX_BY_LABEL, MAX_LISTED, Wave

NO_VALUE: Final = ""
"""Stands for devices without the label; the wave's own threshold applies to them."""

USUAL_HOLDBACK: Final = (5, 20, 500)
"""Percent of the targets, at least and at most so many devices."""


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
class Layout:
    """What starts: the spec with its waves settled, each wave in numbers, and what is held back."""

    spec: RolloutSpec
    waves: tuple[PlannedWave, ...]
    holdback: int
    """Threshold of the control cohort at the upper end of positions."""
    held: int
    """Devices in it."""


@dataclass(frozen=True, slots=True)
class _Placed:
    place: int
    group: str
    device: DeviceId
    name: str


def lay_out(spec: RolloutSpec, targets: Sequence[Target], salt: str) -> Layout:
    """Waves and control cohort of a rollout to `targets`. Raises `InvalidRequest` OUT-S120."""
    held = held_devices(spec.holdback, len(targets))
    settled = settle(spec, len(targets), held)
    per = _per(settled.waves)
    placed = _placed(targets, salt, per)
    named = {name for wave in settled.waves for name in wave.names}
    holdback = _holdback([each for each in placed if each.name not in named], held)
    return Layout(settled, _plan(settled.waves, placed, per, holdback), holdback, held)


def settle(spec: RolloutSpec, targets: int, held: int = 0) -> RolloutSpec:
    """The spec with waves: its own, or those that suit so many devices."""
    if spec.waves:
        return spec
    waves = default_waves(targets, held)
    if spec.soak_s is not None:
        waves = tuple(dataclasses.replace(wave, soak_s=None) for wave in waves)
    return dataclasses.replace(spec, waves=waves)


def held_devices(holdback: Holdback | None, targets: int) -> int:
    """How many devices are held back. Raises `InvalidRequest` OUT-S120 if that leaves none."""
    if holdback is None:
        return 0
    usual, least, most = USUAL_HOLDBACK
    if holdback.devices is not None:
        held = holdback.devices
    elif holdback.percent is not None:
        held = _part(holdback.percent, targets)
    else:
        held = min(max(_part(usual, targets), least), most)
    if held >= targets:
        raise InvalidRequest(
            "OUT-S120",
            f"holdback would hold {held} devices back, and the rollout has {targets}",
            do='write fewer devices or a share like "5 %", or leave it out',
        )
    return held


def check_names(specs: Sequence[WaveSpec], names: Collection[str]) -> None:
    """Refuse lists with devices that do not exist. Raises `InvalidRequest` OUT-S120.

    `names` are the local names of all devices of the fleet. A mistyped name would quietly make a
    wave smaller, or take a device that was to wait.
    """
    for number, spec in enumerate(specs, start=1):
        for field, listed in (("devices", spec.names), ("exclude", spec.exclude)):
            for name in listed:
                if name not in names:
                    where = f"waves[{number}].{field}"
                    raise InvalidRequest(
                        "OUT-S120", f"{where}: no device named {name}", do=meant(name, names)
                    )


def plan_waves(
    specs: Sequence[WaveSpec], targets: Sequence[Target], salt: str, holdback: int = 0
) -> tuple[PlannedWave, ...]:
    """Thresholds for every wave. Raises `InvalidRequest` OUT-S120.

    A share is rounded up to whole devices, per group where the wave says `per`. The last wave
    must reach every target that is not held back, and then everyone: what was enrolled later is
    taken with it.
    """
    per = _per(specs)
    return _plan(specs, _placed(targets, salt, per), per, holdback)


def wave_of(
    planned: Sequence[PlannedWave], salt: str, device: DeviceId, labels: Mapping[str, str], *,
    late: bool = False, holdback: int = 0,
) -> int | None:  # fmt: skip
    """The first wave, from 1, that takes a device; None: none does, it is held back.

    `late`: its labels changed after the start. Says what `protocol.plan.Rollout.takes` says.
    """
    place = position(salt, device)
    name = split_device_id(device)[1]
    for number, each in enumerate(planned, start=1):
        wave = each.wave
        if name in wave.exclude:
            continue
        threshold = wave.threshold_for(labels)
        fits = threshold == EVERYONE if late else place < min(threshold, EVERYONE - holdback)
        if fits or name in wave.include:
            return number
    return None


def _plan(
    specs: Sequence[WaveSpec], placed: Sequence[_Placed], per: str | None, holdback: int
) -> tuple[PlannedWave, ...]:
    growing = _Growing(placed, per, EVERYONE - holdback)
    if per and len(growing.groups) > MAX_BY_LABEL:
        raise InvalidRequest("OUT-S120", f"waves: {per} has more than {MAX_BY_LABEL} values")
    planned: list[PlannedWave] = []
    for number, spec in enumerate(specs, start=1):
        last = number == len(specs)
        if spec.everyone or (last and (spec.devices or 0) >= growing.available):
            growing.take_all()
        elif last:
            raise InvalidRequest(
                "OUT-S120",
                f"waves: the last one leaves out some of {growing.available} devices",
                do="end with 100 %",
            )
        else:
            growing.take(spec, f"waves[{number}]")
        planned.append(PlannedWave(growing.wave(), len(growing.inside)))
    return tuple(planned)


class _Growing:
    """The waves so far, as the next one finds them."""

    def __init__(self, placed: Sequence[_Placed], per: str | None, end: int) -> None:
        """`placed` in order; `end`: no position from here on is in, unless it is named."""
        self._per = per
        self._end = end
        self._placed = placed
        self._by_name = {each.name: each for each in placed}
        self.groups = Counter(each.group for each in placed)
        self._thresholds: dict[str, int] = dict.fromkeys(self.groups, 0)
        self._floor = 0
        self._include: set[str] = set()
        self._exclude: set[str] = set()
        self.inside: set[str] = set()

    @property
    def available(self) -> int:
        """Devices that are not held back."""
        return sum(each.place < self._end or each.name in self._include for each in self._placed)

    def take_all(self) -> None:
        self._exclude = set()
        self._floor = EVERYONE
        self._thresholds = dict.fromkeys(self._thresholds, EVERYONE)
        self.inside |= {each.name for each in self._placed if each.place < self._end}

    def take(self, spec: WaveSpec, where: str) -> None:
        """Let in what `spec` asks for. Raises `InvalidRequest` OUT-S120."""
        if spec.names:
            self._name(spec.names, where)
        elif spec.per:
            self._admit_per({g: _whole(spec, n) for g, n in self.groups.items()}, spec.exclude)
        else:
            self._admit(_whole(spec, len(self._placed)), spec.exclude)
        # A device that was excluded before and is no longer, but finds no place here, waits on.
        self._exclude = set(spec.exclude) | {
            name for name in self._exclude if name not in self.inside and name in self._by_name
        }
        if len(self._exclude) > MAX_LISTED:
            raise InvalidRequest("OUT-S120", f"{where}.exclude has more than {MAX_LISTED} devices")

    def _name(self, names: Sequence[str], where: str) -> None:
        for name in names:
            if name not in self._by_name:
                raise InvalidRequest(
                    "OUT-S120",
                    f"{where}.devices: {name} is not changed by this rollout",
                    do="it is outside of `to`, pinned, cannot run the version, or runs it already",
                )
        self._include |= set(names)
        self.inside |= set(names)

    def _admit(self, count: int, exclude: Collection[str]) -> None:
        """Let in those with the lowest positions until `count` are in."""
        admitted = self._waiting(exclude)[: max(0, count - len(self.inside))]
        if admitted:
            threshold = admitted[-1].place + 1
            self._floor = max(self._floor, threshold)
            for group, before in self._thresholds.items():
                self._thresholds[group] = max(before, threshold)
        self.inside.update(each.name for each in admitted)

    def _admit_per(self, counts: Mapping[str, int], exclude: Collection[str]) -> None:
        """The same for each group by itself."""
        left = Counter(counts)
        left.subtract(self._by_name[name].group for name in self.inside)
        for each in self._waiting(exclude):
            if left[each.group] > 0:
                left[each.group] -= 1
                self.inside.add(each.name)
                before = self._thresholds[each.group]
                self._thresholds[each.group] = max(before, each.place + 1)

    def _waiting(self, exclude: Collection[str]) -> list[_Placed]:
        """Who may come in, lowest positions first."""
        return [
            each
            for each in self._placed
            if each.place < self._end and each.name not in self.inside and each.name not in exclude
        ]

    def wave(self) -> Wave:
        if self._floor == self._end == EVERYONE:
            return Wave(EVERYONE)
        lists = tuple(sorted(self._include)), tuple(sorted(self._exclude))
        if self._per is None or set(self._thresholds.values()) <= {self._floor}:
            return Wave(self._floor, *lists)
        return Wave(
            # Also for devices without the label: they are a group like any other.
            self._thresholds.get(NO_VALUE, self._floor),
            *lists,
            by_label=self._per,
            threshold_by={g: t for g, t in self._thresholds.items() if g != NO_VALUE},
        )


def _per(specs: Sequence[WaveSpec]) -> str | None:
    return next((spec.per for spec in specs if spec.per), None)


def _placed(targets: Sequence[Target], salt: str, per: str | None) -> list[_Placed]:
    placed = [
        _Placed(
            position(salt, each.device),
            each.labels.get(per, NO_VALUE) if per else NO_VALUE,
            each.device,
            split_device_id(each.device)[1],
        )
        for each in targets
    ]
    return sorted(placed, key=lambda each: (each.place, each.device))


def _holdback(placed: Sequence[_Placed], count: int) -> int:
    """The threshold from the upper end that exactly `count` of the sorted places are above."""
    if count == 0:
        return 0
    if count >= len(placed):
        raise InvalidRequest("OUT-S120", "holdback leaves no device that no list names")
    return EVERYONE - placed[-count].place


def _whole(spec: WaveSpec, available: int) -> int:
    return spec.devices if spec.devices is not None else _part(spec.percent or 0, available)


def _part(percent: float, of: int) -> int:
    """So many percent, rounded up to whole devices."""
    return -((-Fraction(str(percent)) * of) // 100)
