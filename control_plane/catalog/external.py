"""Tensor data that an ONNX model keeps in files beside it.

A location is followed only when it is a plain relative path to a regular file inside the model's
folder, links resolved. In a bundle every member is a flat name, so locations may be renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import onnx

from protocol.errors import InvalidRequest

_FLAT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# Names of other members, and what a device keeps beside them.
_RESERVED: Final = frozenset(
    {
        "model.onnx",
        "config.json",
        "contract.json",
        "golden.safetensors",
        "profile.json",
        "policy.json",
        "card.json",
        "index.json",
        "manifest.json",
    }
)


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor, however deeply nested, whose data lies in another file."""
    yield from (t for t in _tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL)


def location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def files(model: onnx.ModelProto, folder: Path) -> dict[str, Path]:
    """`{location: file}` of all external data.

    Raises `InvalidRequest` OUT-B106 for a location outside of `folder`, and for a file that is
    not there or shorter than the model says.
    """
    found: dict[str, Path] = {}
    base = folder.resolve()
    for tensor in external_tensors(model):
        where = location(tensor)
        path = PurePosixPath(where)
        inside = base.joinpath(*path.parts).resolve() if where and "\0" not in where else base
        if path.is_absolute() or "\\" in where or ".." in path.parts or base not in inside.parents:
            raise InvalidRequest("OUT-B106", f"{_called(tensor)} names {where!r:.200}")
        if not inside.is_file():
            raise InvalidRequest("OUT-B106", f"{where!r:.200} of {_called(tensor)} is not there")
        if _end(tensor) > inside.stat().st_size:
            raise InvalidRequest("OUT-B106", f"{where!r:.200} ends before {_called(tensor)} does")
        found[where] = inside
    return found


def flat_names(locations: list[str]) -> dict[str, str]:
    """`{location: member name}`: its own name where that can be one, else `weights-<n>.bin`."""
    names: dict[str, str] = {}
    for number, where in enumerate(sorted(locations)):
        usable = _FLAT.fullmatch(where) and where.lower() not in _RESERVED
        names[where] = where if usable else f"weights-{number}.bin"
    if len(set(names.values())) != len(names):
        names = {where: f"weights-{n}.bin" for n, where in enumerate(sorted(locations))}
    return names


def relocate(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename the locations in place."""
    for tensor in external_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names[entry.value]


def _end(tensor: onnx.TensorProto) -> int:
    """Bytes that the file has at least, as far as the model says."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset, length = int(said.get("offset", 0)), int(said.get("length", 0))
    except ValueError as error:
        raise InvalidRequest("OUT-B106", f"{_called(tensor)}: {error}") from error
    if offset < 0 or length < 0:
        raise InvalidRequest("OUT-B106", f"{_called(tensor)} starts at {offset}, has {length}")
    return offset + length


def _called(tensor: onnx.TensorProto) -> str:
    return tensor.name[:100] or "a tensor without a name"


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Depth first over all fields: tensors hide in attributes, subgraphs and functions."""
    pending = [message]
    while pending:
        current = pending.pop()
        if isinstance(current, onnx.TensorProto):
            yield current
            continue
        for field, value in current.ListFields():
            if field.message_type is None:
                continue
            repeated = not hasattr(value, "ListFields")
            pending.extend(value if repeated else [value])
