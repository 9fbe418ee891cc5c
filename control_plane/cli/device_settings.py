"""What `outrider device set` understands, and how settings are shown. Pure: words and bodies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from protocol.errors import InvalidRequest
from protocol.wording import bytes_in, duration, size

ANY: Final = "any"
"""The word for "as the device is configured"."""

_SECONDS: Final = re.compile(r"([0-9]+)(s|min|h)")
_SECONDS_OF: Final = {"s": 1, "min": 60, "h": 3600}
_HOURS: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")


def changed(
    before: Mapping[str, Any],
    *,
    bytes_per_day: str | None = None,
    transfer: Sequence[str] = (),
    buffer: str | None = None,
    state_interval: str | None = None,
) -> dict[str, Any]:
    """The settings with what was said put in; `any` takes a setting back.

    Raises `InvalidRequest` OUT-S120 for what cannot be read.
    """
    after = dict(before)
    if bytes_per_day is not None:
        after["bytes_per_day"] = _amount("--bytes-per-day", bytes_per_day)
    if buffer is not None:
        after["buffer_bytes"] = _amount("--buffer", buffer)
    if state_interval is not None:
        after["state_interval_s"] = _interval(state_interval)
    if transfer:
        after["transfer_windows"] = [] if list(transfer) == [ANY] else [_hours(t) for t in transfer]
    return {name: value for name, value in after.items() if value is not None}


def words(settings: Mapping[str, Any]) -> Iterator[str]:
    """What is set, in words; nothing for what is as the device is configured."""
    if (limit := settings.get("bytes_per_day")) is not None:
        yield f"at most {size(limit)} a day"
    hours = settings.get("transfer_windows") or []
    if hours:
        yield "downloads at " + ", ".join(
            f"{_clock(each['start_minute'])}-{_clock(each['stop_minute'])}" for each in hours
        )
    if (limit := settings.get("buffer_bytes")) is not None:
        yield f"buffer {size(limit)}"
    if (interval := settings.get("state_interval_s")) is not None:
        yield f"reports every {duration(interval)}"


def _amount(option: str, text: str) -> int | None:
    if text == ANY:
        return None
    try:
        return bytes_in(text)
    except ValueError as error:
        raise InvalidRequest(
            "OUT-S120", f"{option} {text}: no such size", do="2MB, 500kB or any"
        ) from error


def _interval(text: str) -> int | None:
    if text == ANY:
        return None
    found = _SECONDS.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            "OUT-S120", f"--state-interval {text}: no such time", do="10min, 2h or any"
        )
    return int(found[1]) * _SECONDS_OF[found[2]]


def _hours(text: str) -> dict[str, int]:
    found = _HOURS.fullmatch(text.strip())
    if found is not None:
        start, stop = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))
        minutes = (int(found[2]), int(found[4]))
        if start != stop and max(start, stop) <= 24 * 60 and max(minutes) < 60:
            return {"start_minute": start % 1440, "stop_minute": stop}
    raise InvalidRequest(
        "OUT-S120", f"--transfer {text}: no such hours", do="01:00-05:00, in local time, or any"
    )


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
