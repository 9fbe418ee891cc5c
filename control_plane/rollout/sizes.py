"""How large waves are, and what is held back from them: sizes as an operator writes them.

A wave is "12", "25 %", "all", or {devices | percent | share, per, soak, approve, exclude};
`devices` may be a list of names.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.rollout import reading
from control_plane.rollout.reading import wrong
from protocol.errors import InvalidRequest
from protocol.identifiers import label_key, local_name
from protocol.plan import MAX_LISTED

MAX_WAVES: Final = 32
SMALL: Final = 5
MEDIUM: Final = 20
LARGE: Final = 1_000
"""Sizes of fleets at which the default waves change."""
DAY_S: Final = 86_400.0
WAVE_FIELDS: Final = ("devices", "percent", "share", "per", "soak", "approve", "exclude")


@dataclass(frozen=True, slots=True)
class WaveSpec:
    """Size of one wave; exactly one of `devices`, `percent`, `names` is set.

    `devices` exactly, or `percent` of the targets, with those of earlier waves; or `names`, which
    join those of earlier waves.
    """

    devices: int | None = None
    percent: float | None = None
    names: tuple[str, ...] = ()
    """Local names of devices."""
    soak_s: float | None = None
    """None: the rollout's."""
    per: str | None = None
    """Label: the percentage holds for each of its values by itself."""
    approve: bool = False
    """Whether it begins only once a person says so."""
    exclude: tuple[str, ...] = ()
    """Local names of devices that wait for a later wave, wherever the hash puts them."""

    @property
    def everyone(self) -> bool:
        return self.percent == 100


@dataclass(frozen=True, slots=True)
class Holdback:
    """A control cohort that is in no wave: `devices`, or `percent` of the targets.

    With neither it is as usual: 5 %, at least 20 and at most 500 devices.
    """

    devices: int | None = None
    percent: float | None = None


def default_waves(targets: int, held: int = 0) -> tuple[WaveSpec, ...]:
    """Waves for so many devices, `held` of which are held back, when nobody says which.

    The first is small enough to lose, each of the others large enough to show something new. Up
    to 20 devices prove so little that a person lets each step begin. A soak is whole days, since
    devices are compared at the same hours; above 1,000 devices the last wave that still has
    devices to be compared with is watched for three. A wave that would not grow is left out.
    """
    if targets < SMALL:
        sizes = [1]
    elif targets <= MEDIUM:
        sizes = [1, 3, -(-targets // 2)]
    elif targets <= LARGE:
        sizes = [-(-targets * share // 100) for share in (10, 25, 50, 95)]
    else:
        one, *others = [-(-targets * share // 100) for share in (1, 10, 50, 95)]
        sizes = [30, max(300, one), *others]
    growing = [size for n, size in enumerate(sizes) if max([0, *sizes[:n]]) < size < targets - held]
    asks = SMALL <= targets <= MEDIUM
    compared = len(growing) + bool(held)
    soaks = [
        3 * DAY_S if targets > LARGE and number == compared else DAY_S
        for number in range(1, len(growing) + 2)
    ]
    return (
        *(
            WaveSpec(devices=size, soak_s=soak, approve=asks and number > 1)
            for number, (size, soak) in enumerate(zip(growing, soaks, strict=False), start=1)
        ),
        WaveSpec(percent=100.0, soak_s=soaks[-1], approve=asks and bool(growing)),
    )


def read_waves(value: object, where: str) -> tuple[WaveSpec, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_WAVES:
        raise wrong(where, f"is a list of 1 to {MAX_WAVES} waves")
    waves = tuple(_wave(each, f"{where}[{n}]") for n, each in enumerate(value, start=1))
    if len({wave.per for wave in waves} - {None}) > 1:
        raise wrong(where, "use one label for per")
    named = {name for wave in waves for name in wave.names}
    if len(named) > MAX_LISTED:
        raise wrong(where, f"name at most {MAX_LISTED} devices together")
    if waves[-1].exclude:
        raise wrong(f"{where}[{len(waves)}].exclude", "has no later wave to wait for")
    for n, (earlier, later) in enumerate(itertools.pairwise(waves), start=2):
        for size in ("devices", "percent"):
            before, now = getattr(earlier, size), getattr(later, size)
            if before is not None and now is not None and now <= before:
                raise wrong(f"{where}[{n}]", "must be larger than the one before: cumulative")
        if earlier.everyone:
            raise wrong(f"{where}[{n}]", "comes after everyone")
    _check_excluded(waves, where)
    return waves


def _check_excluded(waves: tuple[WaveSpec, ...], where: str) -> None:
    """Nobody is excluded who may be in already: who is in stays in."""
    waiting: set[str] | None = None
    named: set[str] = set()
    for n, wave in enumerate(waves, start=1):
        named.update(wave.names)
        excluded = set(wave.exclude)
        if both := sorted(named & excluded):
            raise wrong(f"{where}[{n}].exclude", f"has {both[0]}, which a list of devices names")
        if waiting is not None and (new := sorted(excluded - waiting)):
            raise wrong(
                f"{where}[{n}].exclude",
                f"has {new[0]}, which an earlier wave may already have taken",
                "exclude it from every wave before this one too",
            )
        if not wave.names:  # a list takes nobody else
            waiting = excluded


def _wave(value: object, where: str) -> WaveSpec:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return WaveSpec(**_size(value, where))
    if not isinstance(value, Mapping):
        raise wrong(where, 'is a number of devices, "25 %", or an object')
    reading.known(value, WAVE_FIELDS, f"{where}.")
    sizes = [name for name in ("devices", "percent", "share") if value.get(name) is not None]
    if len(sizes) != 1:
        raise wrong(where, "has one of: devices, percent, share")
    given = value[sizes[0]]
    if sizes[0] != "devices" and isinstance(given, int | float) and not isinstance(given, bool):
        given = f"{given} %"
    if sizes[0] == "devices" and isinstance(given, list | tuple):
        size: dict[str, Any] = {"names": _names(given, f"{where}.devices")}
    else:
        size = _size(given, f"{where}.{sizes[0]}")
    if (sizes[0] == "devices") == ("percent" in size):
        raise wrong(f"{where}.{sizes[0]}", "has the wrong unit")
    per = value.get("per")
    if per is not None and "percent" not in size:
        raise wrong(f"{where}.per", "is a label, and goes with percent")
    soak, approve = value.get("soak"), value.get("approve")
    if approve is not None and not isinstance(approve, bool):
        raise wrong(f"{where}.approve", "is true or false")
    exclude = value.get("exclude")
    if exclude is not None and "names" in size:
        raise wrong(f"{where}.exclude", "goes with a number of devices, or a share")
    return WaveSpec(
        **size,
        soak_s=None if soak is None else reading.duration(soak, f"{where}.soak"),
        per=None if per is None else _label(per, f"{where}.per"),
        approve=bool(approve),
        exclude=() if exclude is None else _names(exclude, f"{where}.exclude"),
    )


def _label(value: object, where: str) -> str:
    try:
        if isinstance(value, str):
            return label_key(value)
    except ValueError:
        pass
    raise wrong(where, "is a label like site")


def _names(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_LISTED:
        raise wrong(where, f"is a list of 1 to {MAX_LISTED} names of devices")
    for n, each in enumerate(value, start=1):
        try:
            local_name(each if isinstance(each, str) else "")
        except ValueError as error:
            raise wrong(f"{where}[{n}]", "is the name of a device, like cam-1") from error
    if len(set(value)) < len(value):
        raise wrong(where, "names a device twice")
    return tuple(value)


def _size(value: object, where: str) -> dict[str, Any]:
    most = reading.MAX_DEVICES
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < most:
        return {"devices": value}
    if isinstance(value, str):
        if value.strip() == "all":
            return {"percent": 100.0}
        if value.strip().isdecimal() and 0 < int(value) < most:
            return {"devices": int(value)}
        share = reading.percent(value)
        if share is not None:
            return {"percent": share}
    raise wrong(where, 'is a number of devices from 1, or a share like "25 %"')


def read_holdback(value: object, where: str) -> Holdback | None:
    if reading.is_off(value):
        return None
    if reading.is_on(value) or value == "default":
        return Holdback()
    try:
        held = Holdback(**_size(value, where))
    except InvalidRequest as error:
        raise wrong(where, 'is a number of devices, a share like "5 %", or default') from error
    if (held.percent or 0) > 50:
        raise wrong(where, "is at most half of the devices")
    return held
