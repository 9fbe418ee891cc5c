"""The demo's data and models: scikit-learn's digits, as a slightly noisy camera sees them.

All 1,797 images are shuffled once and get the same camera noise, so that training rows, reference
profile and traffic are samples of one population: what drifts later, drifts on purpose.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

INPUT: Final = "pixels"
"""Name of the model's input: float32 [-1, 64], 0 (background) to 16."""
TRAINING_ROWS: Final = 1250
"""The rest, 547 rows, is held out and never trained on."""

_SIDE: Final = 8
_BRIGHTEST: Final = 16.0
_NOISE: Final = 2.0
_SHIFTED_NOISE: Final = 2.0
_SEED: Final = 41
# 338 kB of weights: several frames of 64 KiB.
_LAYERS: Final = (256, 256)
_ROUNDS: Final = 20

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """`pixels` [rows, 64] and `labels` [rows], 0 to 9."""

    pixels: Pixels
    labels: Labels


def training(rows: int, *, shuffled_labels: bool = False) -> Digits:
    """The first `rows` training rows. Shuffled: each has the label of a random row."""
    if not 0 < rows <= TRAINING_ROWS:
        raise ValueError(f"1 to {TRAINING_ROWS} training rows")
    everything = _digits()
    labels = everything.labels[:rows]
    if shuffled_labels:
        labels = np.random.default_rng(_SEED).permutation(labels)
    return Digits(everything.pixels[:rows], labels)


def held_out() -> Digits:
    """Rows that no model was trained on: the traffic of the demo."""
    everything = _digits()
    return Digits(everything.pixels[TRAINING_ROWS:], everything.labels[TRAINING_ROWS:])


def train(rows: int, *, shuffled_labels: bool = False) -> Any:
    """A fitted scikit-learn pipeline; the same every time."""
    data = training(rows, shuffled_labels=shuffled_labels)
    network = MLPClassifier(_LAYERS, max_iter=_ROUNDS, random_state=_SEED)
    pipeline = make_pipeline(StandardScaler(), network)
    with warnings.catch_warnings():
        # Twenty rounds are chosen, not reached by chance.
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(data.pixels, data.labels)
    return pipeline


def shifted(pixels: Pixels, seed: int = _SEED) -> Pixels:
    """The same images one pixel to the right and noisier: a camera that was knocked."""
    images = np.zeros((len(pixels), _SIDE, _SIDE), np.float32)
    images[:, :, 1:] = pixels.reshape(-1, _SIDE, _SIDE)[:, :, :-1]
    return _noisy(images.reshape(len(pixels), -1), _SHIFTED_NOISE, seed)


@cache
def _digits() -> Digits:
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SEED).permutation(len(labels))
    return Digits(_noisy(pixels[order], _NOISE, _SEED), labels[order].astype(np.int64))


def _noisy(pixels: NDArray[Any], deviation: float, seed: int) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return np.clip(pixels + noise, 0, _BRIGHTEST).astype(np.float32)
