"""When a fetch has waited long enough, when it may try again, and what it complains of."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

PAUSE_MOST_S: Final = 3600.0


class Patience:
    """Times are monotonic seconds; `now` is set by whoever owns this, before anything else."""

    def __init__(
        self, rng: random.Random, *, frame_timeout_s: float, want_interval_s: float
    ) -> None:
        self.now = 0.0
        self.problem: tuple[str, str] | None = None
        """Code and detail of what holds things up; None while they move."""
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._frame_timeout_s = frame_timeout_s
        self._want_interval_s = want_interval_s
        self._quiet_since: float | None = None
        self._pause_until = 0.0
        self._failures = 0
        self._asked_at: float | None = None

    @property
    def paused(self) -> bool:
        return self.now < self._pause_until

    def start(self) -> None:
        """Something new is wanted: no waiting for what went wrong before."""
        self.problem = None
        self._quiet_since = None
        self._pause_until = 0.0
        self._failures = 0

    def moved(self) -> None:
        """Something useful came."""
        self.problem = None
        self._quiet_since = self.now
        self._failures = 0

    def go_on(self) -> None:
        """There is a reason not to wait any longer."""
        self._pause_until = self.now

    def count(self, code: str, why: str) -> None:
        self.counters[code] += 1
        self.problem = (code, why)

    def pause(self) -> None:
        """Try nothing for a while: longer each time, and never at the same time as others."""
        longest = min(PAUSE_MOST_S, self._frame_timeout_s * 2 ** min(self._failures, 20))
        self._failures += 1
        self._pause_until = self.now + longest * self._rng.uniform(0.1, 1)
        self._quiet_since = None

    def silent(self, listening: bool) -> bool:
        """Whether nothing useful came for a whole timeout; true once per timeout.

        Time counts only while somebody is `listening` who could be answered.
        """
        if not listening:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = self.now
        if self.now - self._quiet_since < self._frame_timeout_s:
            return False
        # A fleet that lost its broker at one moment does not ask again at one moment.
        self._quiet_since = self.now + self._rng.uniform(0, self._frame_timeout_s / 2)
        return True

    def may_want(self) -> bool:
        last = self._asked_at
        return last is None or self.now - last >= self._want_interval_s

    def asked(self) -> None:
        self._asked_at = self.now
