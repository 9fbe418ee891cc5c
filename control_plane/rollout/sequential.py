"""Evidence that a candidate is worse, valid whenever one looks: E-values and what is made of them.

A device bets once per score on which side of the hash it is. If nothing changed, its change cannot
tell, whatever its distribution; so a bet with the log ratio r(s) for slot s multiplies a wealth by

    e^{r·[candidate]} / (w·e^r + 1 − w),      w = n_a/(n_a + n_b), the chance to be a candidate,

which is 1 on average; and a wealth above 1/alpha has a chance of at most alpha, ever (Ville).
Everything here is in logarithms of such wealths, of several bets side by side (K of them), whose
mean is the evidence. Sources: Grünwald, de Heide and Koolen, "Safe testing"; Turner, Ly and
Grünwald, "Generic E-variables for exact sequential k-sample tests" (arXiv 2106.02693).

Sides: a = candidates, b = controls. Slots are those of `score.slot_counts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv, ndtr

from control_plane.rollout.score import EDGES

Array = npt.NDArray[np.float64]
Hour = tuple[Sequence[int], Sequence[int]]
"""Slot counts of the candidates and of the controls that were judged in one hour."""

NOTHING: Final = float("-inf")
"""ln M before the first wave."""

SMALL_FLEET: Final = 30
"""Devices in both arms below which a wave of exactly n is not close enough to n coin tosses."""
LARGE_WAVE: Final = 300
"""Devices from which a wave's limit chain also looks for rates only a little above the limit."""

PASS_LEVEL: Final = 0.05
"""A tolerance is proven when the evidence for it reaches 1 / 0.05."""
PASS_SHARE: Final = 0.9
"""A fleet as good as its background stays within `passable` failures with this chance."""

_MIDDLES: Final = np.asarray([EDGES[0] - 0.25, *(edge + 0.25 for edge in EDGES)])
_MASSES: Final = np.diff([0.0, *ndtr(np.asarray(EDGES)), 1.0])
_TILTS: Final = np.array([[0.6], [1.0], [1.7], [3.0]])
_PASS_TILTS: Final = _TILTS[:3]
_TAILS: Final = ((2.0, 6.0), (2.5, 25.0))
_LIMIT_MULTIPLES: Final = (2.0, 4.0, 8.0)
_LARGE_WAVE_MULTIPLE: Final = 1.4
_MOST_RATE: Final = 0.9


def log_mean_exp(log_wealths: Array) -> float:
    """ln of the mean wealth: the evidence of several bets with equal stakes."""
    most = float(log_wealths.max())
    return most + log(float(np.exp(log_wealths - most).mean()))


def effective(n_a: int, n_b: int) -> float:
    """n_a·n_b/(n_a + n_b): devices' worth of comparison, 0 where a side is empty."""
    return n_a * n_b / (n_a + n_b) if n_a and n_b else 0.0


def share_of(n_a: int, n_b: int) -> float:
    """w: the chance that one of the devices that bet is a candidate."""
    return n_a / (n_a + n_b)


def fail_bets(n_a: int, n_b: int, alpha: float) -> Array:
    """Log ratios per slot, shape (6, 12): four shifts of everybody, two hurt sub-groups.

    Tuned to the smallest shift that `n_a` against `n_b` devices can show at `alpha`: the score's
    share of the rollout's, times the wave's share. Raises `ValueError` without control.
    """
    tails = [_tail(edge, ratio) for edge, ratio in _TAILS]
    return np.vstack([_shifts(n_a, n_b, alpha, _TILTS, 1), *tails])


def pass_bets(n_a: int, n_b: int) -> Array:
    """Log ratios per slot, shape (3, 12): that candidates are within the tolerance."""
    return _shifts(n_a, n_b, PASS_LEVEL, _PASS_TILTS, -1)


def score_evidence(
    a: Array | tuple[int, ...],
    b: Array | tuple[int, ...],
    w: float,
    bets: Array,
    *,
    less: float = 0.0,
) -> Array:
    """Log wealths, shape (..., K), of slot counts of candidates and controls, shape (..., 12).

    `less` is subtracted from each: `small_fleet` of the devices that may bet.
    """
    candidates = np.asarray(a, float)
    both = candidates + np.asarray(b, float)
    found: Array = candidates @ bets.T - both @ np.log(w * np.exp(bets) + 1 - w).T - less
    return found


def hours_evidence(hours: Iterable[Hour], n_a: int, n_b: int, bets: Array) -> Array:
    """`score_evidence`, shape (K,), of the slot counts (a, b) of some hours, in any order, with
    the allowance of small fleets."""
    known = list(hours)
    a, b = (np.sum([each[side] for each in known], axis=0) for side in (0, 1))
    return score_evidence(a, b, share_of(n_a, n_b), bets, less=small_fleet(n_a, n_b))


def small_fleet(n_a: int, n_b: int) -> float:
    """What to subtract from ln E where exactly n_a devices, not n_a on average, are candidates.

    Then E may be more than 1 on average, for scores that were made up to be so. Dynamic programming
    over such scores in rollouts of three waves: without the allowance a wrong *fail* was up to 2.4
    times as likely as promised with 10 devices, 1.7 times with 20, and less than promised with 30;
    with it, less than promised everywhere.
    """
    return 0.5 if n_a + n_b < SMALL_FLEET else 0.0


def limit_evidence(n: int, f: float, limit: float, *, devices: int = 0) -> Array:
    """Log wealths of "more than `limit` of them fail" after `n` tried and `f` of those failed.

    Who has not come to an end counts as fine, which is a lower bound; so may a part of a device
    that something else explains. `devices`: the size of the wave as planned; a large one also
    bets on 1.4 times the limit. (4,), or (5,) for those.
    Raises `ValueError` unless 0 < limit < 0.9 and 0 <= f <= n.
    """
    if not 0 < limit < _MOST_RATE or not 0 <= f <= n:
        raise ValueError(f"{f:g} of {n} against a limit of {limit:g}")
    small = (_LARGE_WAVE_MULTIPLE,) if devices >= LARGE_WAVE else ()
    p = np.array([min(limit * each, _MOST_RATE) for each in (*small, *_LIMIT_MULTIPLES)])
    p = np.append(p, _MOST_RATE)
    return np.asarray(f * np.log(p / limit) + (n - f) * np.log((1 - p) / (1 - limit)))


def carry(before_ln: float, share: float, log_wealths: Array) -> float:
    """ln M_k = ln((M_{k−1} + share)·E_k): evidence of this wave on top of those before.

    `before_ln`: ln M_{k−1} as the wave before ended, `NOTHING` at the start. Fresh money for every
    wave, so that good waves do not eat up what a bad one needs; the shares add up to 1 at most.
    """
    return float(np.logaddexp(before_ln, log(share))) + log_mean_exp(log_wealths)


def excluded(n: int, f: int, level: float = 0.95) -> float:
    """U(n, f): the failure rate above which `f` of `n` or fewer would be a surprise of 1 − level.

    One-sided Clopper–Pearson bound; 1 when nobody or everybody decides.
    """
    return 1.0 if f >= n else float(betaincinv(f + 1, n - f, level))


def passable(n: int, background: float, limit: float = 0.0) -> tuple[int, float]:
    """(c, L): failures that a wave of `n` may show and still pass, and what it then excludes.

    c is the smallest number that a fleet failing at `background` exceeds at most once in ten
    times; L is never below `limit`.
    """
    low, c = -1, n
    while c - low > 1:
        middle = (low + c) // 2
        low, c = (low, middle) if bdtr(middle, n, background) >= PASS_SHARE else (middle, c)
    return c, max(limit, excluded(n, c))


def smallest_shift(scale: float, n_a: int, n_b: int, alpha: float) -> float:
    """Beyond the tolerance, the smallest shift of everybody that is caught 80 times in 100.

    In units of D; `alpha` as for `fail_bets`. Infinite without control.
    """
    n = effective(n_a, n_b)
    return (sqrt(2 * log(1 / alpha)) + 1.5) * scale / sqrt(n) if n else float("inf")


def smallest_margin(scale: float, n_a: int, n_b: int) -> float:
    """The smallest tolerance that a harmless candidate is shown to keep 80 times in 100."""
    n = effective(n_a, n_b)
    return 4 * scale / sqrt(n) if n else float("inf")


def _shifts(n_a: int, n_b: int, alpha: float, tilts: Array, sign: int) -> Array:
    n = effective(n_a, n_b)
    if not n:
        raise ValueError(f"{n_a} candidates and {n_b} controls: nobody to compare with")
    tilt = np.clip(sqrt(2 * log(1 / alpha) / n) * tilts, 0.03, 3)
    found: Array = sign * tilt * _MIDDLES - (1 - 2 * share_of(n_a, n_b)) * tilt**2 / 2
    return found


def _tail(edge: float, ratio: float) -> Array:
    """Bet that slots from `edge` on are `ratio` times as likely for candidates."""
    beyond = np.greater(_MIDDLES, edge)
    p = float(_MASSES[beyond].sum())
    return np.where(beyond, log(ratio), log((1 - ratio * p) / (1 - p)))
