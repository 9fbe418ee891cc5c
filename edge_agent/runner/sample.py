"""A copy of one request and of what was answered, as it travels between processes.

The supervisor hands it on and never looks into it: numpy is not needed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.identifiers import Count


@dataclass(frozen=True, slots=True)
class Tensor:
    """Values as the binary extension has them."""

    name: str
    datatype: str
    shape: tuple[Count, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Sample:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(tensor.data) for tensor in (*self.inputs, *self.outputs))
