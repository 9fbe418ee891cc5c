"""When a device's bet begins, what its windows are compared with, and in which hour it counts.

    began ─▶ clock ───── exposure ─────▶ end ── grace ─▶ judged anyway
               └ the same span one and two seasons earlier is "before"

A candidate's clock starts when the candidate began to serve. A control's starts at its first
contact after the wave began plus the time that candidates needed to get there, so that both arms
are looked at in the same hours. All times are Unix ms of the control plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

HOURS: Final = 24
"""Of a season. An "hour" is this part of it, also where a season is a few seconds."""
LEAST_GRACE_MS: Final = 10_000
"""Records need some time to arrive, however short a season is."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `from_ms` up to, not including, `to_ms`."""

    from_ms: int
    to_ms: int

    @property
    def length_ms(self) -> int:
        return self.to_ms - self.from_ms


@dataclass(frozen=True, slots=True)
class Timing:
    """Of a rollout: how long devices are looked at, and after which time days repeat."""

    exposures_ms: tuple[int, ...]
    season_ms: int

    @classmethod
    def of(cls, exposures_s: Sequence[float], season_s: float) -> Timing:
        exposures = tuple(round(each * 1000) for each in exposures_s)
        return cls(exposures, max(1, round(season_s * 1000)))

    @property
    def hour_ms(self) -> int:
        return max(1, self.season_ms // HOURS)

    def grace_ms(self, exposure_ms: int) -> int:
        """How long records may take after the end of an exposure: 2 h of a day, or more."""
        return max(LEAST_GRACE_MS, max(self.season_ms, exposure_ms) // 12)

    def past(self, span: Span) -> tuple[Span, Span]:
        """The same span one and two seasons earlier.

        An exposure of more than a season goes back by as many as keep the spans apart.
        """
        seasons = -(-span.length_ms // self.season_ms)
        step = seasons * self.season_ms
        return (
            Span(span.from_ms - step, span.to_ms - step),
            Span(span.from_ms - 2 * step, span.to_ms - 2 * step),
        )

    def rehearsal(self, began_ms: int, exposure_ms: int) -> Span:
        """The span on the last day before the start that is compared although nothing changed."""
        from_ms = began_ms - max(self.season_ms, exposure_ms)
        return Span(from_ms, from_ms + exposure_ms)

    def hour(self, at_ms: int) -> int:
        """Number of the hour that a time is in, from 1970 on."""
        return at_ms // self.hour_ms

    def hour_ends(self, hour: int) -> int:
        return (hour + 1) * self.hour_ms


def candidate_clock(began_ms: int, since_ms: int | None, learnt_ms: int, now_ms: int) -> int:
    """When the candidate began to serve on a device.

    `since_ms` is what the device says. Its clock may be wrong: what is not between the wave's
    begin and now is replaced by the time at which we learnt of it.
    """
    if since_ms is not None and began_ms <= since_ms <= now_ms:
        return since_ms
    return min(max(learnt_ms, began_ms), now_ms)


def fetch_ms(
    began_ms: int, clocks: Sequence[int], candidates: int, timing: Timing, now_ms: int
) -> int | None:
    """The median time that candidates needed from the wave's begin on; None: not known yet.

    It is known once half of the `candidates` have started, or, of those that have by then, after
    the shortest exposure. Waiting for it delays no verdict: a control's clock may be in the past.
    """
    if not clocks:
        return None
    patience_ms = min(timing.exposures_ms, default=0)
    if 2 * len(clocks) < candidates and now_ms < began_ms + patience_ms:
        return None
    return median_low(clocks) - began_ms
