"""What a model answers an application, whichever way it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Inputs: TypeAlias = Mapping[str, Array] | Array
"""Arrays by name, or the only one."""


class Answer(NamedTuple):
    """A tuple, because making one costs least."""

    outputs: dict[str, Array]
    model: str
    version: str
    """The version that gave this answer; it may change between two requests."""
    answered_by: str = "model"
    """`rules` where signed rules answered in the model's place."""
