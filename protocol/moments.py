"""Moments that people write: the end of a pin, the beginning of what they want to see."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

FORMS: Final = "1dec, 2026-12-01, 14d or 6h"

_UNITS: Final = {"d": "days", "h": "hours", "min": "minutes"}


def ahead(text: str, now_ms: int) -> int:
    """A moment to come, Unix ms: an amount from now on, a day of the year, or a date (UTC unless
    it says otherwise). Raises `ValueError` for what is none; a date may lie in the past."""
    now = _at(now_ms)
    span = _span(text)
    if span is not None:
        return _ms(now + span)
    try:
        return _ms(_dated(text))
    except ValueError:
        pass
    # 2000 is a leap year: 29feb is a day; whether there is one is seen below.
    found = datetime.strptime(f"{text} 2000", "%d%b %Y").replace(tzinfo=UTC)
    at = found.replace(year=now.year)
    return _ms(at if at > now else at.replace(year=now.year + 1))


def ago(text: str, now_ms: int) -> int:
    """A moment that has passed, Unix ms: an amount before now, or a date. Raises `ValueError`."""
    span = _span(text)
    return _ms(_at(now_ms) - span) if span is not None else _ms(_dated(text))


def _span(text: str) -> timedelta | None:
    amount = re.fullmatch(r"([0-9]{1,4})(d|h|min)", text)
    return timedelta(**{_UNITS[amount[2]]: int(amount[1])}) if amount else None


def _dated(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _at(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
