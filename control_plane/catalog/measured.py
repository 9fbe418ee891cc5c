"""What sample rows make of a model: its contract, and the reference that drift is measured against.

The same for a bundle and for a profile alone, so that one can be built with the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from control_plane.catalog.contract import Role, make_contract
from control_plane.catalog.inspect import Inspected, inspect
from control_plane.catalog.lints import Lint
from control_plane.catalog.profile import Made, Wishes, make_input_profile, make_profile
from control_plane.catalog.samples import DATATYPES, feed, fit, run
from control_plane.catalog.session import Session
from control_plane.catalog.tables import Rows
from control_plane.catalog.watched import check_profile
from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec
from protocol.profile import Profile

Array = NDArray[Any]
Samples = Mapping[str, Array] | Rows
"""One array [rows, ...] per input, or what a file of samples holds."""

_TABLE: Final = "input"
"""What the input of a table is called where no model gives it a name."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the builder may say of a model's answers instead of having it guessed."""

    roles: Mapping[str, Role] | None = None
    """`{output name: role}`."""
    classes: Sequence[str] | None = None
    """In the order of the probabilities."""
    absolute_tolerance: float = 1e-4
    relative_tolerance: float = 1e-3


@dataclass(frozen=True, slots=True)
class Monitoring:
    """How the profile of a bundle comes about."""

    names: Sequence[str] | None = None
    """Of the columns of a single input; a table has its own."""
    labels: Array | None = None
    """[rows] what would have been right: makes accuracy and calibration."""
    wishes: Wishes = Wishes()
    profile: Profile | None = None
    """One that was made before, in place of one of these samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    contract: Contract
    profile: Profile
    lints: tuple[Lint, ...]
    inputs: dict[str, Array]
    answers: dict[str, Array]


def measure(
    model: Path, inspected: Inspected, samples: Samples, said: Outputs, monitoring: Monitoring
) -> Measured:
    """Run all samples through the model at `model`.

    Raises `InvalidRequest`: OUT-B108 for samples that do not fit, OUT-S120 for names, roles and
    wishes that do not, OUT-B114 for a given profile of another model.
    """
    arrays, names = (
        feed(samples, inspected.inputs) if isinstance(samples, Rows) else (samples, None)
    )
    inputs = fit(arrays, inspected.inputs)
    answers = run(Session(model), inputs, inspected.inputs)
    contract = make_contract(
        inspected,
        inputs,
        answers,
        roles=said.roles,
        classes=said.classes,
        absolute_tolerance=said.absolute_tolerance,
        relative_tolerance=said.relative_tolerance,
    )
    if monitoring.profile is not None:
        check_profile(monitoring.profile, contract)
        return Measured(contract, monitoring.profile, (), inputs, answers)
    made = make_profile(
        contract,
        inputs,
        answers,
        monitoring.names if monitoring.names is not None else names,
        labels=monitoring.labels,
        wishes=monitoring.wishes,
    )
    return Measured(contract, made.profile, made.lints, inputs, answers)


def profile_of(
    samples: Rows,
    model: Path | None = None,
    *,
    said: Outputs | None = None,
    monitoring: Monitoring | None = None,
) -> Made:
    """A profile alone: of a model's inputs and answers, or without one of the samples as they are.

    Without a model, numbers of a table are the columns of one input; if it has texts too, every
    column is an input of its own. Raises `InvalidRequest` as `inspect` and `measure`.
    """
    monitoring = monitoring or Monitoring()
    if model is not None:
        found = measure(model, inspect(model), samples, said or Outputs(), monitoring)
        return Made(found.profile, found.lints)
    specs, arrays, names = _alone(samples)
    return make_input_profile(specs, arrays, monitoring.names or names, wishes=monitoring.wishes)


def _alone(
    samples: Rows,
) -> tuple[list[TensorSpec], dict[str, Array], Sequence[str] | None]:
    """`(inputs, arrays, names of columns)` of samples that no model takes."""
    arrays = samples.arrays
    if not arrays or any(not array.ndim for array in arrays.values()):
        raise InvalidRequest("OUT-B108", "no arrays of rows")
    rows = {len(array) for array in arrays.values()}
    if len(rows) != 1 or 0 in rows:
        raise InvalidRequest("OUT-B108", f"{' and '.join(map(str, sorted(rows)))} rows")
    if samples.columns and all(array.dtype.kind in "biuf" for array in arrays.values()):
        arrays = {_TABLE: np.column_stack([arrays[name] for name in samples.columns])}
        return [_spec(_TABLE, arrays[_TABLE])], arrays, samples.columns
    return [_spec(name, array) for name, array in arrays.items()], arrays, None


def _spec(name: str, array: Array) -> TensorSpec:
    datatype = "BYTES" if array.dtype.kind in "US" else DATATYPES.get(array.dtype)
    if datatype is None:
        raise InvalidRequest("OUT-B108", f"{name} has type {array.dtype}")
    try:
        return TensorSpec(name, datatype, (-1, *array.shape[1:]))
    except ValueError as error:
        raise InvalidRequest("OUT-B108", f"{name[:80]}: {error}") from error
