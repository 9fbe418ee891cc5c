"""Streams of rows for `make bench NAME=drift-quality`: what devices see, and when it changes.

A device has `FAMILY` monitored columns, whose streams stand next to each other; where something
changes, it changes in the first of them, at window `ONSET`. Each stream has a reference of its own,
`REFERENCE` independent rows of what it is before anything changes. Rows are float32, as counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.special import ndtr

from control_plane.catalog.profile import count, make_edges

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FAMILY: Final = 10
ONSET: Final = 100
REFERENCE: Final = 5000
DAY: Final = 24
SEASON_SD: Final = 0.7
MISSING: Final = 0.05

Change = Callable[[Rows, np.random.Generator], Rows]
"""What becomes of the rows [streams, windows, n] from the onset on."""


@dataclass(frozen=True, slots=True)
class Streams:
    reference: Rows
    """[streams, rows], each row of it sorted."""
    rows: Rows
    """[streams, windows, n]."""
    changed: Mask
    """[streams]: in which ones something changes at `onset`."""
    onset: int | None = None
    """First window that is different; None: nothing changes, whatever is found is false."""
    family: int = FAMILY
    """Streams of one device."""

    @property
    def devices(self) -> int:
        return len(self.rows) // self.family


@dataclass(frozen=True, slots=True)
class Counted:
    """What a device keeps of `Streams`: counts over the bins of each reference."""

    references: Counts
    """[streams, slots]; slots that a stream does not have are 0 and stand at its end."""
    windows: Counts
    """[streams, windows, slots]."""
    slots: Counts
    """[streams]: how many each has."""


def counted(streams: Streams) -> Counted:
    number, windows, n = streams.rows.shape
    edges = [make_edges(reference) for reference in streams.reference]
    slots = np.array([len(each) + 3 for each in edges])
    most = int(slots.max())
    references = np.zeros((number, most), np.int64)
    table = np.zeros((number, windows, most), np.int64)
    starts = most * np.arange(windows)[:, None]
    for stream, (own, rows) in enumerate(zip(edges, streams.rows, strict=True)):
        references[stream, : slots[stream]] = count(streams.reference[stream], own)
        whole = np.concatenate([own, np.array([np.inf, np.nan], np.float32)])
        places = whole.searchsorted(rows.ravel(), side="right").reshape(windows, n) + starts
        flat = np.bincount(places.ravel(), minlength=windows * most)
        table[stream] = flat.reshape(windows, most)
    return Counted(references, table, slots)


# --- independent rows ---------------------------------------------------------------------------


def normal(devices: int, windows: int, n: int, rng: np.random.Generator) -> Streams:
    """Rows of a standard normal, in which nothing changes."""
    streams = devices * FAMILY
    reference = np.sort(rng.standard_normal((streams, REFERENCE), np.float32), axis=1)
    rows = rng.standard_normal((streams, windows, n), np.float32)
    return Streams(reference, rows, np.zeros(streams, np.bool_))


def shifted(sd: float) -> Change:
    return lambda rows, _: rows + np.float32(sd)


def spread(times: float) -> Change:
    return lambda rows, _: rows * np.float32(times)


def stuck(rows: Rows, _: np.random.Generator) -> Rows:
    return np.broadcast_to(rows[:, :1, :1], rows.shape).copy()


def missing(rows: Rows, rng: np.random.Generator) -> Rows:
    return np.where(rng.random(rows.shape) < MISSING, np.float32(np.nan), rows)


CHANGES: Final[Mapping[str, Change]] = {
    "+0.1 sd": shifted(0.1),
    "+0.3 sd": shifted(0.3),
    "+0.6 sd": shifted(0.6),
    "variance x1.5": spread(1.5**0.5),
    "sd x1.5": spread(1.5),
    "stuck": stuck,
    "unit x1000": spread(1000),
    "5 % missing": missing,
}


def changed(
    streams: Streams, change: Change, rng: np.random.Generator, onset: int = ONSET
) -> Streams:
    """The first stream of every device is different from `onset` on."""
    those = np.arange(len(streams.rows)) % streams.family == 0
    rows = streams.rows.copy()
    rows[those, onset:] = change(rows[those, onset:], rng)
    return Streams(streams.reference, rows, those, onset, streams.family)


def null_counts(
    streams: int, windows: int, n: int, rng: np.random.Generator
) -> tuple[Counts, Iterator[Counts]]:
    """As `counted(normal(...))` of so many single streams, without their rows: references
    [streams, slots], and one window [streams, slots] after the other."""
    references, shares = [], []
    for _ in range(streams):
        sample = rng.standard_normal(REFERENCE, np.float32)
        edges = make_edges(sample)
        references.append(count(sample, edges))
        reached = np.concatenate([[0.0], ndtr(edges.astype(float)), [1.0]])
        shares.append([*np.diff(reached), 0.0, 0.0])
    table = np.array(shares)
    return np.array(references), (rng.multinomial(n, table) for _ in range(windows))


# --- rows that depend on each other -------------------------------------------------------------


def autoregressive(
    phi: float, devices: int, windows: int, n: int, rng: np.random.Generator
) -> Streams:
    """AR(1) over all rows of a stream, with a standard normal as the distribution of each."""
    plain = normal(devices, windows, n, rng)
    noise = plain.rows.reshape(len(plain.rows), -1).astype(float)
    noise[:, 1:] *= np.sqrt(1 - phi * phi)
    rows = lfilter([1.0], [1.0, -phi], noise, axis=1).astype(np.float32)
    return Streams(plain.reference, rows.reshape(plain.rows.shape), plain.changed)


def seasonal(devices: int, windows: int, n: int, rng: np.random.Generator) -> Streams:
    """Hourly windows whose mean is a sine of `SEASON_SD` over the day; so is the reference's."""
    plain = normal(devices, windows, n, rng)
    season = SEASON_SD * np.sin(2 * np.pi * np.arange(DAY) / DAY).astype(np.float32)
    hours = rng.integers(0, DAY, plain.reference.shape)
    reference = np.sort(plain.reference + season[hours], axis=1)
    rows = plain.rows + season[np.arange(windows) % DAY][:, None]
    return Streams(reference, rows, plain.changed)


# --- real rows ----------------------------------------------------------------------------------


def sklearn_sets() -> dict[str, Array]:
    """Tables [rows, columns] that come with scikit-learn, in the order of their files."""
    from sklearn import datasets

    loaders: dict[str, Callable[[], Any]] = {
        "digits": datasets.load_digits,
        "breast_cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "diabetes": datasets.load_diabetes,
    }
    return {name: np.asarray(load().data, float) for name, load in loaders.items()}


def in_file_order(table: Array, windows: int, n: int) -> Streams:
    """One device, whose reference is the whole table, and whose rows are those of the table in the
    order of their file, from its beginning again where it ends: nothing changes but the order."""
    values = table.astype(np.float32)
    rows = values[np.arange(windows * n) % len(values)].T.reshape(-1, windows, n)
    return Streams(np.sort(values.T, axis=1), rows, np.zeros(len(rows), np.bool_), None, len(rows))


def class_mix(devices: int, windows: int, n: int, rng: np.random.Generator) -> Streams:
    """Rows drawn from the digits, in which zeros become twice as many. One device is all columns
    that are not constant, and any of them may tell."""
    from sklearn.datasets import load_digits

    table, label = load_digits(return_X_y=True)
    values = table[:, table.std(axis=0) > 0].astype(np.float32)
    doubled = np.where(label == 0, 2.0, 1.0)
    doubled[label != 0] *= (1 - 2 * (label == 0).mean()) / (1 - (label == 0).mean())
    parts = []
    for _ in range(devices):
        before = rng.integers(0, len(values), (ONSET, n))
        after = rng.choice(len(values), (windows - ONSET, n), p=doubled / doubled.sum())
        parts.append(np.moveaxis(values[np.concatenate([before, after])], 2, 0))
    width = values.shape[1]
    reference = np.sort(values[rng.integers(0, len(values), REFERENCE)].T, axis=1)
    rows = np.concatenate(parts)
    references = np.tile(reference, (devices, 1))
    return Streams(references, rows, np.ones(len(rows), np.bool_), ONSET, width)
