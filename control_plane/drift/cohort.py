"""Whether a group of devices sees other inputs than its model was built on: the plain rule.

Merged counts against the reference profile, feature by feature. It takes rows as independent;
the rule that takes the device as the sampling unit comes later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from control_plane.drift.distance import adjusted, corrected_psi, feature_p
from protocol.members import Profile

Verdict = Literal["cohort drifted", "no drift", "too few"]

LEAST_ROWS: Final = 50
SIGNIFICANCE: Final = 1e-3
"""Of Benjamini and Hochberg's adjusted p, over the features."""
LEAST_PSI: Final = 0.02
"""Bias-corrected. Below it a difference may be certain and still does not matter."""


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    name: str
    psi: float
    """Bias-corrected; around 0 without drift."""
    p: float
    """Adjusted for the number of features."""
    drifted: bool


@dataclass(frozen=True, slots=True)
class CohortDrift:
    verdict: Verdict
    rows: int
    features: tuple[FeatureDrift, ...] = ()
    """Largest PSI first; empty where there are too few rows."""

    @property
    def psi(self) -> float | None:
        """The largest bias-corrected PSI."""
        return self.features[0].psi if self.features else None

    @property
    def drifted(self) -> tuple[FeatureDrift, ...]:
        return tuple(feature for feature in self.features if feature.drifted)


def judge(profile: Profile, counts: Sequence[Sequence[int]]) -> CohortDrift:
    """Judge merged counts, one row of slots per feature of the profile.

    No counts at all (windows without histograms) are too few. Raises `ValueError` for counts of
    other features or slots than the profile's.
    """
    if not counts:
        return CohortDrift("too few", 0)
    if [len(each) for each in counts] != [len(feature.counts) for feature in profile.features]:
        raise ValueError("the counts are of another profile")
    rows = max(sum(each) for each in counts)
    if rows < LEAST_ROWS or not any(sum(feature.counts) for feature in profile.features):
        return CohortDrift("too few", rows)
    pairs = list(zip(counts, (feature.counts for feature in profile.features), strict=True))
    p_values = adjusted([feature_p(*pair) for pair in pairs])
    judged = [
        FeatureDrift(feature.name, size, p, p < SIGNIFICANCE and size > LEAST_PSI)
        for feature, pair, p in zip(profile.features, pairs, p_values, strict=True)
        for size in [corrected_psi(*pair)]
    ]
    judged.sort(key=lambda feature: (-feature.psi, feature.name))
    drifted = any(feature.drifted for feature in judged)
    return CohortDrift("cohort drifted" if drifted else "no drift", rows, tuple(judged))
