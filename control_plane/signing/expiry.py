"""When signed metadata has to be looked after: pure; the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WARN: Final = {
    "root": timedelta(days=30),
    "targets": timedelta(days=30),
    "models": timedelta(days=30),
    "rollouts": timedelta(days=7),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(hours=24),
}
"""People are warned this long before a role expires. The first three need holders to meet; the
others are signed again by the server long before, so a warning means that it does not do so."""

RENEW: Final = {
    "root": timedelta(days=95),
    "targets": timedelta(days=130),
    "models": timedelta(days=45),
}
"""`outrider trust renew` renews what expires within this time, unless told which."""

OFFLINE: Final = ("root", "targets", "models")


@dataclass(frozen=True, slots=True)
class Expiring:
    role: str
    expires: datetime
    left: timedelta
    """Negative: it has expired."""

    @property
    def offline(self) -> bool:
        """Whether holders have to sign; otherwise the server does it by itself."""
        return self.role in OFFLINE

    @property
    def said(self) -> str:
        """For people: "models expires in 12 d"."""
        if self.left <= timedelta(0):
            return f"{self.role} has expired"
        hours = self.left // timedelta(hours=1)
        return f"{self.role} expires in {f'{hours // 24} d' if hours >= 48 else f'{hours} h'}"


def expiring(expires: Mapping[str, datetime], now: datetime) -> tuple[Expiring, ...]:
    """The roles that are within their warning time, the most urgent one first."""
    found = [Expiring(role, moment, moment - now) for role, moment in expires.items()]
    due = [each for each in found if each.left <= WARN[each.role]]
    return tuple(sorted(due, key=lambda each: each.left))


def worth_renewing(expires: Mapping[str, datetime], now: datetime) -> tuple[str, ...]:
    return tuple(role for role in OFFLINE if expires[role] - now <= RENEW[role])


def said(roles: Iterable[Expiring]) -> str:
    return ", ".join(each.said for each in roles)
