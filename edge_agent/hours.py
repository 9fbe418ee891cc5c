"""Hours of the day, in local time: are they open, and when do they open next? Pure.

Windows are minutes of the wall clock. Where clocks change, that is what counts: an hour that comes
twice is open twice, and a window that lies wholly in an hour that is left out does not open that
day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from protocol.device import TransferWindow

MINUTE_MS: Final = 60_000
_SCANNED: Final = 2 * 1440 + 60
"""Minutes in which any window has opened, whatever the clocks do."""


def is_open(hours: Sequence[TransferWindow], now: datetime) -> bool:
    """`now` is local time. Without hours it is always open."""
    minute = now.hour * 60 + now.minute
    return not hours or any(_within(window, minute) for window in hours)


def next_opening(hours: Sequence[TransferWindow], now: datetime) -> datetime | None:
    """When the next of `hours` begins by the wall clock; None: they are open, or there are none."""
    if is_open(hours, now):
        return None
    return now.replace(second=0, microsecond=0) + timedelta(minutes=_wait(hours, now))


def opens_ms(
    hours: Sequence[TransferWindow], now_ms: int, local: Callable[[int], datetime]
) -> int | None:
    """The moment (Unix ms) at which the next of `hours` begins; None: they are open, or none are.

    `local` gives the device's local time of a moment, with its offset.
    """
    now = local(now_ms)
    if is_open(hours, now):
        return None
    minute_ms = now_ms - now_ms % MINUTE_MS
    there_ms = minute_ms + _wait(hours, now) * MINUTE_MS
    if local(there_ms).utcoffset() == now.utcoffset():
        return there_ms
    # The clocks change in between, which happens twice a year: look at every minute.
    minutes = (minute_ms + n * MINUTE_MS for n in range(1, _SCANNED))
    return next((at_ms for at_ms in minutes if is_open(hours, local(at_ms))), there_ms)


def said(hours: Sequence[TransferWindow]) -> str:
    """ "01:00-05:00", "01:00-05:00 or 22:00-23:30"."""
    return " or ".join(f"{_clock(each.start_minute)}-{_clock(each.stop_minute)}" for each in hours)


def _wait(hours: Sequence[TransferWindow], now: datetime) -> int:
    """Minutes of the wall clock until the next of `hours`, which are closed, begins."""
    minute = now.hour * 60 + now.minute
    return min((window.start_minute - minute - 1) % 1440 + 1 for window in hours)


def _within(window: TransferWindow, minute: int) -> bool:
    start, stop = window.start_minute, window.stop_minute
    if start <= stop:
        return start <= minute < stop
    return minute >= start or minute < stop


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
