"""Whether a candidate answers as what is in use did, row by row. Pure.

With classes on both sides, two answers agree where they predict the same class. Without, they agree
where every output lies within the tolerance that golden vectors have: a model that was trained
anew rarely does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.probe import outside
from edge_agent.watch.fold import NOTHING, Rows, answer_rows, counts_classes
from protocol.members import Contract

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Compared:
    agreed: NDArray[np.bool_]
    """Per row."""
    mine: Rows
    base: Rows
    """As `answer_rows` gives them."""


def compare(
    mine: Contract,
    base: Contract,
    got: Mapping[str, Array],
    wanted: Mapping[str, Array],
    rows: int,
) -> Compared:
    """`got` and `wanted` are all outputs of the candidate (`mine`) and of what is in use (`base`).

    Raises `ValueError` for outputs that are not what their contract says.
    """
    answers = answer_rows(mine, dict(got), rows)
    before = answer_rows(base, dict(wanted), rows)
    if counts_classes(mine) and counts_classes(base):
        agreed = _same_class(mine, base, answers, before)
    else:
        agreed = _close(mine, got, wanted, rows)
    return Compared(agreed, answers, before)


def _same_class(mine: Contract, base: Contract, answers: Rows, before: Rows) -> NDArray[np.bool_]:
    """By name: two versions may have their classes in another order. A row without a class, a NaN
    for instance, agrees with none."""
    place = {name: index for index, name in enumerate(mine.classes)}
    # One more, for NOTHING, which is -1.
    moved = np.array([*(place.get(name, -2) for name in base.classes), -2], np.int64)
    index = answers[:, 1].astype(np.int64)
    return np.asarray((answers[:, 1] != NOTHING) & (index == moved[before[:, 1].astype(np.int64)]))


def _close(
    contract: Contract, got: Mapping[str, Array], wanted: Mapping[str, Array], rows: int
) -> NDArray[np.bool_]:
    agreed = np.ones(rows, np.bool_)
    for spec in contract.outputs:
        a, b = wanted.get(spec.name), got[spec.name]
        if a is None or a.shape != b.shape or a.dtype != b.dtype:
            return np.zeros(rows, np.bool_)
        differs = outside(contract, a, b)
        if a.ndim and len(a) == rows:
            agreed &= ~np.logical_or.reduce(differs.reshape(rows, -1), axis=1)
        elif differs.any():
            return np.zeros(rows, np.bool_)
    return agreed
