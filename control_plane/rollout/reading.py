"""Reads the values of a rollout file strictly: durations, shares, comparisons, windows, choices.

Every error is an `InvalidRequest` OUT-S120 (OUT-S121 for conditions) whose words begin with the
name of the field, so that whoever shows it can point there.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Literal, cast

from protocol.device import TransferWindow
from protocol.errors import InvalidRequest

Operator = Literal[">", ">=", "<", "<="]

MAX_DURATION_S: Final = 366 * 86_400
MAX_DEVICES: Final = 10**9
MAX_WINDOWS: Final = 16

_COMPARISON = re.compile(r"\s*(>=|<=|>|<)\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*")
_SHARE = re.compile(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*")
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(s|m|min|h|d)?\s*")
_UNIT_S: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
_WINDOW = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")


def wrong(field: str, wanted: str, do: str = "", code: str = "OUT-S120") -> InvalidRequest:
    return InvalidRequest(code, f"{field} {wanted}", do=do)


def known(body: Mapping[str, Any], names: Iterable[str], where: str = "") -> None:
    """Refuse a field that does not exist, with the name that was probably meant."""
    fields = sorted(names)
    for name in body:
        if name not in fields:
            why = f"unknown field {where}{name}"
            raise InvalidRequest(
                "OUT-S120", why, do=meant(str(name), fields, "the field is called")
            )


def meant(text: str, names: Collection[str], words: str = "a similar name:") -> str:
    """ "the field is called soak", or nothing if no name is close."""
    similar = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
    return f"{words} {similar[0]}" if similar else ""


def is_off(value: object) -> bool:
    """`off`: YAML reads the bare word as false."""
    return value is False or value == "off"


def is_on(value: object) -> bool:
    return value is True or value == "on"


def text(body: Mapping[str, Any], field: str, default: str) -> str:
    value = body.get(field, default)
    if not isinstance(value, str) or not value.strip():
        raise wrong(field, "is text")
    return value


def choice(body: Mapping[str, Any], field: str, names: tuple[str, ...], default: str) -> str:
    value = body.get(field, default)
    if value not in names:
        do = meant(value, names, "write:") if isinstance(value, str) else ""
        raise wrong(field, "is one of: " + ", ".join(names), do)
    return str(value)


def whole(value: object, where: str, least: int = 1, most: int = MAX_DEVICES) -> int:
    """A number without a fraction."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise wrong(
            where, f"is a number from {least}" + ("" if most == MAX_DEVICES else f" to {most:,}")
        )
    return value


def number(value: object, where: str, above: float, most: float) -> float:
    """A number in (above, most]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(where, f"is a number above {above:g}, at most {most:g}")
    if not above < value <= most:
        raise wrong(where, f"is a number above {above:g}, at most {most:g}")
    return float(value)


def duration(value: object, where: str) -> float:
    """Seconds: a number, or "90", "30 s", "15 min", "6h", "14d"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:f}" if isinstance(value, float) else str(value)
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong(where, 'is a duration like "90 s", "15 min", "24h" or "14d"')
    seconds = float(found[1]) * _UNIT_S[found[2] or "s"]
    if seconds > MAX_DURATION_S:
        raise wrong(where, "is at most 366 days")
    return seconds


def positive(value: object, where: str) -> float:
    """A duration that is longer than 0."""
    seconds = duration(value, where)
    if seconds <= 0:
        raise wrong(where, "is longer than 0")
    return seconds


def percent(value: object) -> float | None:
    """ "25 %" as 25.0, from above 0 to 100; None for anything else."""
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) if found and 0 < float(found[1]) <= 100 else None


def share(value: object, where: str, most: float = 1.0) -> float:
    """ "2 %" as 0.02. A bare number could be meant either way, so it is refused."""
    found = percent(value)
    if found is None or found > most * 100:
        do = f'write "{value:g} %"' if isinstance(value, int | float) and value >= 1 else ""
        raise wrong(where, f'is a share like "2 %", at most {most:.0%}'.replace("%,", " %,"), do)
    return found / 100


def comparison(value: object, where: str, wanted: str, example: str) -> tuple[Operator, float]:
    """Operator and percent of "> 10 %". `wanted`: the direction that makes sense, > or <."""
    found = _COMPARISON.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found[2]) > 100:
        raise wrong(where, f'is a comparison with a share, like "{example}"', code="OUT-S121")
    if found[1][0] != wanted:
        raise wrong(where, f"compares with {wanted}", f'write "{example}"', "OUT-S121")
    return cast(Operator, found[1]), float(found[2])


def windows(value: object, where: str) -> tuple[TransferWindow, ...]:
    """Local times "01:00-05:00"; one that ends before it begins crosses midnight."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_WINDOWS:
        raise wrong(where, f'is a list of 1 to {MAX_WINDOWS} times like "01:00-05:00"')
    return tuple(_window(each, f"{where}[{n}]") for n, each in enumerate(value, start=1))


def _window(value: object, where: str) -> TransferWindow:
    found = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        start, stop = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))
        minutes = (int(found[2]), int(found[4]))
        if start % 1440 != stop % 1440 and max(start, stop) <= 1440 and max(minutes) < 60:
            return TransferWindow(start % 1440, stop)
    raise wrong(where, 'is local time like "01:00-05:00" or "22:30-02:00"')
