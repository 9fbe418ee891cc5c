"""Whether an inference request is one that the model's contract allows. Decided before any run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Protocol

from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec


@dataclass(frozen=True, slots=True)
class Given:
    """What a request says of one of its input tensors."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Described(Protocol):
    """What `Given` says, said by whatever says it."""

    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_inputs(contract: Contract, given: Sequence[Described]) -> int:
    """Number of rows of a request; the size of its batch, 1 where there is no batch dimension.

    Raises `InvalidRequest` OUT-I101 (names), OUT-I103 (datatypes), OUT-I102 (shapes), in that
    order, so that the caller reads about the first thing to mend.
    """
    if len(given) == 1 == len(contract.inputs):
        # Nearly every request: nothing to compare with anything else.
        tensor, spec = given[0], contract.inputs[0]
        if (
            tensor.name == spec.name
            and tensor.datatype == spec.datatype
            and _fits(tensor.shape, spec.shape)
        ):
            return tensor.shape[0] if tensor.shape else 1
    wanted = {spec.name: spec for spec in contract.inputs}
    names = [tensor.name for tensor in given]
    for name in names:
        if name not in wanted:
            raise InvalidRequest("OUT-I101", f"no input is called {_cut(name)}; {_list(wanted)}")
        if names.count(name) > 1:
            raise InvalidRequest("OUT-I101", f"input {name} comes more than once")
    for name in wanted:
        if name not in names:
            raise InvalidRequest("OUT-I101", f"input {name} is missing; {_list(wanted)}")
    for tensor in given:
        spec = wanted[tensor.name]
        if tensor.datatype != spec.datatype:
            raise InvalidRequest(
                "OUT-I103",
                f"{spec.name} has datatype {_cut(tensor.datatype)}, wanted {spec.datatype}",
            )
        if not _fits(tensor.shape, spec.shape):
            raise InvalidRequest(
                "OUT-I102",
                f"{spec.name} has shape {_shape(tensor.shape)}, wanted {_shape(spec.shape)}",
            )
    return _rows(contract, {tensor.name: tensor.shape for tensor in given})


def check_outputs(contract: Contract, wanted: Sequence[str]) -> tuple[TensorSpec, ...]:
    """The outputs to answer with: all of them if none is named. Raises OUT-I101."""
    if not wanted:
        return contract.outputs
    known = {spec.name: spec for spec in contract.outputs}
    for name in wanted:
        if name not in known:
            raise InvalidRequest("OUT-I101", f"no output is called {_cut(name)}; {_list(known)}")
    return tuple(known[name] for name in dict.fromkeys(wanted))


def check_length(given: Described, values: int) -> None:
    """Raises OUT-I104 unless there are as many values as the shape says."""
    needed = prod(given.shape)
    if values != needed:
        raise InvalidRequest(
            "OUT-I104",
            f"{given.name} has {values:,} values, its shape {_shape(given.shape)} needs {needed:,}",
        )


# Nearly every request has the shape of the one before it.
@lru_cache(maxsize=64)
def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """-1 in `wanted` stands for any positive size."""
    return len(shape) == len(wanted) and all(
        size > 0 and asked in (-1, size) for size, asked in zip(shape, wanted, strict=True)
    )


def _rows(contract: Contract, shapes: dict[str, tuple[int, ...]]) -> int:
    """Inputs with a free first dimension share one batch size. Raises OUT-I102 where not."""
    batched = [spec.name for spec in contract.inputs if spec.shape and spec.shape[0] == -1]
    for name in batched[1:]:
        if shapes[name][0] != shapes[batched[0]][0]:
            raise InvalidRequest(
                "OUT-I102",
                f"{name} has {shapes[name][0]:,} rows, {batched[0]} has {shapes[batched[0]][0]:,}",
            )
    first = shapes[contract.inputs[0].name]
    return first[0] if first else 1


def _shape(shape: tuple[int, ...]) -> str:
    shown = ",".join(f"{size:.3g}" if abs(size) > 2**53 else str(size) for size in shape[:16])
    return f"[{shown}{',...' if len(shape) > 16 else ''}]"


def _list(names: Sequence[str] | dict[str, TensorSpec]) -> str:
    return "wanted " + ", ".join(list(names)[:8])


def _cut(text: str) -> str:
    """Somebody else's text, short and without control characters."""
    return repr(text[:80])[1:-1]
