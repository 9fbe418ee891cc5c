"""Rows to counts over the reference profile's bins: the only form in which inputs are kept.

Slots are those of `searchsorted(side="right")` on `[*edges, +inf, nan]`: below, inner bins, above,
infinity and NaN have their own. A text comes as the code of its word, and has the slot of that
number. Slots are found by comparing all rows with one edge of every column at a time, which for so
few edges costs a fifth of searching, and counted by one `bincount` for all columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.histogram import CONFIDENCE_BINS, Counts
from protocol.members import Contract, Feature, TensorSpec

Array = NDArray[Any]
Rows = NDArray[np.float32]


class FeatureFold:
    """Counts of rows [n, features] in the slots of every feature."""

    def __init__(self, features: Sequence[Feature]) -> None:
        # float32 like the rows: an edge between two float32 values would move whole columns.
        reached = [_edges(feature) for feature in features]
        most = max(len(edges) for edges in reached)
        self._edges = np.full((most, len(features), 1), np.nan, np.float32)
        for column, edges in enumerate(reached):
            self._edges[: len(edges), column, 0] = edges
        # The last slot is that of NaN, or of a text that is missing.
        self._nan = np.array([[feature.slots - 1] for feature in features], np.uint8)
        sizes = [feature.slots for feature in features]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __call__(self, rows: Rows) -> NDArray[np.int64]:
        """Counts of all features, one after the other; `split` takes them apart."""
        # A column in one piece: numpy compares that with an edge in a third of the time.
        columns = np.ascontiguousarray(rows.T)
        slots = np.zeros(columns.shape, np.uint8)
        reached = np.empty(columns.shape, np.bool_)
        counted = reached.view(np.uint8)
        with np.errstate(invalid="ignore"):
            # A slot is the number of edges that a value has reached; NaN has reached none.
            for edges in self._edges:
                np.greater_equal(columns, edges, out=reached)
                slots += counted
            np.not_equal(columns, columns, out=reached)
        if reached.any():
            np.copyto(slots, self._nan, where=reached)
        return np.bincount(
            (slots + self._starts[:-1, None]).ravel(), minlength=int(self._starts[-1])
        ).astype(np.int64)

    @property
    def size(self) -> int:
        """Slots of all features."""
        return int(self._starts[-1])

    def split(self, counts: NDArray[np.int64]) -> tuple[Counts, ...]:
        flat = counts.tolist()
        return tuple(tuple(flat[start:stop]) for start, stop in pairwise(self._starts.tolist()))


def _edges(feature: Feature) -> tuple[float, ...]:
    """What a value is compared with: one less than there are slots for numbers but NaN, or for
    codes of words 0, 1, 2 ..."""
    if feature.kind == "words":
        return tuple(map(float, range(1, feature.slots)))
    return (*feature.edges, inf)


def feature_rows(first_input: Array, rows: int) -> Rows:
    """Columns of the first input, flattened in C order per row: [rows, columns]."""
    # A float64 beyond float32 becomes infinite, and has a slot.
    with np.errstate(over="ignore", invalid="ignore"):
        return first_input.reshape(rows, -1).astype(np.float32, copy=False)


NOTHING = -1.0
"""In answer columns: this row has no confidence, or no class."""


def answer_rows(contract: Contract, outputs: dict[str, Array], rows: int) -> Rows:
    """[rows, 2]: largest probability and class index of every row, `NOTHING` where there is none.

    A row with a NaN among its probabilities has neither.
    """
    answers = np.full((rows, 2), NOTHING, np.float32)
    spec = contract.output("probabilities")
    if spec is not None:
        probabilities = outputs[spec.name]
        if probabilities.size and probabilities.size % rows == 0:
            table = probabilities.reshape(rows, -1)
            # As above: along short rows numpy takes ten times as long.
            columns = np.ascontiguousarray(table.T)
            answers[:, 0] = np.clip(columns.max(axis=0), 0, 1)
            if table.shape[1] == len(contract.classes):
                answers[:, 1] = table.argmax(axis=1)
            finite = np.isfinite(columns)
            if not finite.all():
                answers[~finite.all(axis=0)] = NOTHING
        return answers
    spec = contract.output("label")
    if spec is not None and contract.classes:
        place = {name: index for index, name in enumerate(contract.classes)}
        labels = outputs[spec.name].ravel()
        if len(labels) == rows:
            answers[:, 1] = [place.get(_text(label), NOTHING) for label in labels.tolist()]
    return answers


def score_rows(spec: TensorSpec, outputs: Mapping[str, Array], rows: int) -> Rows:
    """[rows, 1]: the first column of an output; no row where it has none for each."""
    values = outputs[spec.name]
    if not values.size or values.size % rows:
        return np.empty((0, 1), np.float32)
    return feature_rows(values, rows)[:, :1]


def has_confidence(contract: Contract) -> bool:
    return contract.output("probabilities") is not None


def counts_classes(contract: Contract) -> bool:
    answers = contract.output("probabilities") or contract.output("label")
    return answers is not None and bool(contract.classes)


def confidence_counts(answers: Rows) -> NDArray[np.int64]:
    """Counts of `answer_rows` in `CONFIDENCE_BINS` equal bins of [0, 1]; 1 is in the last."""
    return binned(answers[:, 0])


def binned(confidence: NDArray[np.float32]) -> NDArray[np.int64]:
    """The same of confidences; what is NaN or below 0 is in no bin."""
    confidence = confidence.astype(np.float64)
    bins = np.floor(confidence[confidence >= 0] * CONFIDENCE_BINS).astype(np.int64)
    return np.bincount(np.minimum(bins, CONFIDENCE_BINS - 1), minlength=CONFIDENCE_BINS)


def class_counts(answers: Rows, classes: int) -> NDArray[np.int64]:
    index = answers[:, 1]
    return np.bincount(index[index >= 0].astype(np.int64), minlength=classes)


def _text(label: object) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
