"""How far the counts of a window are from those of a reference: effect sizes and tests.

All take two histograms over the same slots as arrays of counts, shape (slots,), the window's
first. Slots that are empty in both say nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from protocol.members import Profile

Array = npt.NDArray[np.float64]

PRIOR: Final = 0.5
"""Added to each slot: keeps the tail of the PSI right where a slot is empty."""
LEAST_EXPECTED: Final = 2.0
"""Neighbouring slots are merged until a window is expected to have this many rows there."""
LEAST_ROWS: Final = 50
"""Fewer say nothing about an effect."""


@dataclass(frozen=True, slots=True)
class Comparison:
    statistic: float
    df: int
    p: float


def populated(window: Sequence[int], reference: Sequence[int]) -> tuple[Array, Array]:
    """Both as arrays, without slots that are empty in both. Raises `ValueError` for other slots."""
    counts, expected = np.asarray(window, float), np.asarray(reference, float)
    if counts.shape != expected.shape or counts.ndim != 1:
        raise ValueError(f"{counts.shape} and {expected.shape} are not the same slots")
    keep = counts + expected > 0
    return counts[keep], expected[keep]


def psi(window: Sequence[int], reference: Sequence[int]) -> float:
    """Population stability index, Σ (p − q) ln(p / q), with `PRIOR` rows added to each slot."""
    counts, expected = populated(window, reference)
    if not counts.sum() or not expected.sum():
        return 0.0
    p, q = (_shares(each) for each in (counts, expected))
    return float(((p - q) * np.log(p / q)).sum())


def psi_bias(window: Sequence[int], reference: Sequence[int]) -> float:
    """What the PSI is on average without any drift: (B − 1)(1/n + 1/N)."""
    counts, expected = populated(window, reference)
    n, reference_n = counts.sum(), expected.sum()
    if not n or not reference_n:
        return 0.0
    return float((len(counts) - 1) * (1 / n + 1 / reference_n))


def corrected_psi(window: Sequence[int], reference: Sequence[int]) -> float:
    """PSI less its bias: an effect size, around 0 without drift (so it can be negative)."""
    return psi(window, reference) - psi_bias(window, reference)


def two_sample(window: Sequence[int], reference: Sequence[int]) -> Comparison:
    """Pearson's χ² test that both are samples of one distribution; small slots merged."""
    counts, expected = merge_small(*populated(window, reference))
    if len(counts) < 2:
        return Comparison(0.0, 0, 1.0)
    n, reference_n = counts.sum(), expected.sum()
    pooled = (counts + expected) / (n + reference_n)
    statistic = float(
        ((counts - n * pooled) ** 2 / (n * pooled)).sum()
        + ((expected - reference_n * pooled) ** 2 / (reference_n * pooled)).sum()
    )
    df = len(counts) - 1
    return Comparison(statistic, df, float(chdtrc(df, statistic)))


def bad_slots_p(window: Sequence[int], reference: Sequence[int], outside: Sequence[int]) -> float:
    """Fisher's exact p that rows in slots `outside` of the reference's range have become more.

    Merging small slots would hide them, so they are tested apart.
    """
    counts, expected = np.asarray(window), np.asarray(reference)
    bad = list(outside)
    seen, known = int(counts[bad].sum()), int(expected[bad].sum())
    n, total = int(counts.sum()), int(counts.sum() + expected.sum())
    if not seen:
        return 1.0
    # Takes a second to import, which a control plane that starts again does not have to spend.
    from scipy.stats import hypergeom

    return float(hypergeom.sf(seen - 1, total, seen + known, n))


def feature_p(window: Sequence[int], reference: Sequence[int], outside: Sequence[int]) -> float:
    """p of one feature: the smaller of both tests, doubled because there are two."""
    both = (two_sample(window, reference).p, bad_slots_p(window, reference, outside))
    return min(1.0, 2 * min(both))


def drift_score(profile: Profile, counts: Sequence[Sequence[int]]) -> float | None:
    """How far a place is from a profile: the mean over its features of the corrected PSI.

    Negative ones count as 0. None below `LEAST_ROWS` rows or without features. Raises `ValueError`
    for counts of another profile.
    """
    if not counts or not profile.features or max(map(sum, counts)) < LEAST_ROWS:
        return None
    pairs = zip(counts, (feature.counts for feature in profile.features), strict=True)
    return float(np.mean([max(0.0, corrected_psi(*pair)) for pair in pairs]))


def merge_small(counts: Array, expected: Array) -> tuple[Array, Array]:
    """Join neighbours until the window expects `LEAST_EXPECTED` rows in each, pooled."""
    groups = grouped(counts + expected, counts.sum())
    joined = [np.array([side[each].sum() for each in groups]) for side in (counts, expected)]
    return joined[0], joined[1]


def grouped(pooled: Array, rows: float) -> list[npt.NDArray[np.intp]]:
    """Slots that are merged: neighbours, until `rows` of the pooled expect `LEAST_EXPECTED`.

    What is left over joins the last group. No group is empty in all of `pooled`.
    """
    share = rows / max(float(pooled.sum()), 1.0)
    groups: list[list[int]] = []
    pending: list[int] = []
    held = 0.0
    for slot, count in enumerate(pooled):
        pending.append(slot)
        held += float(count)
        if held * share >= LEAST_EXPECTED:
            groups.append(pending)
            pending, held = [], 0.0
    if held and not groups:
        groups.append(pending)
    elif groups:
        groups[-1].extend(pending)
    return [np.array(each, np.intp) for each in groups]


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values, in the given order.

    Rejecting those up to a level keeps the expected share of false ones among them below it.
    """
    p = np.asarray(p_values, float)
    if not len(p):
        return []
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    stepped = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    result = np.empty_like(stepped)
    result[order] = stepped
    return [float(each) for each in result]


def _shares(counts: Array) -> Array:
    shares: Array = (counts + PRIOR) / (counts.sum() + PRIOR * len(counts))
    return shares
