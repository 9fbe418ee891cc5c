"""Three updates as fleets get them: really trained, before and after, as ONNX files.

A network of 1.1 million parameters that is trained on, a forest and a boosted ensemble to which
trees are added, all when there is a tenth more of the digits that sklearn brings. Seeds are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.neural_network import MLPClassifier

_NEW = 180
"""Rows that the first version has not seen."""


@dataclass(frozen=True, slots=True)
class Update:
    name: str
    before: bytes
    after: bytes


def updates() -> tuple[Update, ...]:
    """Takes about a minute of processor time."""
    rows, labels = load_digits(return_X_y=True)
    rows = (rows / 16).astype(np.float32)
    makers: dict[str, Callable[[Any, Any], tuple[bytes, bytes]]] = {
        "network, trained on": _network,
        "forest, trees added": _forest,
        "boosted trees, trees added": _boosted,
    }
    return tuple(Update(name, *make(rows, labels)) for name, make in makers.items())


def _network(rows: Any, labels: Any) -> tuple[bytes, bytes]:
    network = MLPClassifier(
        (1024, 1024), solver="sgd", learning_rate_init=0.05, max_iter=1, random_state=1
    )
    classes = np.unique(labels)
    for _ in range(8):
        network.partial_fit(rows[:-_NEW], labels[:-_NEW], classes=classes)
    before = _onnx(network, rows)
    network._optimizer.learning_rate = 0.002
    network.partial_fit(rows[-_NEW:], labels[-_NEW:])
    return before, _onnx(network, rows)


def _forest(rows: Any, labels: Any) -> tuple[bytes, bytes]:
    return _grown(RandomForestClassifier(warm_start=True, random_state=1), rows, labels, 100, 110)


def _boosted(rows: Any, labels: Any) -> tuple[bytes, bytes]:
    return _grown(GradientBoostingClassifier(warm_start=True, random_state=1), rows, labels, 60, 66)


def _grown(trees: Any, rows: Any, labels: Any, first: int, then: int) -> tuple[bytes, bytes]:
    """Before, and with trees that were added when there were more rows."""
    trees.set_params(n_estimators=first).fit(rows[:-_NEW], labels[:-_NEW])
    before = _onnx(trees, rows)
    trees.set_params(n_estimators=then).fit(rows, labels)
    return before, _onnx(trees, rows)


def _onnx(model: Any, rows: Any) -> bytes:
    written: bytes = to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString()
    return written
