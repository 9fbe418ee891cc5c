"""Rules of others, on the same streams: fixed thresholds, repeated tests, change detectors.

PSI        above 0.1 or 0.2 over the same bins, empty ones taken as a share of 1e-4, as is usual
KS         Kolmogorov and Smirnov's two-sample test on the raw rows, p < .01; and Benjamini and
           Hochberg's rule at 1 % over the columns of a device
chi-square Pearson's two-sample test over the same bins, small ones merged; 1 % as above
ADWIN, KSWIN, Page-Hinkley   river's, as they are set there, on the rows one by one, in standard
           deviations of the reference; they run in an environment of their own (drift_peers)

Each takes streams and gives, per stream and window, whether it alarms.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.special import chdtrc
from scipy.stats import kstwo

from control_plane.drift.distance import LEAST_EXPECTED
from tests.bench.drift_streams import Array, Counted, Mask, Rows, Streams

ROOT: Final = Path(__file__).parents[2]
VENV: Final = ROOT / "build" / "drift-peers" / "venv"
MEASURE: Final = Path(__file__).parent / "drift_peers" / "measure.py"
PACKAGES: Final = (
    ("datasketches==5.2.0", "ddsketch==3.0.1", "zstandard", "numpy"),
    ("river==0.26.1",),
    ("whylogs==1.6.4", "pandas<3"),
    # Neither does the plain package import with pandas 3, nor without statsmodels.
    ("evidently==0.7.23", "pandas<3", "statsmodels"),
)
"""Installed one after the other: what cannot be had is left out."""

LEVEL: Final = 0.01
FLOOR: Final = 1e-4
RIVER: Final = ("ADWIN", "KSWIN", "Page-Hinkley")

Rule = Callable[[Streams, Counted], Mask]
"""Alarms [streams, windows]."""


# --- rules over counts --------------------------------------------------------------------------


def psi_above(limit: float) -> Rule:
    def rule(_: Streams, counts: Counted) -> Mask:
        return psi(counts) > limit

    return rule


def psi(counts: Counted) -> Array:
    """[streams, windows]. Bins that are empty in both add nothing."""
    window, reference = _shares(counts.windows), _shares(counts.references)[:, None]
    return np.asarray(((window - reference) * np.log(window / reference)).sum(axis=2))


def chi_square(streams: Streams, counts: Counted) -> Mask:
    return benjamini_hochberg(chi_square_p(counts), streams.family)


def chi_square_p(counts: Counted) -> Array:
    """[streams, windows], each as `control_plane.drift.distance.two_sample` has it."""
    window = counts.windows.astype(float)
    reference = np.broadcast_to(counts.references[:, None].astype(float), window.shape)
    n, total = window.sum(axis=2), reference.sum(axis=2)
    share = n / (n + total)
    shape = n.shape
    statistic, groups = np.zeros(shape), np.zeros(shape)
    # The last group that is complete waits here: what is left at the end joins it.
    ready, pending = np.zeros((2, *shape)), np.zeros((2, *shape))
    for slot in range(window.shape[2]):
        pending += (window[..., slot], reference[..., slot])
        full = pending.sum(axis=0) * share >= LEAST_EXPECTED
        statistic += np.where(full, _off(ready, n, total), 0.0)
        groups += full & (ready.sum(axis=0) > 0)
        ready = np.where(full, pending, ready)
        pending = np.where(full, 0.0, pending)
    ready += pending
    statistic += _off(ready, n, total)
    groups += ready.sum(axis=0) > 0
    df = groups - 1
    return np.asarray(np.where(df > 0, chdtrc(np.maximum(df, 1), statistic), 1.0))


def _off(group: Array, n: Array, total: Array) -> Array:
    """What one group adds to Pearson's statistic; nothing if it is empty."""
    pooled = group.sum(axis=0) / (n + total)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (group[0] - n * pooled) ** 2 / (n * pooled)
        found += (group[1] - total * pooled) ** 2 / (total * pooled)
    return np.where(pooled > 0, found, 0.0)


def _shares(counts: Any) -> Array:
    return np.asarray(np.maximum(counts / counts.sum(axis=-1, keepdims=True), FLOOR))


# --- rules over rows ----------------------------------------------------------------------------


def ks(streams: Streams, _: Counted) -> Mask:
    return ks_p(streams) < LEVEL


def ks_corrected(streams: Streams, _: Counted) -> Mask:
    return benjamini_hochberg(ks_p(streams), streams.family)


def ks_p(streams: Streams) -> Array:
    """[streams, windows]: p of the two-sample test, by the distribution of the one-sample
    statistic at the effective size, as scipy's `asymp`. NaN is left out."""
    found = np.empty(streams.rows.shape[:2])
    n, total = streams.rows.shape[2], streams.reference.shape[1]
    effective = round(n * total / (n + total))
    grid = np.linspace(0, 1, 2001)
    tail = np.log(np.maximum(kstwo.sf(grid, effective), 1e-300))
    for stream, (reference, rows) in enumerate(zip(streams.reference, streams.rows, strict=True)):
        found[stream] = _ks_distance(np.sort(rows, axis=1), reference)
    return np.asarray(np.exp(np.interp(found, grid, tail)))


def _ks_distance(windows: Rows, reference: Rows) -> Array:
    """Largest distance of the distribution of each (sorted) window to that of the reference.

    It is where a window has rows: at the last of equal ones, or before the first of them.
    """
    known = ~np.isnan(windows)
    rows = np.maximum(known.sum(axis=1, keepdims=True), 1)
    place = np.arange(windows.shape[1])
    rises = windows[:, 1:] != windows[:, :-1]
    edge = np.ones((len(windows), 1), np.bool_)
    after = reference.searchsorted(windows, side="right") / len(reference)
    before = reference.searchsorted(windows, side="left") / len(reference)
    above = np.abs((place + 1) / rows - after) * (np.concatenate([rises, edge], axis=1) & known)
    below = np.abs(place / rows - before) * (np.concatenate([edge, rises], axis=1) & known)
    return np.asarray(np.maximum(above.max(axis=1), below.max(axis=1)))


def benjamini_hochberg(p: Array, family: int) -> Mask:
    """Which of p [streams, windows] are called among the `family` neighbours of each window."""
    table = p.reshape(-1, family, p.shape[1])
    ranked = np.sort(table, axis=1)
    limits = LEVEL * np.arange(1, family + 1)[:, None] / family
    cut = np.where(ranked <= limits, ranked, -1.0).max(axis=1, keepdims=True)
    return np.asarray((table <= cut).reshape(p.shape))


RULES: Final[Mapping[str, Rule]] = {
    "PSI > 0.1": psi_above(0.1),
    "PSI > 0.2": psi_above(0.2),
    "KS p < .01": ks,
    "KS, BH 1 %": ks_corrected,
    "chi-square, BH 1 %": chi_square,
}


# --- rules in an environment of their own -------------------------------------------------------


def python() -> Path | None:
    """The peers' interpreter, made when it is missing; None where it cannot be had."""
    found = VENV / "bin" / "python"
    if found.exists():
        return found
    VENV.parent.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"peers are left out: {error}", file=sys.stderr)
        return None
    for packages in PACKAGES:
        installed = subprocess.run([VENV / "bin" / "pip", "install", "-q", *packages])
        if installed.returncode:
            print(f"{packages[0]} is left out: it does not install", file=sys.stderr)
    return found


def versions(interpreter: Path) -> dict[str, str]:
    """Of the peers that can be imported, by name."""
    done = subprocess.run(
        [interpreter, MEASURE, "versions"], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def river(
    interpreter: Path, names: tuple[str, ...], streams: Streams, most: int, windows: int
) -> Mask:
    """Alarms [rule, stream, window] of the first streams in which something changes, or of the
    first ones where nothing does: `most` of them, and of each the first `windows`."""
    those = np.flatnonzero(streams.changed if streams.changed.any() else ~streams.changed)[:most]
    reference = streams.reference[those].astype(float)
    centre, scale = reference.mean(axis=1), reference.std(axis=1)
    scale = np.where(scale > 0, scale, 1.0)
    rows = (streams.rows[those, :windows] - centre[:, None, None]) / scale[:, None, None]
    with tempfile.TemporaryDirectory(prefix="drift-") as name:
        given, found = Path(name) / "rows.npy", Path(name) / "alarms.npy"
        np.save(given, rows.astype(np.float32))
        command = [str(interpreter), str(MEASURE), "streams", ",".join(names)]
        subprocess.run([*command, str(given), str(found)], check=True)
        return np.asarray(np.load(found))


def river_sets(interpreter: Path) -> dict[str, Array]:
    """Tables [rows, columns] of numbers that come with river, in the order of their files."""
    with tempfile.TemporaryDirectory(prefix="drift-") as name:
        path = Path(name) / "sets.npz"
        subprocess.run([interpreter, MEASURE, "sets", path], check=True)
        with np.load(path) as sets:
            return {name: np.asarray(sets[name]) for name in sets}
