"""Golden vectors: inputs and outputs that the model must give again on every device.

A device runs them in one batch, before it serves a version and again at the end of a trial
without traffic; so they must reproduce in a new session and twice in the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from control_plane.catalog.samples import DATATYPES
from control_plane.catalog.session import Session
from protocol.errors import InvalidRequest
from protocol.members import Contract
from protocol.safetensors import build

Array = NDArray[Any]

VECTORS: Final = 32
_LENGTH: Final = Struct("<I")
_MARGIN_TOLERANCES: Final = 10
"""A golden row's two largest probabilities are this many tolerances apart, if such rows exist."""


def pick(
    contract: Contract, outputs: Mapping[str, Array], count: int = VECTORS
) -> NDArray[np.intp]:
    """Indices of at most `count` rows, evenly spaced, so equal samples give equal vectors.

    Rows that lie between two classes are avoided: another processor may round them to the other
    label, which would be no fault.
    """
    rows = len(next(iter(outputs.values())))
    steady = np.arange(rows)
    spec = contract.output("probabilities")
    if spec is not None:
        ordered = np.sort(outputs[spec.name].reshape(rows, -1).astype(np.float64), axis=1)
        tolerance = contract.absolute_tolerance + contract.relative_tolerance * ordered[:, -1]
        clear = np.flatnonzero(ordered[:, -1] - ordered[:, -2] > _MARGIN_TOLERANCES * tolerance)
        if len(clear) >= min(count, rows):
            steady = clear
    places = np.linspace(0, len(steady) - 1, min(count, len(steady))).round().astype(np.intp)
    return np.asarray(steady[places], np.intp)


def golden(
    contract: Contract, inputs: Mapping[str, Array], load: Callable[[], Session], random: str = ""
) -> bytes:
    """A safetensors file of `input:<name>` and `output:<name>`, all rows of `inputs`.

    `random` names a random operator of the model, for the message. Raises `InvalidRequest`
    OUT-B110 when the outputs do not reproduce, OUT-B111 when they are not finite.
    """
    first = load()
    outputs = first.run(inputs)
    for name, output in outputs.items():
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            bad = int((~np.isfinite(output)).reshape(len(output), -1).any(axis=1).sum())
            raise InvalidRequest("OUT-B111", f"{name} of {bad} of {len(output)} samples")
    for again in (load().run(inputs), first.run(inputs)):
        _require_same(contract, outputs, again, random)
    tensors = {f"input:{spec.name}": inputs[spec.name] for spec in contract.inputs}
    tensors |= {f"output:{spec.name}": outputs[spec.name] for spec in contract.outputs}
    return build({name: _stored(array) for name, array in tensors.items()})


def _require_same(
    contract: Contract, first: Mapping[str, Array], second: Mapping[str, Array], random: str
) -> None:
    do = f"remove {random}: it draws new numbers in every run" if random else ""
    for name, wanted in first.items():
        got = second[name]
        if got.shape != wanted.shape:
            why = f"{name} has shape {list(wanted.shape)}, then {list(got.shape)}"
            raise InvalidRequest("OUT-B110", why, do=do)
        gap = np.abs(wanted.astype(np.float64) - got.astype(np.float64))
        allowed = 0.0
        if wanted.dtype.kind == "f":
            allowed = contract.absolute_tolerance
            gap = gap - contract.relative_tolerance * np.abs(wanted.astype(np.float64))
        if not (gap <= allowed).all():
            by = float(np.abs(wanted.astype(np.float64) - got.astype(np.float64)).max())
            why = f"two runs differ by {by:.2g} (tolerance {allowed:g})"
            raise InvalidRequest("OUT-B110", why, do=do)


def _stored(array: Array) -> tuple[str, tuple[int, ...], bytes]:
    if array.dtype.kind == "O":
        texts = [text.encode("utf-8", "replace") for text in array.ravel().tolist()]
        return "BYTES", array.shape, b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return DATATYPES[np.dtype(array.dtype)], array.shape, np.ascontiguousarray(little).tobytes()
