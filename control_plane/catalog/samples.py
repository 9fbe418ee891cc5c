"""Sample rows given by whoever builds, fitted to what the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from control_plane.catalog.inspect import Tensor
from control_plane.catalog.session import Session
from protocol.errors import InvalidRequest

Array = NDArray[Any]

NUMPY_TYPES: Final[dict[str, type[np.generic]]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
DATATYPES: Final = {np.dtype(kind): name for name, kind in NUMPY_TYPES.items()}
_BATCH: Final = 1024


def fit(given: Mapping[str, Array], inputs: Sequence[Tensor]) -> dict[str, Array]:
    """`{input: array [rows, ...]}` in the model's datatypes, C order.

    A single array may have any name when the model has one input. Raises `InvalidRequest`
    OUT-B108 for names, shapes and types that do not fit, or when there are no rows.
    """
    if len(given) == 1 and len(inputs) == 1:
        given = {inputs[0].name: next(iter(given.values()))}
    wanted = {tensor.name for tensor in inputs}
    if set(given) != wanted:
        raise InvalidRequest(
            "OUT-B108", f"arrays {_names(given)}, the model's inputs are {_names(wanted)}"
        )
    fitted = {tensor.name: _fitted(np.asarray(given[tensor.name]), tensor) for tensor in inputs}
    rows = {len(array) for array in fitted.values()}
    if len(rows) != 1 or not rows.copy().pop():
        raise InvalidRequest("OUT-B108", f"{' and '.join(map(str, sorted(rows)))} rows")
    return fitted


def run(
    session: Session, inputs: Mapping[str, Array], tensors: Sequence[Tensor]
) -> dict[str, Array]:
    """`{output: array [rows, ...]}` of all rows, in batches of the size that the model takes.

    Raises `InvalidRequest` OUT-B108 if the model objects, or does not answer row by row.
    """
    rows = len(next(iter(inputs.values())))
    fixed = fixed_batch(tensors)
    size = fixed or _BATCH
    parts: list[dict[str, Array]] = []
    for start in range(0, rows, size):
        batch = {name: array[start : start + size] for name, array in inputs.items()}
        here = min(size, rows - start)
        if fixed and here < fixed:
            # The last batch is filled up with copies of its last row, whose answers are dropped.
            batch = {
                n: np.concatenate([a, a[-1:].repeat(fixed - here, 0)]) for n, a in batch.items()
            }
        outputs = session.run(batch)
        for name, output in outputs.items():
            if output.ndim == 0 or len(output) != (fixed or here):
                raise InvalidRequest(
                    "OUT-B108", f"{name} has shape {list(output.shape)} for {here} rows"
                )
        parts.append({name: output[:here] for name, output in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fixed_batch(tensors: Sequence[Tensor]) -> int | None:
    """The only batch size that the model takes; None if it takes any."""
    return next((t.shape[0] for t in tensors if t.shape and t.shape[0] > 0), None)


def _fitted(array: Array, tensor: Tensor) -> Array:
    wanted = np.dtype(NUMPY_TYPES[tensor.datatype])
    shape = tensor.shape[1:]
    if not tensor.shape:
        raise InvalidRequest("OUT-B108", f"{tensor.name} has no batch dimension")
    if array.ndim == len(tensor.shape) - 1 and fixed_batch((tensor,)) == 1:
        array = array[None]
    if array.ndim != len(tensor.shape) or any(
        size not in (-1, given) for size, given in zip(shape, array.shape[1:], strict=True)
    ):
        raise InvalidRequest(
            "OUT-B108", f"{tensor.name} has shape {list(array.shape)}, wanted {list(tensor.shape)}"
        )
    if array.dtype.kind not in "biuf":
        raise InvalidRequest("OUT-B108", f"{tensor.name} has type {array.dtype}")
    # A float64 beyond the range becomes infinite, which the drift profile has a slot for.
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.ascontiguousarray(array, dtype=wanted)
    if wanted.kind in "iub" and not np.array_equal(
        cast.astype(np.float64), array.astype(np.float64)
    ):
        raise InvalidRequest(
            "OUT-B108", f"{tensor.name} takes {tensor.datatype}, values do not fit"
        )
    return cast


def _names(names: Any) -> str:
    return ", ".join(sorted(str(name)[:40] for name in names)[:8]) or "none"
