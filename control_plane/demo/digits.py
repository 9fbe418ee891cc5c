"""The demo's data and models: scikit-learn's digits, as a slightly noisy camera sees them.

1,250 images are for training. The other 547 are what devices meet; no model is trained on them.
Every look at an image has its own camera noise, drawn from a seed.

The drift reference is made of the images that devices meet, with other noise. Training images
would do for endless traffic; but two finite samples of one population differ, and asking the same
rows again and again makes that difference look certain. For the same reason there are many looks.
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
from threadpoolctl import threadpool_limits

INPUT: Final = "pixels"
"""Name of the model's input: float32 [-1, 64], 0 (background) to 16."""
TRAINING_ROWS: Final = 1250
HELD_OUT: Final = 547
"""The rest: images that no model is trained on."""
LOOKS: Final = 10
"""So many rows of every held-out image: 5,470, the study's 5,000 for a reference."""

_SIDE: Final = 8
_BRIGHTEST: Final = 16.0
_NOISE: Final = 2.0
_SHIFTED_NOISE: Final = 2.0
_SEED: Final = 41
_TRAFFIC: Final = 1
_REFERENCE: Final = 2
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
    pixels, labels = _images()
    labels = labels[:rows]
    if shuffled_labels:
        labels = np.random.default_rng(_SEED).permutation(labels)
    # Noise is drawn for all rows, so that v2 sees the rows of v1 as v1 saw them.
    return Digits(_noisy(pixels[:TRAINING_ROWS], _NOISE, _SEED)[:rows], labels)


def held_out() -> Digits:
    """Many looks at every image that no model was trained on: the traffic of the demo.

    The first `HELD_OUT` rows are one look at each image.
    """
    return _looks(_TRAFFIC)


def reference() -> Digits:
    """As many other looks at the same images: the samples that bundles are built with."""
    return _looks(_REFERENCE)


def train(rows: int, *, shuffled_labels: bool = False) -> Any:
    """A fitted scikit-learn pipeline; the same every time."""
    data = training(rows, shuffled_labels=shuffled_labels)
    network = MLPClassifier(_LAYERS, max_iter=_ROUNDS, random_state=_SEED)
    pipeline = make_pipeline(StandardScaler(), network)
    # One thread: sums in another order would give other weights, and another digest.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Twenty rounds are chosen, not reached by chance.
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(data.pixels, data.labels)
    return pipeline


def shifted(pixels: Pixels, seed: int = _SEED) -> Pixels:
    """The same images one pixel to the right and noisier: a camera that was knocked."""
    images = np.zeros((len(pixels), _SIDE, _SIDE), np.float32)
    images[:, :, 1:] = pixels.reshape(-1, _SIDE, _SIDE)[:, :, :-1]
    return _noisy(images.reshape(len(pixels), -1), _SHIFTED_NOISE, seed)


def _looks(stream: int) -> Digits:
    pixels, labels = (each[TRAINING_ROWS:] for each in _images())
    looks = [_noisy(pixels, _NOISE, (look, stream)) for look in range(LOOKS)]
    return Digits(np.concatenate(looks), np.tile(labels, LOOKS))


@cache
def _images() -> tuple[NDArray[np.float64], Labels]:
    """All images and labels in a fixed random order: the set itself is sorted by writer."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SEED).permutation(len(labels))
    return pixels[order], labels[order].astype(np.int64)


def _noisy(pixels: NDArray[Any], deviation: float, seed: int | tuple[int, int]) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return np.clip(pixels + noise, 0, _BRIGHTEST).astype(np.float32)
