"""May a payload travel now? Byte budgets per day and network, and hours, in local time.

Only downloads are held back. What tells a fleet that a device lives (metadata, documents, states,
records) is small: it is counted, and goes on. A download that does not fit into what is left of
the day is not begun, so a budget that has room for a delta is never spent on half of a full
payload, and a payload that is larger than a whole day's budget is never begun at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import Final

from edge_agent.hours import next_opening
from protocol.device import TransferWindow
from protocol.errors import InvalidRequest
from protocol.wording import bytes_in, size

NO_BUDGET: Final = "OUT-F105"
HOURS_CLOSED: Final = "OUT-F106"
FREE: Final = "free"
MESSAGE_BYTES: Final = 64
"""Counted for each message beside its topic and content: MQTT, TLS and TCP headers, roughly."""

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NetworkRule:
    """What whoever installed a device says of one of its networks."""

    pattern: str
    """Of interface names: `wwan0`, `eth*`."""
    bytes_per_day: int | None
    """None: free, so that neither the fleet's budget nor its hours hold here."""


@dataclass(frozen=True, slots=True)
class Terms:
    bytes_per_day: int | None = None
    """Of the device document, over all networks that are not free."""
    hours: tuple[TransferWindow, ...] = ()
    """Of the device document; none: always."""
    networks: tuple[NetworkRule, ...] = ()
    """Of the device; the first that matches counts."""

    def rule(self, network: str) -> NetworkRule | None:
        return next((r for r in self.networks if fnmatchcase(network, r.pattern)), None)


@dataclass(frozen=True, slots=True)
class Spent:
    """Bytes of one local day, by network; free networks do not count."""

    day: date = date.min
    by_network: Mapping[str, int] = field(default_factory=dict)

    def plus(self, network: str, bytes_: int, today: date) -> Spent:
        before = self.on(today)
        counts = dict(before.by_network)
        counts[network] = counts.get(network, 0) + bytes_
        return Spent(before.day, counts)

    def on(self, today: date) -> Spent:
        """What counts today. A clock that goes back a day does not give its bytes again; one
        that was far ahead does not hold a budget for years."""
        if self.day < today or self.day > today + _DAY:
            return Spent(today)
        return self


@dataclass(frozen=True, slots=True)
class Held:
    """Why a download waits, and until when; `until` None: until somebody changes something."""

    code: str
    detail: str
    until: datetime | None = None


def held(terms: Terms, spent: Spent, network: str, needed: int, now: datetime) -> Held | None:
    """Whether `needed` more bytes may not be fetched now; `now` is local time."""
    rule = terms.rule(network)
    if rule is not None and rule.bytes_per_day is None:
        return None
    opens = next_opening(terms.hours, now)
    if opens is not None:
        return Held(HOURS_CLOSED, f"goes on at {opens:%H:%M}", opens)
    used = spent.on(now.date()).by_network
    budgets = [(terms.bytes_per_day, sum(used.values()), "")]
    if rule is not None:
        budgets.append((rule.bytes_per_day, used.get(network, 0), f" on {network}"))
    for limit, gone, where in budgets:
        if limit is not None and needed > limit - gone:
            return _short(needed, limit, max(limit - gone, 0), where, now)
    return None


def networks(text: str) -> tuple[NetworkRule, ...]:
    """`wwan*=2MB,eth0=free`. Raises `InvalidRequest` OUT-S120."""
    rules = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        pattern, equals, amount = (piece.strip() for piece in part.partition("="))
        if not pattern or not equals:
            raise InvalidRequest("OUT-S120", f"{part!r:.40} is not NETWORK=BYTES or NETWORK=free")
        rules.append(NetworkRule(pattern, None if amount == FREE else _bytes(part, amount)))
    return tuple(rules)


def _bytes(part: str, amount: str) -> int:
    try:
        return bytes_in(amount)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"{part!r:.40}: {error}") from error


def _short(needed: int, limit: int, left: int, where: str, now: datetime) -> Held:
    if needed > limit:
        detail = f"needs {size(needed)}, a whole day has {size(limit)}{where}"
        return Held(NO_BUDGET, detail)
    tomorrow = datetime.combine(now.date() + _DAY, time(), now.tzinfo)
    detail = f"needs {size(needed)}, {size(left)} of {size(limit)} left{where}; goes on at 00:00"
    return Held(NO_BUDGET, detail, tomorrow)
