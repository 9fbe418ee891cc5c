"""Sample rows given by whoever builds, fitted to what the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from control_plane.catalog.inspect import Tensor
from control_plane.catalog.session import Session
from control_plane.catalog.tables import Rows, names_of
from control_plane.catalog.watched import text_of
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
    "BYTES": np.object_,
}
DATATYPES: Final = {np.dtype(kind): name for name, kind in NUMPY_TYPES.items()}
_BATCH: Final = 1024


def feed(
    rows: Rows, inputs: Sequence[Tensor]
) -> tuple[Mapping[str, Array], tuple[str, ...] | None]:
    """`(arrays as `fit` takes them, names of the columns of a single input)` of a file of samples.

    A model with one input takes all columns of a table in their order, of text or of numbers as
    the input is; one with several inputs takes columns of their names. Raises `InvalidRequest`
    OUT-B108 for columns that are left over, or too few.
    """
    if not rows.columns:
        return rows.arrays, None
    if len(inputs) == 1:
        return {inputs[0].name: _table(rows, inputs[0])}, rows.columns
    wanted = {tensor.name for tensor in inputs}
    _none_left([name for name in rows.columns if name not in wanted], "no inputs of the model")
    return {
        tensor.name: rows.arrays[tensor.name].reshape(-1, *([1] * (len(tensor.shape) - 1)))
        for tensor in inputs
        if tensor.name in rows.arrays
    }, None


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
    if tensor.datatype == "BYTES":
        return _texts(array, tensor)
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


def _texts(array: Array, tensor: Tensor) -> Array:
    """Elements as `str`, as devices give them to the model; "" for what is missing."""
    if array.dtype.kind not in "OUS":
        raise InvalidRequest("OUT-B108", f"{tensor.name} takes text, not {array.dtype}")
    texts = np.empty(array.size, np.object_)
    texts[:] = [text_of(element) for element in array.ravel().tolist()]
    return texts.reshape(array.shape)


def _table(rows: Rows, tensor: Tensor) -> Array:
    """All columns as the rows of one input."""
    columns = [rows.arrays[name] for name in rows.columns]
    text = tensor.datatype == "BYTES"
    other = [
        name
        for name, column in zip(rows.columns, columns, strict=True)
        if (column.dtype.kind == "O") != text
    ]
    _none_left(other, "numbers, the model takes text" if text else "text, the model takes numbers")
    shape = tensor.shape[1:]
    if -1 not in shape and prod(shape) != len(columns):
        raise InvalidRequest(
            "OUT-B108",
            f"{len(columns):,} columns ({names_of(rows.columns)}), {tensor.name} takes "
            f"{prod(shape):,}",
            do="give it these; labels, if there are some, by --labels NAME",
        )
    # float32 at once where the model takes no more: a table is the largest thing here.
    narrow = tensor.datatype == "FP32"
    table = np.empty(
        (len(columns[0]), len(columns)), np.float32 if narrow else np.result_type(*columns)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        for number, column in enumerate(columns):
            table[:, number] = column
    return table if -1 in shape else table.reshape(-1, *shape)


def _none_left(names: Sequence[str], what: str) -> None:
    if names:
        raise InvalidRequest(
            "OUT-B108", f"columns {names_of(names)}: {what}", do="leave these columns out"
        )


def _names(names: Any) -> str:
    return ", ".join(sorted(str(name)[:40] for name in names)[:8]) or "none"
