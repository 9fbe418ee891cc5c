"""Models trained by scikit-learn on data that comes with it: part of `make bench NAME=payload`.

A site of its own sees the digits one pixel to the side, with noise. What has more rows is trained
on all of them, its base on 95 %.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SEED: Final = 7
KNOWN: Final = 0.95
"""Share of the rows that a base was trained on."""
TREES: Final = 200
MORE: Final = 20
NOISE: Final = 0.05
OPSET: Final = 15


def digits() -> tuple[Rows, Labels]:
    """[1797, 64] from 0 to 1."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels.astype(np.int64)


def site(images: Rows, seed: int = SEED) -> Rows:
    """The same pictures, as another camera sees them."""
    moved = np.roll(images.reshape(-1, 8, 8), 1, axis=2).reshape(len(images), -1)
    noise = np.random.default_rng(seed).standard_normal(images.shape)
    return np.clip(moved + NOISE * noise, 0, 1).astype(np.float32)


def digits_file(path: Path) -> None:
    """What `torch_models` and `numpy_models` train on."""
    images, labels = digits()
    np.savez(
        path,
        images=images.reshape(-1, 8, 8),
        labels=labels,
        site_images=site(images).reshape(-1, 8, 8),
        site_labels=labels,
    )


def mlp(folder: Path) -> None:
    images, labels = digits()
    elsewhere = site(images)

    def fresh(seed: int) -> Any:
        return MLPClassifier((1024, 512), max_iter=12, random_state=seed, warm_start=True)

    base = _trained(fresh(SEED), images, labels)
    _save(base, images, folder / "mlp_base.onnx")
    base.max_iter = 4
    _save(_trained(base, elsewhere, labels), images, folder / "mlp_warm.onnx")
    _save(_trained(fresh(SEED + 1), elsewhere, labels), images, folder / "mlp_cold.onnx")


def forest(folder: Path) -> None:
    """Of pixels with noise, whose thresholds are nearly all different."""
    images, labels = digits()
    rows, order = site(images), _shuffled(len(images))
    known = order[: int(KNOWN * len(order))]
    base = _forest(TREES, SEED).fit(rows[known], labels[known])
    _save(base, rows, folder / "rf_base.onnx")
    _save(_forest(TREES, SEED).fit(rows, labels), rows, folder / "rf_more.onnx")
    longer = copy.deepcopy(base).set_params(n_estimators=TREES + MORE, warm_start=True)
    _save(longer.fit(rows, labels), rows, folder / "rf_longer.onnx")
    swapped = copy.deepcopy(base)
    swapped.estimators_[:MORE] = _forest(MORE, SEED + 1).fit(rows, labels).estimators_
    _save(swapped, rows, folder / "rf_swapped.onnx")


def forest_of_integers(folder: Path) -> None:
    images, labels = digits()
    rows, order = np.rint(images * 16).astype(np.float32), _shuffled(len(images))
    known = order[: int(KNOWN * len(order))]
    _save(_forest(120, SEED).fit(rows[known], labels[known]), rows, folder / "rfi_base.onnx")
    _save(_forest(120, SEED).fit(rows, labels), rows, folder / "rfi_more.onnx")


def regressors(folder: Path) -> None:
    rows, values = load_diabetes(return_X_y=True)

    def make() -> Any:
        return RandomForestRegressor(100, min_samples_leaf=2, random_state=SEED, n_jobs=2)

    _two(make, rows.astype(np.float32), values, folder, "rfr")


def boosting(folder: Path) -> None:
    rows, values = load_diabetes(return_X_y=True)
    rows = rows.astype(np.float32)

    def make() -> Any:
        return GradientBoostingRegressor(
            n_estimators=300, max_depth=5, random_state=SEED, warm_start=True
        )

    base = _two(make, rows, values, folder, "gb")
    known = _shuffled(len(rows))[: int(KNOWN * len(rows))]
    base.n_estimators += MORE
    _save(base.fit(rows[known], values[known]), rows, folder / "gb_longer.onnx")


def boosting_of_classes(folder: Path) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)

    def make() -> Any:
        return GradientBoostingClassifier(n_estimators=100, random_state=SEED)

    _two(make, rows.astype(np.float32), labels, folder, "gbc")


def _two(make: Callable[[], Any], rows: Rows, values: Any, folder: Path, name: str) -> Any:
    """Trained on some, and on all; the former is given back."""
    order = _shuffled(len(rows))
    known = order[: int(KNOWN * len(order))]
    base = make().fit(rows[known], values[known])
    _save(base, rows, folder / f"{name}_base.onnx")
    _save(make().fit(rows, values), rows, folder / f"{name}_more.onnx")
    return base


def _forest(trees: int, seed: int) -> Any:
    return RandomForestClassifier(trees, random_state=seed, n_jobs=2)


def _shuffled(count: int) -> Any:
    return np.random.default_rng(SEED).permutation(count)


def _trained(model: Any, rows: Rows, labels: Labels) -> Any:
    with warnings.catch_warnings():
        # A fixed number of rounds is what is asked for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, labels)


def _save(model: Any, rows: Rows, path: Path) -> None:
    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    made = to_onnx(model, rows[:1], options=options, target_opset=OPSET)
    path.write_bytes(made.SerializeToString())
