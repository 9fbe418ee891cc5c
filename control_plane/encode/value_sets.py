"""Value sets: thresholds and leaf values that the base has, or that come again and again.

A rank in such a set takes a few bits where a number takes 32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from coding import elements
from coding.elements import Array, Element
from coding.limits import MAX_STREAM, MAX_VALUES
from coding.sets import ValueSet, pack_steps
from coding.streams import Packer

AGAIN: Final = (2, 3, 5, 10)
"""How often a value has to come to be listed: each is tried."""
MOST_PER_FEATURE: Final = 65_535

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Values of branch nodes (or of all elements), with the feature of each, if that counts."""

    values: Array
    features: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A set: how it is told, and what it gives. `new`: values that are told."""

    front: bytes
    values: ValueSet
    new: int
    with_base: bool


def proposals(
    own: Known, base: Known | None, element: Element, space: int, packer: Packer
) -> Iterator[Proposal]:
    """Sets that may pay for a column of `own` values. `space`: how many features there are."""
    ordered = elements.ordered(own.values, element)
    both = (
        ordered
        if base is None
        else np.concatenate([ordered, elements.ordered(base.values, element)])
    )
    distinct, places = np.unique(both, return_inverse=True)
    found, counts = np.unique(
        _keys(own.features, places[: len(ordered)], len(distinct)), return_counts=True
    )
    known = np.zeros(0, np.int64)
    if base is not None:
        known = np.unique(_keys(base.features, places[len(ordered) :], len(distinct)))
    unknown = ~np.isin(found, known)
    seen = set()
    for least in (*AGAIN, len(ordered) + 1):
        new = found[unknown & (counts >= least)]
        if len(new) in seen or not 0 < len(new) + len(known) <= MAX_VALUES:
            continue
        if len(new) * element.itemsize > MAX_STREAM:
            continue
        seen.add(len(new))
        features, at = np.divmod(new, len(distinct))
        listed = Known(distinct[at], None if own.features is None else features.astype("<u4"))
        front = _front(listed, space, packer)
        if front is not None:
            yield Proposal(front, _set(listed, base, element, space), len(new), base is not None)


def _keys(features: NDArray[Any] | None, places: NDArray[Any], distinct: int) -> Numbers:
    """One number for each feature and value, in the order of both."""
    keys: Numbers = places.astype(np.int64)
    return keys if features is None else features.astype(np.int64) * distinct + keys


def _front(listed: Known, space: int, packer: Packer) -> bytes | None:
    """New values, as ordered integers, as a payload tells them; None for too many of one
    feature."""
    if listed.features is None:
        counts = np.array([len(listed.values)], "<u4")
        return packer.stream(elements.planes(pack_steps(listed.values, counts)))
    counts = np.bincount(listed.features, minlength=space).astype("<u4")
    if len(counts) and int(counts.max()) > MOST_PER_FEATURE:
        return None
    return packer.stream(elements.planes(counts.astype("<u2"))) + packer.stream(
        elements.planes(pack_steps(listed.values, counts))
    )


def _set(listed: Known, base: Known | None, element: Element, space: int) -> ValueSet:
    values, features = elements.unordered(listed.values, element), listed.features
    if base is not None:
        values = np.concatenate([base.values, values])
    if base is not None and features is not None and base.features is not None:
        features = np.concatenate([base.features.astype("<u4"), features])
    return ValueSet(element, values, features, space)
