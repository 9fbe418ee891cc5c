"""What a fleet's budget of false alarms allows each kind of test: every threshold follows from it.

A budget is an expected number of false alarms in a year. Half of it goes to the detectors of the
devices, a quarter to comparing devices with their peers, a quarter to comparing cohorts with their
reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from protocol.edetector import DEFAULT_THRESHOLD

LEAST_PER_YEAR: Final = 0.01
MOST_PER_YEAR: Final = 1000.0

DETECTORS: Final = 1 / 2
PEERS: Final = 1 / 4
COHORTS: Final = 1 / 4

LEAST_LN: Final = 5.0
"""A detector's threshold is never below this: a large budget does not make noise evidence."""
MOST_PEER_P: Final = 1e-4
MOST_COHORT_Q: Final = 0.05


@dataclass(frozen=True, slots=True)
class Terms:
    """The budget, what there is to test in a year, and the thresholds that follow."""

    per_year: float
    """Expected false alarms."""
    streams: int
    """Features and residuals that are watched now, over all devices and models."""
    starts: int
    """Detectors that start in a year: each version of a model starts those of its devices anew."""
    slots_per_year: float
    """Spans of time in which devices are compared with their peers."""
    days_per_year: float
    """Spans of time in which cohorts are compared with their reference."""

    @property
    def ln_threshold(self) -> float:
        """ln e from which a detector counts as fired.

        A detector ever reaches e with a chance of at most 1/e (Ville 1939), so `starts` of them
        give at most `starts`/e false alarms, which is to be half of the budget.
        """
        if not self.starts:
            return DEFAULT_THRESHOLD
        return max(LEAST_LN, math.log(self.starts / (self.per_year * DETECTORS)))

    @property
    def peer_p(self) -> float:
        """p below which a device stands out in one slot.

        Two of three slots in a row do by chance with about 3p², in each slot and each stream.
        """
        if not self.streams or not self.slots_per_year:
            return MOST_PEER_P
        share = self.per_year * PEERS
        return min(MOST_PEER_P, math.sqrt(share / (3 * self.slots_per_year * self.streams)))

    @property
    def cohort_q(self) -> float:
        """Level of a day's family of tests: where nothing drifts, the chance of any false call."""
        if not self.days_per_year:
            return MOST_COHORT_Q
        return min(MOST_COHORT_Q, self.per_year * COHORTS / self.days_per_year)


def terms(
    per_year: float, *, streams: int, starts: int, slots_per_year: float, days_per_year: float
) -> Terms:
    """Raises `ValueError` for a budget outside of `LEAST_PER_YEAR` to `MOST_PER_YEAR`."""
    if not LEAST_PER_YEAR <= per_year <= MOST_PER_YEAR:
        raise ValueError(f"a budget is {LEAST_PER_YEAR} to {MOST_PER_YEAR:,.0f} alarms a year")
    if min(streams, starts, slots_per_year, days_per_year) < 0:
        raise ValueError("there cannot be fewer than none")
    return Terms(per_year, streams, starts, slots_per_year, days_per_year)
