"""One bundle that is loaded in the application's own process, and the checks of its contract.

What a call costs beside the model is decided here: names, shapes and datatypes are compared with
what was worked out when the bundle was loaded, and an answer is copied into the ring. Only what
does not match takes the long way, which finds the words for the error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import numpy as np

from edge_agent.runner.binary import NUMPY_TYPES
from edge_agent.runner.bundle import read_bundle
from edge_agent.runner.contract import Given, check_inputs
from edge_agent.runner.counts import Tally
from edge_agent.runner.session import ModelFailed, Session
from edge_agent.runner.views import Load
from edge_agent.sdk.answer import Answer, Array, Inputs
from protocol.errors import Failed, InvalidRequest, OutriderError, PeerError
from protocol.identifiers import ModelName
from protocol.members import Contract, TensorSpec

Check = Literal["shape", "values"]
"""What is checked of inputs before a run: names, shapes and datatypes; or, besides, that every
number lies in the range that the contract gives and is one."""

Run: TypeAlias = Callable[[list[str], Mapping[str, Array], None], list[Array]]
Range: TypeAlias = tuple[str, float, float]
"""An input's name, and the least and the greatest number that its contract has for it."""

FEW: Final = 48
"""Numbers that are checked faster one by one than by numpy."""

_NAMES: Final = {kind: name for name, kind in NUMPY_TYPES.items()}


class Held:
    def __init__(self, load: Load, check: Check) -> None:
        """Raises `Failed` OUT-D302 with the reason where it cannot be loaded."""
        # As runners do: otherwise a model's file could bring session options of its own.
        os.environ["ORT_LOAD_CONFIG_FROM_MODEL"] = "0"
        try:
            bundle = read_bundle(load.path)
            session = Session(bundle)
        except (PeerError, ValueError, OSError, ModelFailed) as error:
            why = error.why if isinstance(error, OutriderError) else str(error)
            raise Failed("OUT-D302", f"{load.model}: {why}") from error
        self.load = load
        self.version = bundle.index.version
        self.contract = contract = bundle.contract
        self.tally = Tally(
            load.model,
            load.digest,
            load.manifest,
            bundle.variant.member("profile").digest,
            contract,
            bundle.profile,
        )
        self.ask = _caller(session.bare, contract, self.tally, check, load.model, self.version)
        """Inputs to an answer, counted. Raises `InvalidRequest` OUT-I101 to OUT-I104, `Failed`
        OUT-I110. It knows nothing of this object, which ends with the last call that holds it."""


def _caller(
    run: Run, contract: Contract, tally: Tally, check: Check, model: ModelName, version: str
) -> Callable[[Inputs], Answer]:
    """A function that looks nothing up which it can hold: what it does costs as much as a small
    model."""
    names = [spec.name for spec in contract.outputs]
    named = _naming(names)
    ranges = _ranges(contract) if check == "values" else ()
    answered, columns = tally.answered, tally.columns
    first_name = contract.inputs[0].name
    # A request of one row to a model with one input is what costs most beside the model.
    single = contract.inputs[0] if len(contract.inputs) == 1 else None
    fixed = single is not None and single.shape[:1] in ((-1,), (1,)) and _sized(single)
    row = (1, *single.shape[1:]) if single is not None and fixed else None
    # numpy has one object for each of its own types, which arrays share.
    dtype = np.dtype(NUMPY_TYPES[single.datatype].type) if single and fixed else None
    now, new = time.perf_counter, tuple.__new__
    short = tally.shortcut if len(names) == 2 else None
    if short is not None:
        one, two = names
        kept, row_bytes, waiting, limit, full = short
        append, other = waiting.append, names.index(kept)

    def ask(inputs: Inputs) -> Answer:
        started = now()
        try:
            by_name = inputs if type(inputs) is dict else _by_name(contract, inputs)
            first = by_name[first_name]
            rows = 1
            if first.shape != row or first.dtype is not dtype or len(by_name) != 1:
                rows = _rows(contract, by_name)
            if ranges:
                _check_values(ranges, by_name)
        except (InvalidRequest, KeyError, AttributeError) as error:
            tally.refused()
            raise _refused(contract, inputs, error) from error
        try:
            results = run(names, by_name, None)
            if short is not None:
                outputs = {one: results[0], two: results[1]}
                record = first.tobytes() + results[other].tobytes()
                if rows == 1 and len(record) == row_bytes:
                    append((record, 1, now() - started))
                    if len(waiting) >= limit:
                        full()
                    return new(Answer, (outputs, model, version, "model"))
            else:
                outputs = named(results)
            watched = first if columns is None else columns(by_name, outputs, rows)
            answered(watched, outputs, rows, now() - started)
        except Exception as error:
            # Blind: onnxruntime's exceptions have no base class of their own.
            tally.failed()
            why = " ".join(str(error).split())[:300]
            raise Failed("OUT-I110", f"{model} failed on this input: {why}") from error
        return new(Answer, (outputs, model, version, "model"))

    return ask


def _by_name(contract: Contract, inputs: Inputs) -> dict[str, Array]:
    """Raises `InvalidRequest` OUT-I101 for one array where there are several inputs."""
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if len(contract.inputs) > 1:
        names = ", ".join(spec.name for spec in contract.inputs)
        raise InvalidRequest("OUT-I101", f"the model has several inputs: give {names}")
    return {contract.inputs[0].name: inputs}


def _rows(contract: Contract, inputs: Mapping[str, Array]) -> int:
    """Rows of a request; 1 where there is no batch dimension.

    Raises `InvalidRequest` OUT-I101 to OUT-I103 for what breaks the contract.
    """
    given = []
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise InvalidRequest(
                "OUT-I103", f"{name} is a {type(array).__name__}, not a numpy array"
            )
        given.append(Given(name, _datatype(array), array.shape))
    return check_inputs(contract, given)


def _check_values(ranges: tuple[Range, ...], inputs: Mapping[str, Array]) -> None:
    """Raises `InvalidRequest` OUT-I104 for a number out of range, or that is none."""
    for name, least, most in ranges:
        array = inputs[name]
        if array.size > FEW:
            # Both are NaN, and compare false, if any number is.
            inside = bool(array.min() >= least and array.max() <= most)
        else:
            # Python's own are faster here; they may pass over a NaN, a sum does not.
            values = array.ravel().tolist()
            total = sum(values)
            inside = min(values) >= least and max(values) <= most and total == total
        if not inside:
            raise _outside(name, array, least, most)


def _refused(contract: Contract, inputs: Inputs, error: Exception) -> InvalidRequest:
    """The words for what a short cut stumbled over."""
    if isinstance(error, InvalidRequest):
        return error
    try:
        _rows(contract, _by_name(contract, inputs))
    except InvalidRequest as found:
        return found
    return InvalidRequest("OUT-I104", str(error)[:200])


def _naming(names: list[str]) -> Callable[[list[Array]], dict[str, Array]]:
    """Results to outputs by name. Most models have one or two, for which writing them down takes a
    quarter of the time."""
    if len(names) == 1:
        (only,) = names
        return lambda results: {only: results[0]}
    if len(names) == 2:
        first, second = names
        return lambda results: {first: results[0], second: results[1]}
    return lambda results: dict(zip(names, results, strict=True))


def _datatype(array: Array) -> str:
    if array.dtype.kind in "OU":
        return "BYTES"
    return _NAMES.get(array.dtype, str(array.dtype))


def _sized(spec: TensorSpec) -> bool:
    return -1 not in spec.shape[1:] and 0 not in spec.shape[1:] and spec.datatype in NUMPY_TYPES


def _ranges(contract: Contract) -> tuple[Range, ...]:
    """Name, least and greatest value of every input that has numbers, in its own datatype."""
    found = []
    for spec in contract.inputs:
        kind = NUMPY_TYPES.get(spec.datatype)
        if kind is None or kind.kind == "b":
            continue
        limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
        least, most = limits.min, limits.max
        if spec.minimum is not None:
            least = max(least, spec.minimum)
        if spec.maximum is not None:
            most = min(most, spec.maximum)
        if kind.kind == "f":
            # As the input's own datatype has them: 0.1 is not 0.1 in all of them.
            least, most = kind.type(least).item(), kind.type(most).item()
        found.append((spec.name, least, most))
    return tuple(found)


def _outside(name: str, array: Array, least: float, most: float) -> InvalidRequest:
    with np.errstate(invalid="ignore"):
        inside = (array >= least) & (array <= most)
    first = array[~inside].flat[0]
    return InvalidRequest("OUT-I104", f"{name} has {first:g}, wanted {least:g} to {most:g}")
