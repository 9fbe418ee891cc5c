"""Columns of the base: their elements, wherever they are needed."""

from __future__ import annotations

from collections.abc import Iterator

from coding import forms
from coding.base import Base, BaseColumn
from coding.elements import ELEMENTS, Array
from coding.forms import Forward
from coding.limits import BLOCK_NUMBERS
from coding.ops import BaseEnsemble
from coding.trees import Flags

_LEAF = 0
"""Place of the leaves' name among the names of the column of modes."""


def fixed(base: Base, column: BaseColumn, first: int, count: int) -> Array:
    """Elements from `first` on, of a column of a fixed form. Raises `ValueError` where the base
    has something else there."""
    element = ELEMENTS[column.element]
    width = forms.width_of(column.form, element)
    if first + count > column.count:
        raise ValueError("behind the end of a column of the base")
    data = base.read(column.start + first * width, count * width)
    found = forms.from_bytes(data, column.form, element, column.tag)
    if found is None:
        raise ValueError("a column of the base is another")
    return found


def parts(base: Base, column: BaseColumn) -> Iterator[Array]:
    """All elements in order, some at a time."""
    forward = Forward(base, column)
    for at in range(0, column.count, BLOCK_NUMBERS):
        count = min(BLOCK_NUMBERS, column.count - at)
        yield fixed(base, column, at, count) if column.form in forms.FIXED else forward.take(count)


def flags_of(base: Base, ensemble: BaseEnsemble) -> Flags:
    """Which nodes of the base are leaves."""
    modes = (part == _LEAF for part in parts(base, ensemble.modes))
    return Flags.joined(modes, ensemble.nodes)


def of_branches(base: Base, column: BaseColumn, flags: Flags) -> Iterator[Array]:
    """The elements of branch nodes, some at a time; the column has one for each node."""
    at = 0
    for part in parts(base, column):
        yield part[~flags.leaves(at, at + len(part))]
        at += len(part)
