"""The device's e-detector for thousands of streams at once, over numpy.

`protocol.edetector` steps one device in plain Python; this steps every stream of a simulated fleet
in one go, from the same constants and with formulas of its own: all ratios as one matrix, and
evidence as it is instead of its logarithm. tests/bench/test_drift_bench.py holds the two together.
"""

from __future__ import annotations

from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol import edetector

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_CAP: Final = np.exp(edetector.CAP)


class Mirror:
    """One detector per row of `references`: counts [streams, slots] of a number each.

    Features of fewer slots than others are filled up by empty ones at the end, and `slots` says
    how many each has; None: all of them.
    """

    def __init__(self, references: Counts, slots: Counts | None = None) -> None:
        streams, most = references.shape
        own = np.full(streams, most) if slots is None else slots
        real = np.arange(most) < own[:, None]
        rows = references.sum(axis=1)
        self._p = np.where(real, (references + 0.5) / (rows + own / 2)[:, None], 0.0)
        middles = self._p.cumsum(axis=1) - self._p / 2 - 0.5
        scores = np.stack([middles * np.sqrt(12), (np.abs(middles) - 0.25) * 4 * np.sqrt(3)], 1)
        self._scores = np.where(real[:, None], scores, 0.0)
        self._means = np.einsum("skt,st->sk", self._scores, self._p)
        spread = (self._scores - self._means[..., None]) ** 2
        self._deviations = np.sqrt(np.einsum("skt,st->sk", spread, self._p))
        ratios, self._placed = self._bets(real)
        per_row = np.sqrt((self._p[:, None] * (ratios - 1) ** 2).sum(axis=2) / rows[:, None])
        margins = np.log1p(edetector.KAPPA * per_row)
        # [streams, slots, bets]: what one row in a slot adds to the logarithm of each bet.
        self._gains = np.ascontiguousarray((np.log(ratios) - margins[..., None]).transpose(0, 2, 1))
        self._evidence = np.zeros(margins.shape)
        self._t = 0
        self._mean = np.zeros_like(self._means)
        self._squares = np.zeros_like(self._means)
        self.vif = np.full(streams, np.nan)
        """NaN until it is measured."""

    def step(self, counts: Counts) -> Array:
        """ln e per stream after one more window [streams, slots] of at least 20 rows each."""
        rows = counts.sum(axis=1)
        if rows.min() < edetector.LEAST_ROWS:
            raise ValueError(f"windows of fewer than {edetector.LEAST_ROWS} rows step nothing")
        known = ~np.isnan(self.vif)
        inflation = np.where(known, self.vif, 1.0)
        safety = np.where(inflation > edetector.VIF_NOTED, edetector.VIF_SAFETY, 1.0)
        power = np.where(known, 1 / np.maximum(1, safety * inflation), edetector.BURN_IN_EXPONENT)
        self._t += 1
        gained = (counts[:, None].astype(float) @ self._gains)[:, 0] * power[:, None]
        with np.errstate(over="ignore"):
            grown = (self._evidence + 1 / (self._t * (self._t + 1))) * np.exp(gained)
        self._evidence = np.where(self._placed, np.minimum(grown, _CAP), 0.0)
        if self._t <= edetector.BURN_IN:
            self._measure(counts, rows)
        with np.errstate(divide="ignore"):
            ln_e: Array = np.log(self._evidence.sum(axis=1) / self._placed.sum(axis=1))
        return ln_e

    def _bets(self, real: npt.NDArray[np.bool_]) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Ratios [streams, bets, slots], 1 in slots that are not real; and which bets there are."""
        ratios, placed = [], []
        for which, theta, sign in product((0, 1), edetector.TILTS, (1, -1)):
            tilted = np.exp(sign * theta * self._scores[:, which])
            ratios.append(tilted / (self._p * tilted).sum(axis=1, keepdims=True))
            placed.append(real[:, 0])
        for slot in range(real.shape[1]):
            share = self._p[:, slot]
            for goal in (np.minimum(0.95, 2 * share + 0.01), np.minimum(0.95, share + 0.5)):
                there = real[:, slot] & (goal > share)
                with np.errstate(divide="ignore", invalid="ignore"):
                    ratio = np.repeat(((1 - goal) / (1 - share))[:, None], real.shape[1], axis=1)
                    ratio[:, slot] = goal / share
                ratios.append(np.where(there[:, None], ratio, 1.0))
                placed.append(there)
        every = np.stack(ratios, axis=1)
        return np.where(real[:, None], every, 1.0), np.stack(placed, axis=1)

    def _measure(self, counts: Counts, rows: Counts) -> None:
        sums = np.einsum("skt,st->sk", self._scores, counts)
        z = (sums - rows[:, None] * self._means) / (np.sqrt(rows)[:, None] * self._deviations)
        moved = self._mean + (z - self._mean) / self._t
        self._squares += (z - self._mean) * (z - moved)
        self._mean = moved
        if self._t == edetector.BURN_IN:
            self.vif = (self._squares / (self._t - 1)).max(axis=1)


def ln_e(references: Counts, windows: Counts, slots: Counts | None = None) -> Array:
    """[streams, windows]: ln e after each of `windows` [streams, windows, slots]."""
    mirror = Mirror(references, slots)
    said = [mirror.step(windows[:, number]) for number in range(windows.shape[1])]
    return np.stack(said, axis=1)
