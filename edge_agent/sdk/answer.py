"""What a model answers an application, whichever way it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Inputs: TypeAlias = Mapping[str, Array] | Array
"""Arrays by name, or the only one."""
Labels: TypeAlias = Sequence[str | int | float | bool] | Array
"""One for each row. Text, or a number, or an array [rows] of either."""
Confidences: TypeAlias = Sequence[float | None] | Array
"""From 0 to 1, one for each row; None or NaN where it is not known."""


class Answer(NamedTuple):
    """A tuple, because making one costs least."""

    outputs: dict[str, Array]
    model: str
    version: str
    """The version that gave this answer; it may change between two requests."""
    answered_by: str = "model"
    """`rules` where signed rules answered in the model's place."""
