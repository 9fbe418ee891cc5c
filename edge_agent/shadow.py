"""What is known of a candidate that runs beside what serves, over all runners that held it. Pure.

Nothing of it is durable: when the agent starts, counting begins again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from protocol.histogram import add
from protocol.identifiers import Digest
from protocol.reported import Shadow
from protocol.telemetry import PRIVATE_BELOW

MOVE_S: Final = 1.0
"""Between two times that copies of requests are moved to a candidate."""
ENOUGH_S: Final = 10.0
"""The same once as many rows as were asked for have been compared."""
EVERY_S: Final = 0.05
"""At most one request in so much time is copied."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is compared with what, on whose word: if one of them changes, counting begins again."""

    candidate: Digest
    base: Digest | None
    rollout: str | None
    attempt: int


@dataclass(slots=True)
class Beside:
    """One candidate. `runner` is the standby that holds it, if one does."""

    asked: Asked
    of: int
    """Rows that are asked for."""
    runner: str | None = None
    since_s: float = 0.0
    """Monotonic time since when that runner has been there."""
    next_s: float = 0.0
    earlier: Shadow | None = None
    """Of runners that have gone."""
    now: Shadow | None = None
    """Of this one."""
    deaths: int = 0

    def held_by(self, runner: str | None, now_s: float) -> None:
        if runner == self.runner:
            return
        self.earlier, self.now = self.total, None
        self.runner, self.since_s, self.next_s = runner, now_s, now_s

    @property
    def total(self) -> Shadow:
        empty = Shadow(self.asked.candidate)
        return _sum(self.earlier or empty, self.now or empty)

    @property
    def told(self) -> Shadow:
        """As it may leave the device."""
        total = self.total
        if total.rows < PRIVATE_BELOW:
            total = replace(total, latency=(), confidence=(), base_confidence=())
        return replace(total, of=self.of, failures=total.failures + self.deaths)

    def moved(self, shadow: Shadow, now_s: float) -> None:
        """The runner said what it has compared so far."""
        self.now = shadow
        self.next_s = now_s + (MOVE_S if self.total.rows < self.of else ENOUGH_S)


def news(shadow: Shadow) -> Shadow:
    """What makes a report necessary: each further tenth of the rows, then each doubling."""
    tenths = 10 * shadow.rows // max(shadow.of, 1)
    step = tenths if tenths <= 10 else 10 + (tenths // 10).bit_length()
    return Shadow(shadow.digest, rows=step, of=shadow.of)


def _sum(first: Shadow, second: Shadow) -> Shadow:
    return Shadow(
        first.digest,
        first.rows + second.rows,
        first.agreed + second.agreed,
        add(first.latency, second.latency),
        add(first.confidence, second.confidence),
        add(first.base_confidence, second.base_confidence),
        first.failures + second.failures,
    )
