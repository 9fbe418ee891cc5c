"""How long to stay away after something went wrong. Chance comes in as an argument in [0, 1)."""

from __future__ import annotations

from typing import Final

BASE_MS: Final = 10 * 60 * 1000
CAP_MS: Final = 24 * 60 * 60 * 1000
JITTER: Final = 0.2
"""Share by which a pause varies both ways, so that a fleet does not come back as one."""

_DOUBLINGS: Final = 32
"""Beyond this every cap is long reached; bounds the power."""


def pause_ms(fails: int, random: float) -> int:
    """min(10 min · 2^fails, 24 h) ± jitter, in milliseconds, for a bundle that was given up."""
    pause = min(BASE_MS << min(max(fails, 0), _DOUBLINGS), CAP_MS)
    return round(pause * (1 + JITTER * (2 * random - 1)))


def full_jitter(attempt: int, base: float, cap: float, random: float) -> float:
    """Uniform in [0, min(base · 2^attempt, cap)), for retries over a network (attempt from 0)."""
    return min(base * 2.0 ** min(max(attempt, 0), _DOUBLINGS), cap) * random
