"""Rows to counts over the reference profile's bins: the only form in which inputs are kept.

Slots are those of `searchsorted(side="right")` on `[*edges, +inf, nan]`: below, inner bins, above,
infinity and NaN have their own. A text comes as the code of its word, and has the slot of that
number. How many values reach each edge says how many lie between two: a comparison with every
edge, for so few of them, costs a fraction of searching, and no value needs its slot written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocol.histogram import CONFIDENCE_BINS, Counts
from protocol.members import Contract, Feature, TensorSpec

MOST_COMPARED: Final = 2**18
"""Comparisons at once, a byte each; but with one edge, all are made at once."""
_LANES: Final = 8
"""Bytes of a number of 64 bits. Added up as such, bytes that are 0 or 1 do not disturb each other
before there are 256 numbers."""
MOST_ROWS: Final = 255 * _LANES

Array = NDArray[Any]
Rows = NDArray[np.float32]


class FeatureFold:
    """Counts of rows [n, features] in the slots of every feature."""

    def __init__(self, features: Sequence[Feature]) -> None:
        # float32 like the rows: an edge between two float32 values would move whole columns.
        reached = [_edges(feature) for feature in features]
        most = max(len(edges) for edges in reached)
        # Every number reaches the first edge and NaN none, so that NaN fills up the others.
        self._edges = np.full((most + 1, len(features), 1), np.nan, np.float32)
        self._edges[0] = -inf
        for column, edges in enumerate(reached):
            self._edges[1 : len(edges) + 1, column, 0] = edges
        sizes = [feature.slots for feature in features]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        # The last slot is that of NaN, or of a text that is missing. Which of [features, edges] a
        # feature has, and which slots those are: all but that of NaN.
        self._last = self._starts[1:] - 1
        sought = np.array([[len(edges) + 1] for edges in reached])
        self._sought = np.arange(most + 1) < sought
        self._numbers = np.ones(self.size, np.bool_)
        self._numbers[self._last] = [feature.kind == "words" for feature in features]

    def __call__(self, rows: Rows) -> NDArray[np.int64]:
        """Counts of all features, one after the other; `split` takes them apart.

        It is fastest for rows whose columns lie in one piece each.
        """
        # Numpy compares a column in one piece with an edge in a third of the time.
        columns = np.ascontiguousarray(rows.T)
        reached = self._reached(columns[:, :MOST_ROWS])
        for start in range(MOST_ROWS, len(rows), MOST_ROWS):
            reached += self._reached(columns[:, start : start + MOST_ROWS])
        counts = np.zeros(self.size, np.int64)
        between = reached.copy()
        between[:-1] -= reached[1:]
        counts[self._numbers] = between.T[self._sought]
        counts[self._last] += len(rows) - reached[0]
        return counts

    def _reached(self, columns: NDArray[np.float32]) -> NDArray[np.int64]:
        """[edges, features]: how many of at most `MOST_ROWS` values are as large as each edge."""
        features, rows = columns.shape
        padded = -(-rows // _LANES) * _LANES
        at_once = max(1, MOST_COMPARED // max(1, features * padded))
        compared = np.empty((min(at_once, len(self._edges)), features, padded), np.bool_)
        compared[..., rows:] = False
        lanes = np.empty((len(self._edges), features), np.uint64)
        for start in range(0, len(lanes), at_once):
            edges = self._edges[start : start + at_once]
            block = compared[: len(edges)]
            with np.errstate(invalid="ignore"):
                np.greater_equal(columns, edges, out=block[..., :rows])
            np.add.reduce(block.view(np.uint64), axis=2, out=lanes[start : start + at_once])
        by_lane = lanes.view(np.uint8).reshape(*lanes.shape, _LANES)
        counts: NDArray[np.int64] = np.add.reduce(by_lane, axis=2, dtype=np.int64)
        return counts

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
