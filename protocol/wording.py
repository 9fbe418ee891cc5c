"""How times, sizes and counts are written for people, on the device and in the control plane.

Durations in at most two units, moments as age below seven days and as a date above, sizes in
decimal units, counts with separators. Unknown is "unknown", never 0.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

UNKNOWN: Final = "unknown"

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_SIZES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(B|kB|MB|GB)?")
_AGE_LIMIT_S: Final = 7 * 86_400


def duration(seconds: float | None) -> str:
    """ "9 d 4 h", "42 s"; below one second "0 s"."""
    if seconds is None:
        return UNKNOWN
    rest = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in _UNITS:
        amount, rest = divmod(rest, length)
        if amount:
            parts.append(f"{amount} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts) or "0 s"


def size(count: float | None) -> str:
    """ "412 kB", "1.26 MB", "131 B": three significant digits, decimal units."""
    if count is None:
        return UNKNOWN
    for factor, unit in _SIZES:
        if count >= factor * 0.9995:
            value = count / factor
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{int(count)} B"


def bytes_in(text: str) -> int:
    """What `size` says, read back: "2MB", "500 kB", "1.5GB", "131". Raises `ValueError`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r:.40} is no size, like 2MB or 500kB")
    factors = {unit: factor for factor, unit in _SIZES}
    return round(float(found[1]) * factors.get(found[2], 1))


def size_of(part: float, whole: float) -> str:
    """ "0.88 of 1.26 MB", "21.0 kB of 32.0 MB": one unit is said once."""
    left, right = size(part), size(whole)
    number, _, unit = left.partition(" ")
    return f"{number if right.endswith(f' {unit}') else left} of {right}"


def moment(at_ms: int | None, now_ms: int) -> str:
    """ "3 min ago" below seven days, else "3 Nov 08:14 UTC" (another year is said)."""
    if not at_ms:
        return UNKNOWN
    age = (now_ms - at_ms) / 1000
    if 0 <= age < _AGE_LIMIT_S:
        return f"{duration(age)} ago"
    return date(at_ms, now_ms)


def date(at_ms: int, now_ms: int) -> str:
    """ "3 Nov 08:14 UTC"; another year is said."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    year = "" if at.year == datetime.fromtimestamp(now_ms / 1000, UTC).year else f" {at.year}"
    return f"{at.day} {at:%b}{year} {at:%H:%M} UTC"


def day(at_ms: int, now_ms: int) -> str:
    """ "3 Nov", "3 Nov 2027": another year is said."""
    return date(at_ms, now_ms).rsplit(" ", 2)[0]


def clock(at_ms: int, now_ms: int) -> str:
    """ "18:02 UTC" on the same day, else the date."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    if at.date() == datetime.fromtimestamp(now_ms / 1000, UTC).date():
        return f"{at:%H:%M} UTC"
    return date(at_ms, now_ms)


def count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def share(part: int, whole: int) -> str:
    """ "6 of 8": counts before percentages, always with the denominator."""
    return f"{part:,} of {whole:,}"


def rfc3339(at_ms: int) -> str:
    """ "2026-11-20T09:10:00Z", milliseconds only where there are some."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    precision = "milliseconds" if at_ms % 1000 else "seconds"
    return at.isoformat(timespec=precision).replace("+00:00", "Z")
