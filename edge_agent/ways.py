"""Which transport is tried next: the broker, or one of a hint's addresses.

A way that failed rests, longer each time. One that was cut after it had brought something need not:
links break, and the other end may be well. The broker needs no rest where nothing else may be
tried, because listening costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Transport = Literal["mqtt", "http"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("mqtt", "http")

REST_MOST_S: Final = 3600.0
AFTER_A_CUT_S: Final = 0.5
"""Longest moment before a way is tried again that had brought something since it was chosen."""


@dataclass(frozen=True, slots=True)
class Way:
    transport: Transport
    url: str = ""
    """Prefix of addresses, as the hint names it; of a way over HTTP."""


MQTT: Final = Way("mqtt")


class Ways:
    """Times are monotonic seconds; chance comes in as an argument in [0, 1)."""

    def __init__(self, order: Sequence[Transport] = TRANSPORTS, *, rest_s: float = 30.0) -> None:
        """`order`: transports that may be used, the preferred one first. `rest_s`: the longest
        first rest of a way that failed."""
        self._order = tuple(order)
        self._rest_s = rest_s
        self._until: dict[Way, float] = {}
        self._failures: dict[Way, int] = {}
        self._brought: set[Way] = set()

    def open(self, urls: Sequence[str]) -> tuple[Way, ...]:
        """All that there is, in the order of preference, resting or not."""
        found: list[Way] = []
        for transport in self._order:
            found += [MQTT] if transport == "mqtt" else [Way("http", url) for url in urls]
        return tuple(found)

    def choose(self, urls: Sequence[str], link_up: bool, now: float) -> Way | None:
        """The first that may be tried now."""
        ways = [way for way in self.open(urls) if way != MQTT or link_up]
        rested = (way for way in ways if self.rests_s(way, now) == 0)
        return next(rested, MQTT if MQTT in ways else None)

    def soon_s(self, urls: Sequence[str], now: float) -> float:
        """Seconds until one of the addresses may be tried; infinite if there is none."""
        ways = [way for way in self.open(urls) if way != MQTT]
        return min((self.rests_s(way, now) for way in ways), default=float("inf"))

    def rests_s(self, way: Way, now: float) -> float:
        return max(self._until.get(way, 0.0) - now, 0.0)

    def worked(self, way: Way) -> None:
        """It brought something new."""
        self._failures.pop(way, None)
        self._brought.add(way)

    def failed(self, way: Way, now: float, random: float, at_least_s: float = 0.0) -> float:
        """It ended, or came to nothing. `at_least_s` is what the other end asked for. Seconds that
        whoever tries it again should wait, where it need not rest."""
        if way in self._brought:
            self._brought.discard(way)
            self._until[way] = now + at_least_s
            return AFTER_A_CUT_S * random
        times = self._failures.get(way, 0)
        self._failures[way] = times + 1
        longest = min(REST_MOST_S, self._rest_s * 2.0 ** min(times, 20))
        self._until[way] = now + max(at_least_s, longest * (0.1 + 0.9 * random))
        return 0.0

    def spoilt(self, way: Way) -> None:
        """What it brought was wrong: nothing speaks for it any more."""
        self._brought.discard(way)
