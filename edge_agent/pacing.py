"""When the next upstream message may go out: pure decisions on one frozen state.

One message is in flight; no answer means the same again after a full-jitter pause. On connect
and on a new ingester's hello the device first asks what is stored (a probe), after a random
delay that spreads a fleet. Times are monotonic seconds, `u` is uniform in [0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

MAX_PAUSE_S: Final = 3600.0
FORGET_S: Final = 6 * 3600.0
"""What the control plane is known to have is asked for again after this long."""


@dataclass(frozen=True, slots=True)
class Pacing:
    resend_s: float = 30.0
    """Upper bound of the first pause; it doubles with every message that got no answer."""
    spread_s: float = 1.0
    """Upper bound of the delay before a probe; the ingester's hello changes it."""
    connected: bool = False
    probe: bool = True
    """Nothing is sent before it is known what is stored."""
    in_flight: bool = False
    at: float = math.inf
    """Nothing is sent earlier."""
    failures: int = 0
    """Messages since the last answer."""
    generation: int | None = None
    """Of the ingester that was heard last."""
    forget_at: float = math.inf

    def may_send(self, now: float) -> bool:
        return self.connected and now >= self.at

    def expired(self, now: float) -> bool:
        return self.connected and now >= self.forget_at


def on_connected(pacing: Pacing, now: float, u: float) -> Pacing:
    return _probing(replace(pacing, connected=True), now, u)


def on_disconnected(pacing: Pacing) -> Pacing:
    return replace(pacing, connected=False, in_flight=False, at=math.inf, forget_at=math.inf)


def on_hello(pacing: Pacing, now: float, u: float, generation: int, spread_s: float) -> Pacing:
    """A repeated hello only brings its spread; another generation means: probe."""
    heard = replace(pacing, generation=generation, spread_s=min(max(spread_s, 0.0), MAX_PAUSE_S))
    if generation == pacing.generation or not pacing.connected:
        return heard
    return _probing(heard, now, u)


def on_expired(pacing: Pacing, now: float) -> Pacing:
    """Ask anew, without delay: devices got here at different times."""
    return _probing(pacing, now, 0.0)


def on_sent(pacing: Pacing, now: float, u: float) -> Pacing:
    ceiling = min(MAX_PAUSE_S, pacing.resend_s * 2.0 ** min(pacing.failures, 32))
    return replace(pacing, in_flight=True, at=now + u * ceiling, failures=pacing.failures + 1)


def on_answered(pacing: Pacing, now: float, wait_s: float | None) -> Pacing:
    """What was in flight is stored: go on, or pause for as long as the ingester asks."""
    return replace(
        pacing, probe=False, in_flight=False, failures=0, at=now + _clamped(wait_s or 0.0)
    )


def on_told_to_wait(pacing: Pacing, now: float, wait_s: float) -> Pacing:
    """Back-pressure without progress: the wait replaces the resend timer."""
    return replace(pacing, at=now + _clamped(wait_s)) if pacing.connected else pacing


def _probing(pacing: Pacing, now: float, u: float) -> Pacing:
    return replace(
        pacing,
        probe=True,
        in_flight=False,
        failures=0,
        at=now + u * pacing.spread_s,
        forget_at=now + FORGET_S,
    )


def _clamped(wait_s: float) -> float:
    return min(max(wait_s, 0.0), MAX_PAUSE_S)
