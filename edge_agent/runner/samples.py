"""Copies of some requests and of what was answered, for a candidate that runs beside.

They are kept while somebody asks for them, in memory only and within fixed bounds. The thread that
answers only ever appends, and only if that costs it a copy; another takes. Neither waits for the
other.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.binary import from_binary, to_binary
from edge_agent.runner.contract import Given
from edge_agent.runner.sample import Sample as Sample
from edge_agent.runner.sample import Tensor
from protocol.members import Contract, TensorSpec

Array = NDArray[Any]

MOST_REQUESTS: Final = 256
MOST_BYTES: Final = 8 * 1024 * 1024
"""Of all that wait, and so of one request: a larger one is never copied."""
TAKEN_BYTES: Final = 1024 * 1024
"""Handed over at once; more only where a single request has more."""
KEPT_S: Final = 30.0
"""So long after somebody asked for the last time, copies are given up, and no more are made."""


class Samples:
    """`offer` is for the one thread that answers, everything else for one other thread."""

    def __init__(self, contract: Contract, every_s: float, now_s: float) -> None:
        """`every_s`: at most one request is copied in so much time, on average."""
        self._contract = contract
        self._every_s = every_s
        self._asked_s = now_s
        self._next_s = 0.0
        self._waiting: deque[Sample] = deque()
        # Each is written by one thread only, so that none waits for the other.
        self._added_bytes = 0
        self._taken_bytes = 0

    def offer(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], now_s: float
    ) -> None:
        """Copy a request that was answered just now, if one is due and there is room."""
        if now_s < self._next_s or len(self._waiting) >= MOST_REQUESTS:
            return
        room = MOST_BYTES - (self._added_bytes - self._taken_bytes)
        if _size(inputs) + _size(outputs) > room:
            return
        # Not in step with whatever asks regularly.
        self._next_s = now_s + self._every_s * random.uniform(0.5, 1.5)
        try:
            sample = Sample(
                _tensors(self._contract.inputs, inputs), _tensors(self._contract.outputs, outputs)
            )
        except (TypeError, ValueError, MemoryError):
            return  # a copy less; the answer is not its business
        if sample.size_bytes <= room:
            self._added_bytes += sample.size_bytes
            self._waiting.append(sample)

    def take(self, now_s: float) -> tuple[Sample, ...]:
        """Some of those that wait, oldest first; they wait no longer."""
        self._asked_s = now_s
        taken: list[Sample] = []
        size = 0
        while self._waiting and (not taken or size + self._waiting[0].size_bytes <= TAKEN_BYTES):
            taken.append(self._waiting.popleft())
            size += taken[-1].size_bytes
        self._taken_bytes += size
        return tuple(taken)

    def forgotten(self, now_s: float) -> bool:
        """Whether nobody has asked for a while."""
        return now_s - self._asked_s > KEPT_S


def array_of(tensor: Tensor) -> Array:
    """Raises `InvalidRequest` for data that are not what it says."""
    given = Given(tensor.name, tensor.datatype, tensor.shape)
    return from_binary(given, memoryview(tensor.data))


def _size(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _tensors(specs: Iterable[TensorSpec], arrays: Mapping[str, Array]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(spec.name, spec.datatype, array.shape, to_binary(np.asarray(array)))
        for spec in specs
        if (array := arrays.get(spec.name)) is not None
    )
