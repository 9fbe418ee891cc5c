"""What of a model is monitored, and the columns that this makes of sample rows.

Columns of numbers are monitored as they are, texts by their words. What is too wide for that, an
image above all, is monitored through the model's own embedding along its principal components, or
else through three numbers per channel. Devices compute the same numbers, in float32 as here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from control_plane.catalog.residual import fit_basis, project
from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec
from protocol.profile import MAX_FEATURES, Basis, Profile, Watched

Array = NDArray[Any]
Watch = Literal["auto", "columns", "pooled", "embedding", "none"]
Layout = Literal["hw", "chw", "hwc"]

WATCHES: Final[tuple[Watch, ...]] = get_args(Watch)
POOLED: Final = ("mean", "deviation", "edges")
"""Of every channel, in this order. Edges: mean difference of neighbours along the width."""
PROJECTED: Final = 8
"""Most components of an embedding that are monitored."""
MOST_CHANNELS: Final = 16
"""A tensor with more along both outer axes is no image."""

_IMAGE_RANKS: Final = (3, 4)
_BLOCK: Final = 256
"""Images that are pooled at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Columns of one tensor, as `Profile.watched` names it."""

    watched: Watched
    names: tuple[str, ...]
    values: Array
    """[rows, names]: float32, or dtype object for words, "" where there is no text."""
    errors: NDArray[np.float32] | None = None
    """[rows] what the basis leaves of a projected output (squared prediction error)."""


def choose(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    samples: Mapping[str, Array],
    answers: Mapping[str, Array],
    watch: Watch = "auto",
    names: Sequence[str] | None = None,
) -> tuple[Part, ...]:
    """The parts of a profile, in the order of its features. Empty: only answers are monitored.

    `auto`: inputs of text and of fixed width, while they have at most 4,096 columns together; if
    an input is left, the embedding in its place, or else images pooled. `columns`, `pooled` and
    `embedding` insist on one of these. `names` are those of the columns of a single input.

    Raises `InvalidRequest` OUT-S120 for a wrong number of names, or where there is nothing of what
    `watch` says.
    """
    if watch == "none":
        return ()
    if watch == "embedding":
        return (_embedding(outputs, answers),)
    flat, left = _flat(inputs, pooled=watch == "pooled")
    wide = [spec for spec in left if _layout(spec) is not None]
    if watch == "columns" and left:
        raise InvalidRequest(
            "OUT-S120",
            f"{left[0].name} is {left[0].datatype} {list(left[0].shape)}; at most {MAX_FEATURES:,} "
            "columns of a fixed width are monitored",
            do="monitor something else of it: --watch auto",
        )
    if watch == "pooled" and not wide:
        raise InvalidRequest("OUT-S120", "--watch pooled: no input is an image", do="--watch auto")
    found = {spec.name: _columns(spec, samples[spec.name], inputs, names) for spec in flat}
    if watch == "auto" and left and (part := _if_projected(outputs, answers)):
        return (*found.values(), part)
    room = MAX_FEATURES - sum(len(part.names) for part in found.values())
    for spec in wide:
        part = _pooled(spec, samples[spec.name])
        if len(part.names) <= room:
            found[spec.name] = part
            room -= len(part.names)
    return tuple(found[spec.name] for spec in inputs if spec.name in found)


def is_plain(parts: Sequence[Part], inputs: Sequence[TensorSpec]) -> bool:
    """Whether the parts are what a profile means that names none: columns of the first input."""
    return not parts or [part.watched for part in parts] == [Watched(inputs[0].name)]


def check_profile(profile: Profile, contract: Contract) -> None:
    """Raises `InvalidRequest` OUT-B114 unless the profile is one of a model with this contract."""
    watched = profile.watched
    if not watched and profile.features:
        watched = (Watched(contract.inputs[0].name),)
    at = 0
    for each in watched:
        specs = contract.outputs if each.how == "projected" else contract.inputs
        spec = next((spec for spec in specs if spec.name == each.tensor), None)
        columns = _columns_of(spec, each) if spec is not None else None
        if spec is None or columns is None:
            found = f"is {spec.datatype} {list(spec.shape)}" if spec else "is not there"
            raise InvalidRequest("OUT-B114", f"{each.tensor}, watched as {each.how}, {found}")
        kinds = {feature.kind for feature in profile.features[at : at + columns]}
        if kinds - {"words" if spec.datatype == "BYTES" else "number"}:
            raise InvalidRequest("OUT-B114", f"{each.tensor} is {spec.datatype}")
        at += columns
    if at != len(profile.features):
        raise InvalidRequest(
            "OUT-B114", f"{len(profile.features):,} features, the model has {at:,} columns"
        )
    if profile.score is not None and contract.output("score") is None:
        raise InvalidRequest("OUT-B114", "it has a score, the model has no output of that role")
    if len(profile.classes) not in (0, len(contract.classes)):
        raise InvalidRequest(
            "OUT-B114", f"{len(profile.classes):,} classes, the model has {len(contract.classes):,}"
        )


def width(spec: TensorSpec) -> int | None:
    """Columns per row; None if their number is free."""
    columns = spec.shape[1:]
    return None if -1 in columns else prod(columns)


def pool(images: Array, layout: Layout) -> NDArray[np.float32]:
    """float32 [rows, channels * 3]: mean, deviation and edges of every channel."""
    rows, blocks = len(images), []
    for start in range(0, rows, _BLOCK):
        block = images[start : start + _BLOCK]
        block = block[:, None] if layout == "hw" else block
        block = np.moveaxis(block, 3, 1) if layout == "hwc" else block
        # Each channel in one piece: numpy then adds in pairs, as it does on the device.
        with np.errstate(over="ignore", invalid="ignore"):
            pixels = np.ascontiguousarray(block, np.float32)
            flat = pixels.reshape(len(block), pixels.shape[1], -1)
            mean, deviation = flat.mean(axis=2), flat.std(axis=2)
            edges = np.zeros_like(mean)
            if pixels.shape[3] > 1:
                steps = np.abs(np.diff(pixels, axis=3)).reshape(*flat.shape[:2], -1)
                edges = steps.mean(axis=2)
        blocks.append(np.stack([mean, deviation, edges], axis=2).reshape(len(block), -1))
    return np.concatenate(blocks)


def _columns_of(spec: TensorSpec, watched: Watched) -> int | None:
    """Features of a tensor; None if it cannot be watched like this."""
    if watched.basis is not None:
        # The width of an output is often free in the model, though it never changes.
        fits = width(spec) in (None, len(watched.basis.centre)) and spec.datatype != "BYTES"
        return len(watched.basis.components) if fits else None
    if watched.how == "pooled":
        fits = len(spec.shape) == len(watched.layout) + 1 and spec.datatype != "BYTES"
        axis = {"chw": 1, "hwc": 3}.get(watched.layout)
        channels = 1 if axis is None or not fits else spec.shape[axis]
        return len(POOLED) * channels if fits and channels > 0 else None
    return width(spec) if (watched.how == "words") == (spec.datatype == "BYTES") else None


def text_of(element: object) -> str:
    """An element of an array of text; "" for what is missing."""
    if isinstance(element, bytes):
        return element.decode("utf-8", "replace")
    return element if isinstance(element, str) else ""


def _flat(
    inputs: Sequence[TensorSpec], *, pooled: bool
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """`(inputs whose columns are monitored, the others)`."""
    flat: list[TensorSpec] = []
    left: list[TensorSpec] = []
    room = MAX_FEATURES
    for spec in inputs:
        columns = width(spec)
        fits = columns is not None and 0 < columns <= room
        if fits and not (pooled and _layout(spec) is not None) and _row_by_row(spec, inputs[0]):
            flat.append(spec)
            room -= columns or 0
        else:
            left.append(spec)
    return flat, left


def _row_by_row(spec: TensorSpec, first: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape[0] == first.shape[0]


def _columns(
    spec: TensorSpec,
    values: Array,
    inputs: Sequence[TensorSpec],
    names: Sequence[str] | None,
) -> Part:
    rows = len(values)
    table = values.reshape(rows, -1)
    columns = table.shape[1]
    if names is not None and len(inputs) == 1 and len(names) != columns:
        raise InvalidRequest("OUT-S120", f"{len(names)} feature names for {columns} columns")
    called = names if names is not None and len(inputs) == 1 else None
    if called is None:
        alone = columns == 1 and (len(inputs) > 1 or spec.datatype == "BYTES")
        called = [spec.name] if alone else [f"{spec.name}_{n}" for n in range(columns)]
    if spec.datatype == "BYTES":
        words = np.empty(table.shape, np.object_)
        words[:] = [[text_of(cell) for cell in row] for row in table.tolist()]
        return Part(Watched(spec.name, "words"), tuple(called), words)
    # Overflow to infinity is counted as what it is.
    with np.errstate(over="ignore", invalid="ignore"):
        return Part(Watched(spec.name), tuple(called), table.astype(np.float32))


def _layout(spec: TensorSpec) -> Layout | None:
    """Which axes of a row are channel, height and width; None if it is no image."""
    if len(spec.shape) not in _IMAGE_RANKS or spec.datatype in ("BYTES", "BOOL"):
        return None
    if len(spec.shape) == 3:
        return "hw"
    first, last = spec.shape[1], spec.shape[3]
    few = [size for size in (first, last) if 0 < size <= MOST_CHANNELS]
    if not few:
        return None
    return "chw" if first == min(few) else "hwc"


def _pooled(spec: TensorSpec, values: Array) -> Part:
    layout = _layout(spec)
    assert layout is not None
    table = pool(values, layout)
    names = tuple(_pooled_names(spec.name, table.shape[1] // len(POOLED)))
    return Part(Watched(spec.name, "pooled", layout), names, table)


def _pooled_names(tensor: str, channels: int) -> Iterator[str]:
    for channel in range(channels):
        yield from (f"{tensor}.{what}[{channel}]" for what in POOLED)


def _if_projected(outputs: Sequence[TensorSpec], answers: Mapping[str, Array]) -> Part | None:
    spec = next((spec for spec in outputs if spec.role == "embedding"), None)
    if spec is None:
        return None
    found = _basis_of(answers[spec.name])
    return None if isinstance(found, str) else _projected(spec.name, answers[spec.name], found)


def _embedding(outputs: Sequence[TensorSpec], answers: Mapping[str, Array]) -> Part:
    spec = next((spec for spec in outputs if spec.role == "embedding"), None)
    why = "no output has the role embedding"
    if spec is not None:
        found = _basis_of(answers[spec.name])
        if not isinstance(found, str):
            return _projected(spec.name, answers[spec.name], found)
        why = f"{spec.name} has no basis: {found}"
    raise InvalidRequest("OUT-S120", f"--watch embedding: {why}", do="--watch auto")


def _basis_of(values: Array) -> Basis | str:
    with np.errstate(over="ignore", invalid="ignore"):
        return fit_basis(values.reshape(len(values), -1).astype(np.float32), PROJECTED)


def _projected(name: str, values: Array, basis: Basis) -> Part:
    with np.errstate(over="ignore", invalid="ignore"):
        along, errors = project(basis, values.reshape(len(values), -1).astype(np.float32))
    names = tuple(f"{name}.component[{n}]" for n in range(along.shape[1]))
    return Part(Watched(name, "projected", basis=basis), names, along, errors)
