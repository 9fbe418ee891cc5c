"""What must hold of an ONNX file before it becomes a bundle.

Order matters: cheap and hostile-proof checks come first, so that no later step opens a file that
the model names, or allocates for a model that is refused anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError

from control_plane.catalog import external
from control_plane.catalog.runtimes import (
    OLDEST_OPSET,
    STANDARD_DOMAINS,
    installed,
    newest_opset,
    opset_limit,
    smallest,
)
from control_plane.catalog.session import Session
from control_plane.catalog.truncation import find_break
from protocol.bundle import MAX_MEMBERS, REQUIRED_ROLES
from protocol.errors import InvalidRequest
from protocol.payload import MAX_PAYLOAD

MAX_MODEL: Final = 2**31 - 1
"""Bytes: protobuf's own limit; larger models keep their tensors in external data."""

_DATATYPES: Final[dict[int, str]] = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
}
_RANDOM: Final = ("RandomNormal", "RandomUniform", "Multinomial", "Bernoulli")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: Open Inference Protocol datatype; -1 stands for a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inspected:
    """A model that may ship."""

    data: bytes
    """Of `model.onnx`."""
    weights: tuple[tuple[str, Path], ...]
    """External data: `(member name, file)`."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opset: int
    onnxruntime: str
    """Smallest release that runs it."""
    random: str
    """"RandomNormal (node 17)" if the model draws random numbers, else ""."""


def inspect(path: Path, *, target: str = "", limit: int = MAX_PAYLOAD) -> Inspected:
    """Check an ONNX file. `target` is the oldest onnxruntime it has to run on, if any is known.

    Raises `InvalidRequest`: OUT-B107 (more than `limit` bytes), OUT-B101 (cut short, damaged),
    OUT-B106 (external data), OUT-B105 (custom operators), OUT-B104 (opset), OUT-B102 (anything
    else onnx.checker or onnxruntime objects to), OUT-B109 (a datatype that cannot be served).
    """
    data = _read(path, limit)
    model = _parse(path, data)
    files = external.files(model, path.parent)
    total = len(data) + sum(file.stat().st_size for file in files.values())
    if total > limit or len(files) > MAX_MEMBERS - len(REQUIRED_ROLES):
        raise InvalidRequest("OUT-B107", f"{total:,} bytes in {len(files) + 1} files")
    _check_domains(model)
    opset = _check_opset(model, target)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidRequest("OUT-B102", _first_lines(str(error))) from error
    _check_loads(path)
    names = external.flat_names(list(files))
    if any(where != name for where, name in names.items()):
        external.relocate(model, names)
        data = model.SerializeToString(deterministic=True)
    initializers = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in initializers]
    return Inspected(
        data,
        tuple((names[where], file) for where, file in sorted(files.items())),
        tuple(_tensor(each, texts=True) for each in inputs),
        tuple(_tensor(each) for each in model.graph.output),
        opset,
        smallest(opset, _imports(model).get("ai.onnx.ml", 1), model.ir_version),
        _random(model),
    )


def _read(path: Path, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > min(limit, MAX_MODEL):
            raise InvalidRequest("OUT-B107", f"{path.name} has {size:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest("OUT-S110", f"{path.name}: {error.strerror}") from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    broken = find_break(data)
    if broken:
        raise InvalidRequest("OUT-B101", f"{path.name} {broken}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidRequest("OUT-B101", f"{path.name} is not an ONNX model") from error
    return model


def _imports(model: onnx.ModelProto) -> dict[str, int]:
    """`{domain: version}`; the standard domain is "", whichever of its two names it goes by."""
    return {_domain(each.domain): each.version for each in model.opset_import}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _check_domains(model: onnx.ModelProto) -> None:
    """Model-local functions are made of standard operators in the end, so they may have a name."""
    local = {(each.domain, each.name) for each in model.functions}
    for node in _nodes(model):
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in local:
            raise InvalidRequest("OUT-B105", f"{node.domain}.{node.op_type}"[:200])


def _check_opset(model: onnx.ModelProto, target: str) -> int:
    imports = _imports(model)
    opset = imports.get("", 1)
    if opset < OLDEST_OPSET and "ai.onnx.ml" not in imports:
        raise InvalidRequest(
            "OUT-B102", f"opset {opset}; onnxruntime runs {OLDEST_OPSET} and later"
        )
    newest = newest_opset(target) if target else None
    if newest is not None and opset > newest:
        raise InvalidRequest(
            "OUT-B104",
            f"the model has opset {opset}, onnxruntime {target} ends at opset {newest}",
            do=f"export with opset {newest}",
        )
    known = onnx.defs.onnx_opset_version()
    if opset > known:
        raise InvalidRequest(
            "OUT-B104", f"the model has opset {opset}, onnx {onnx.__version__} ends at {known}"
        )
    return opset


def _check_loads(path: Path) -> None:
    try:
        Session(path)
    except InvalidRequest as error:
        newest = opset_limit(str(error.__cause__))
        if newest is None:
            raise
        raise InvalidRequest(
            "OUT-B104",
            f"onnxruntime {installed()} ends at opset {newest}",
            do=f"export with opset {newest}",
        ) from error


def _tensor(info: onnx.ValueInfoProto, *, texts: bool = False) -> Tensor:
    """`texts`: whether it may be text, which an answer may not: golden answers are numbers."""
    kind = info.type.tensor_type
    datatype = _DATATYPES.get(kind.elem_type)
    if texts and kind.elem_type == onnx.TensorProto.STRING:
        datatype = "BYTES"
    if not info.type.HasField("tensor_type") or datatype is None:
        what = onnx.TensorProto.DataType.Name(kind.elem_type) if kind.elem_type else "not a tensor"
        raise InvalidRequest("OUT-B109", f"{info.name} is {what}")
    dimensions = kind.shape.dim if kind.HasField("shape") else ()
    shape = tuple(
        each.dim_value if each.HasField("dim_value") and each.dim_value > 0 else -1
        for each in dimensions
    )
    return Tensor(info.name, datatype, shape)


def _random(model: onnx.ModelProto) -> str:
    return next(
        (
            f"{node.op_type} (node {number})"
            for number, node in enumerate(_nodes(model))
            if node.op_type.startswith(_RANDOM)
        ),
        "",
    )


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs and functions too."""
    pending: list[Any] = [*reversed(model.functions), model.graph]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending.extend(attribute.graphs)
                if attribute.HasField("g"):
                    pending.append(attribute.g)


def _first_lines(text: str) -> str:
    return " ".join(text.split())[:300]
