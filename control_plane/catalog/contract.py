"""What goes in and comes out: taken from the model, and from what it answers to the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from control_plane.catalog.inspect import Inspected, Tensor
from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec

Array = NDArray[Any]
Role = Literal["label", "probabilities", "score", "embedding", "other"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
SUM_TOLERANCE: Final = 1e-3
"""How far the probabilities of a row may be from 1 together."""
MAX_CLASSES: Final = 10_000

_LABEL_NAMES: Final = ("label", "class", "prediction")


def make_contract(
    inspected: Inspected,
    samples: Mapping[str, Array],
    outputs: Mapping[str, Array],
    *,
    roles: Mapping[str, Role] | None = None,
    classes: Sequence[str] | None = None,
    absolute_tolerance: float = 1e-4,
    relative_tolerance: float = 1e-3,
) -> Contract:
    """Ranges from `samples`, roles guessed from `outputs` unless `roles` says otherwise.

    Without `classes` they are numbered, as many as there are probabilities. Raises
    `InvalidRequest` OUT-S120 for roles and classes that do not fit the model.
    """
    decided = _roles(inspected.outputs, outputs, dict(roles or {}))
    probabilities = next((name for name, role in decided.items() if role == "probabilities"), None)
    label = next((name for name, role in decided.items() if role == "label"), None)
    named = tuple(classes or ())
    if probabilities is not None:
        columns = int(np.prod(outputs[probabilities].shape[1:]))
        if not named and columns <= MAX_CLASSES:
            named = tuple(str(number) for number in range(columns))
        if named and len(named) != columns:
            raise InvalidRequest(
                "OUT-S120", f"{len(named)} classes, {probabilities} has {columns} columns"
            )
    elif label is None:
        named = ()
    try:
        return Contract(
            inputs=tuple(_input(tensor, samples[tensor.name]) for tensor in inspected.inputs),
            outputs=tuple(
                TensorSpec(
                    tensor.name,
                    tensor.datatype,
                    _shape(tensor, outputs[tensor.name]),
                    role=decided[tensor.name],
                )
                for tensor in inspected.outputs
            ),
            classes=named,
            absolute_tolerance=absolute_tolerance,
            relative_tolerance=relative_tolerance,
        )
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error


def _roles(
    tensors: Sequence[Tensor], outputs: Mapping[str, Array], given: dict[str, Role]
) -> dict[str, Role]:
    for name, role in given.items():
        if name not in outputs or role not in ROLES:
            raise InvalidRequest("OUT-S120", f"no output {name!r:.80} can have role {role!r:.40}")
    decided = dict(given)
    free = [tensor.name for tensor in tensors if tensor.name not in given]
    if "probabilities" not in decided.values():
        found = [name for name in free if _are_probabilities(outputs[name])]
        # Of several, the one that says so; a model with hidden softmax outputs may have many.
        found.sort(key=lambda name: "prob" not in name.lower())
        decided |= dict.fromkeys(found[:1], "probabilities")
    if "label" not in decided.values():
        winners = [outputs[n].argmax(axis=1) for n, r in decided.items() if r == "probabilities"]
        found = [
            name
            for name in free
            if name not in decided
            and _one_integer_per_row(outputs[name])
            and (
                len(tensors) == 1
                or _names_a_label(name)
                or any(np.array_equal(outputs[name].ravel(), winner) for winner in winners)
            )
        ]
        found.sort(key=lambda name: not _names_a_label(name))
        decided |= dict.fromkeys(found[:1], "label")
    return {tensor.name: decided.get(tensor.name) or _by_name(tensor) for tensor in tensors}


def _are_probabilities(output: Array) -> bool:
    if output.dtype.kind != "f" or output.ndim != 2 or output.shape[1] < 2:
        return False
    table = output.astype(np.float64)
    return bool(
        np.isfinite(table).all()
        and (table >= -SUM_TOLERANCE).all()
        and (np.abs(table.sum(axis=1) - 1) <= SUM_TOLERANCE).all()
    )


def _one_integer_per_row(output: Array) -> bool:
    return output.dtype.kind in "iub" and output.size == len(output)


def _names_a_label(name: str) -> bool:
    return any(part in name.lower() for part in _LABEL_NAMES)


def _by_name(tensor: Tensor) -> Role:
    """The other roles have no form of their own: only a name can tell them."""
    name = tensor.name.lower()
    if tensor.datatype.startswith("FP") and "embed" in name:
        return "embedding"
    if tensor.datatype.startswith("FP") and "score" in name:
        return "score"
    return "other"


def _input(tensor: Tensor, values: Array) -> TensorSpec:
    if tensor.datatype == "BYTES":
        return TensorSpec(tensor.name, tensor.datatype, tensor.shape)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    return TensorSpec(tensor.name, tensor.datatype, tensor.shape, low, high)


def _shape(tensor: Tensor, output: Array) -> tuple[int, ...]:
    """Exporters often leave output shapes out; the rank is then that of what was seen."""
    if len(tensor.shape) == output.ndim:
        return tensor.shape
    return (-1, *output.shape[1:])
