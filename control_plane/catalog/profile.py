"""The reference profile: what a model's inputs and answers looked like where it was built.

Method and its pitfalls: research on drift, section 6. Edges are made from float32 values, because
the device counts float32 values: an edge between two of them would move whole columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InvalidRequest
from protocol.histogram import CONFIDENCE_BINS
from protocol.members import Contract, Feature, Profile

Array = NDArray[Any]
Column = NDArray[np.float32]

BINS: Final = 10
CATEGORIES: Final = 16
"""Up to this many distinct values, each has a bin of its own."""
MAX_FEATURES: Final = 4096

_INFINITY: Final = np.float32(np.inf)


def make_edges(values: Array) -> Column:
    """Strictly increasing finite float32 edges, 1 to 2 * `CATEGORIES` of them.

    - At most 16 distinct values (a constant is one): `v` and the next number after it, so that
      every value has its own bin and everything between two of them is "never seen".
    - More: the smallest value, inner deciles without repeats, and the next after the largest.
    - None that is finite: a single 0, so that any number is new.
    """
    finite = values.astype(np.float32).ravel()
    finite = finite[np.isfinite(finite)]
    distinct = np.unique(finite)
    if not len(distinct):
        return np.zeros(1, np.float32)
    with np.errstate(over="ignore"):
        after = np.nextafter(distinct, _INFINITY)
    if len(distinct) <= CATEGORIES:
        edges = np.unique(np.concatenate([distinct, after]))
    else:
        # Ranks in integers: in floats, 0.3 * 60 is above 18, and the edge would be one further.
        ranks = -(-np.arange(1, BINS) * len(finite) // BINS) - 1
        edges = np.unique(np.concatenate([np.sort(finite)[ranks], distinct[:1], after[-1:]]))
    # After the largest float32 comes infinity, which has its slot anyway.
    return np.asarray(edges[np.isfinite(edges)], np.float32)


def count(values: Array, edges: Column) -> tuple[int, ...]:
    """Counts per slot: below, inner bins, above, +inf, NaN; `len(edges) + 3` of them."""
    slots = np.concatenate([edges, np.array([np.inf, np.nan], np.float32)])
    places = slots.searchsorted(values.astype(np.float32).ravel(), side="right")
    return tuple(np.bincount(places, minlength=len(edges) + 3).tolist())


def make_profile(
    contract: Contract,
    samples: Mapping[str, Array],
    outputs: Mapping[str, Array],
    names: Sequence[str] | None = None,
) -> Profile:
    """Columns of the first input [rows, ...] in C order, and the model's answers to all rows.

    An input of a free width, or of more than 4,096 columns, has no features. `names` are those of
    the columns. Raises `InvalidRequest` OUT-S120 for a wrong number of names.
    """
    first = contract.inputs[0]
    rows = len(samples[first.name])
    # Overflow to infinity is counted as what it is.
    with np.errstate(over="ignore", invalid="ignore"):
        columns = samples[first.name].reshape(rows, -1).astype(np.float32)
    confidence, classes = _answers(contract, outputs, rows)
    if -1 in first.shape[1:] or columns.shape[1] > MAX_FEATURES:
        return Profile(rows, (), confidence, classes)
    width = columns.shape[1]
    if names is not None and len(names) != width:
        raise InvalidRequest("OUT-S120", f"{len(names)} feature names for {width} columns")
    called = list(names) if names is not None else [f"{first.name}_{n}" for n in range(width)]
    features = tuple(_feature(name, columns[:, number]) for number, name in enumerate(called))
    return Profile(rows, features, confidence, classes)


def _feature(name: str, values: Column) -> Feature:
    edges = make_edges(values)
    return Feature(name, tuple(float(edge) for edge in edges), count(values, edges))


def _answers(
    contract: Contract, outputs: Mapping[str, Array], rows: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`(confidence counts, class counts)`, empty where the contract has no such role.

    The class is that of the largest probability; of the label where there are no probabilities.
    """
    spec = contract.output("probabilities")
    if spec is not None:
        table = outputs[spec.name].reshape(rows, -1)
        table = table[np.isfinite(table).all(axis=1)]
        largest = np.clip(table.max(axis=1, initial=0), 0, 1).astype(np.float32)
        bins = np.floor(largest.astype(np.float64) * CONFIDENCE_BINS).astype(np.int64)
        confidence = np.bincount(np.minimum(bins, CONFIDENCE_BINS - 1), minlength=CONFIDENCE_BINS)
        if not contract.classes:
            return tuple(confidence.tolist()), ()
        classes = np.bincount(table.argmax(axis=1), minlength=len(contract.classes))
        return tuple(confidence.tolist()), tuple(classes.tolist())
    spec = contract.output("label")
    if spec is None or not contract.classes:
        return (), ()
    place = {name: number for number, name in enumerate(contract.classes)}
    known = [place[str(x)] for x in outputs[spec.name].ravel().tolist() if str(x) in place]
    return (), tuple(np.bincount(known, minlength=len(place)).tolist())
