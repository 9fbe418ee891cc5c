"""When to issue a revocation list, and when to worry about it: decisions, from numbers alone.

A list that has expired refuses every device of the fleet, so it lives for 30 days and is issued
anew every day: the control plane may be down for almost a month before anybody notices. What was
revoked is on the next list at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocol.wording import date, duration

DAY_MS: Final = 24 * 3_600_000
LIFE_MS: Final = 30 * DAY_MS
EVERY_MS: Final = DAY_MS
ALARM_MS: Final = 7 * DAY_MS
BACKDATED_MS: Final = 3_600_000
"""A broker whose clock is a little behind still finds a new list valid."""
KEPT_MS: Final = DAY_MS
"""A certificate stays on the list so long after it has expired, for brokers that are behind."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What is in force. Times are Unix ms, whole seconds; serials hexadecimal."""

    number: int
    from_ms: int
    until_ms: int
    serials: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Next:
    """What the next list says of itself."""

    number: int
    from_ms: int
    until_ms: int


def due(current: RevocationList | None, revoked: Iterable[str], now_ms: int) -> bool:
    """Whether a new list has to be issued."""
    if current is None or not set(revoked) <= current.serials:
        return True
    issued_ms = current.from_ms + BACKDATED_MS
    # One from the future was issued under another clock, which may have been right or not.
    return not issued_ms - EVERY_MS <= now_ms < issued_ms + EVERY_MS


def following(current: RevocationList | None, now_ms: int) -> Next:
    """The number rises, and so does the time: of two lists that a broker has, the later one wins.

    A broker keeps every list that it has read, OpenSSL compares whole seconds, and which one of
    two equal ones it uses is nobody's promise; hence a second more than the last, for which the
    backdating leaves room.
    """
    from_ms = (now_ms - BACKDATED_MS) // 1000 * 1000
    number = now_ms // 60_000
    if current is not None:
        number = max(number, current.number + 1)
        if current.from_ms <= now_ms:
            from_ms = max(from_ms, current.from_ms + 1000)
    return Next(number, from_ms, from_ms + BACKDATED_MS + LIFE_MS)


def alarm(current: RevocationList | None, now_ms: int) -> str:
    """What is wrong with the list in force, for people; "" as long as nothing is."""
    if current is None:
        return "there is no revocation list"
    left_ms = current.until_ms - now_ms
    if left_ms <= 0:
        return f"the revocation list expired {duration(-left_ms / 1000)} ago: no device gets in"
    if left_ms < ALARM_MS:
        return f"the revocation list expires in {duration(left_ms / 1000)}; then no device gets in"
    return ""


def said(current: RevocationList, now_ms: int) -> str:
    """What there is to know of it while all is well."""
    number = len(current.serials)
    return f"{number:,} revoked, list {current.number} until {date(current.until_ms, now_ms)}"
