"""Whether a group of devices sees other inputs than its model was built on.

From five devices on, the device is the sampling unit: what one of them does, however often, calls
nobody else. With fewer, merged rows are compared as if they were independent, which is the best
that a small site can be told; `unit` says which of both it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from control_plane.drift import heterogeneity, robust
from control_plane.drift.distance import adjusted, corrected_psi, feature_p
from control_plane.drift.heterogeneity import Parts
from control_plane.drift.words import Verdict
from protocol.histogram import Counts
from protocol.members import Feature, Profile

LEAST_ROWS: Final = 50
SIGNIFICANCE: Final = 1e-3
"""Of Benjamini and Hochberg's adjusted p, over all tests of the cohort."""
LEAST_PSI: Final = 0.02
"""Bias-corrected. Below it a difference may be certain and still does not matter."""

Unit = Literal["devices", "rows"]
"""What was counted as independent."""


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One stream: a feature, or the residual that shows how features go together."""

    index: int
    """Of the stream: features first, then the residual."""
    name: str
    psi: float
    """Bias-corrected; around 0 without drift."""
    p: float
    """Adjusted for the number of tests."""
    drifted: bool


@dataclass(frozen=True, slots=True)
class CohortDrift:
    verdict: Verdict
    rows: int
    """Of all devices, also those with too few to have a say."""
    features: tuple[FeatureDrift, ...] = ()
    """Largest PSI first; empty where there are too few rows."""
    unit: Unit = "rows"
    devices: int = 0
    """With enough rows to have a say; 0 where rows were counted."""
    part: Parts | None = None
    """Of half a cohort that drifted: by the stream that shows it best."""

    @property
    def psi(self) -> float | None:
        """The largest bias-corrected PSI."""
        return self.features[0].psi if self.features else None

    @property
    def drifted(self) -> tuple[FeatureDrift, ...]:
        return tuple(feature for feature in self.features if feature.drifted)


def judge(
    profile: Profile,
    counts: Sequence[Sequence[int]],
    residual: Sequence[int] = (),
    devices: Sequence[Sequence[Counts]] | None = None,
) -> CohortDrift:
    """Judge the counts of a cohort against the profile they were counted by.

    `counts` are merged: one row of slots per feature, and `residual` those of the residual; both
    may be empty, as windows without histograms are. `devices` has per device the counts of each
    stream, () where it has none. Raises `ValueError` for counts of another profile.
    """
    streams = _streams(profile, counts, residual)
    rows = _rows(counts)
    heard = [each for each in devices or () if _rows(each) >= LEAST_ROWS]
    if len(heard) >= robust.LEAST_DEVICES and any(sum(each.counts) for each in profile.features):
        return _by_device(streams, heard, rows)
    return _by_rows(streams, [*counts, residual][: len(streams)], rows)


def _streams(
    profile: Profile, counts: Sequence[Sequence[int]], residual: Sequence[int]
) -> list[Feature]:
    """Those that there are merged counts of."""
    if not counts:
        return []
    if [len(each) for each in counts] != [len(feature.counts) for feature in profile.features]:
        raise ValueError("the counts are of another profile")
    streams = list(profile.features)
    if not residual:
        return streams
    if profile.residual is None or len(residual) != len(profile.residual.feature.counts):
        raise ValueError("the residual is of another profile")
    return [*streams, profile.residual.feature]


def _by_rows(streams: Sequence[Feature], counts: Sequence[Sequence[int]], rows: int) -> CohortDrift:
    if rows < LEAST_ROWS or not any(sum(feature.counts) for feature in streams):
        return CohortDrift("not enough data", rows)
    pairs = list(zip(counts, streams, strict=True))
    p_values = adjusted([feature_p(c, f.counts, f.outside) for c, f in pairs])
    sizes = [corrected_psi(c, f.counts) for c, f in pairs]
    judged = _judged(streams, sizes, p_values)
    drifted = any(feature.drifted for feature in judged)
    return CohortDrift("cohort drifted" if drifted else "no drift", rows, judged)


def _by_device(
    streams: Sequence[Feature], devices: Sequence[Sequence[Counts]], rows: int
) -> CohortDrift:
    tests = robust.test(streams, devices)
    parts = heterogeneity.parts(streams, devices)
    # One family: a cohort that fell apart is looked for in the same breath.
    p_values = adjusted([*(each.p for each in tests), *(each.p for each in parts)])
    split = [
        (p, -each.gap, each)
        for each, p in zip(parts, p_values[len(tests) :], strict=True)
        if p < SIGNIFICANCE
    ]
    part = min(split, key=lambda each: each[:2])[2] if split else None
    sizes = [each.psi for each in tests]
    judged = _judged(streams, sizes, p_values[: len(tests)])
    verdict: Verdict = "no drift"
    if part is not None:
        verdict = "half of the cohort drifted"
    elif any(feature.drifted for feature in judged):
        verdict = "cohort drifted"
    return CohortDrift(verdict, rows, judged, "devices", len(devices), part)


def _judged(
    streams: Sequence[Feature], sizes: Sequence[float], p_values: Sequence[float]
) -> tuple[FeatureDrift, ...]:
    found = [
        FeatureDrift(index, feature.name, size, p, p < SIGNIFICANCE and size > LEAST_PSI)
        for index, (feature, size, p) in enumerate(zip(streams, sizes, p_values, strict=True))
    ]
    return tuple(sorted(found, key=lambda feature: (-feature.psi, feature.name)))


def _rows(table: Sequence[Sequence[int]]) -> int:
    """Rows that were counted: every stream counts all of them, unless it was not kept."""
    return max((sum(each) for each in table), default=0)
