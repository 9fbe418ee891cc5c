"""Open Inference Protocol v2: a request's bytes to arrays, and arrays to an answer's bytes.

JSON has no NaN and no infinity. In requests both are refused; in answers they become `null`,
which numpy reads back as NaN. Tensors may also come and go as binary data: see `binary`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from numpy.typing import NDArray

from edge_agent.runner.binary import NUMPY_TYPES, cut, from_binary, split, to_binary
from edge_agent.runner.contract import check_length
from protocol.errors import InvalidRequest, OutriderError
from protocol.members import Contract, TensorSpec

Array = NDArray[Any]

SMALL: Final = 256
"""Values; fewer are packed one by one, more are converted at once."""
# What `struct` calls the datatypes.
_LETTERS: Final = dict(
    zip(
        ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        "?BHIQbhiq",
        strict=True,
    )
) | {"FP16": "e", "FP32": "f", "FP64": "d"}

EXTENSIONS: Final = ("binary_tensor_data",)

_SHARED_MEMORY: Final = "the extension shared memory is not supported"

# The names that Python's json module writes, and other writers copy, for what JSON cannot say.
_NOT_A_NUMBER = re.compile(rb"[\[,:\s]-?(NaN|nan|Infinity|inf)\b")

# Sizes far outside any contract only have to survive until the contract refuses them.
_Size = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


# Structs, not dataclasses: those cannot have an optional `Raw`, which leaves the data unparsed
# until the contract has said what they must be.


NO_DATA: Final = Raw()


class InputParameters(Struct, frozen=True):
    binary_data_size: Annotated[int, Meta(ge=0, le=2**62)] | None = None
    shared_memory_region: Any = None


NOTHING_SAID: Final = InputParameters()


class InputTensor(Struct, frozen=True):
    name: str
    datatype: str
    shape: Annotated[tuple[_Size, ...], Meta(max_length=64)]
    data: Raw = NO_DATA
    parameters: InputParameters = NOTHING_SAID


class OutputParameters(Struct, frozen=True):
    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class WantedOutput(Struct, frozen=True):
    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Struct, frozen=True):
    binary_data_output: bool | None = None


class InferenceRequest(Struct, frozen=True):
    inputs: Annotated[tuple[InputTensor, ...], Meta(max_length=64)]
    outputs: Annotated[tuple[WantedOutput, ...], Meta(max_length=64)] = ()
    id: Annotated[str, Meta(max_length=256)] | None = None
    parameters: RequestParameters = RequestParameters()

    def binary_outputs(self, wanted: Sequence[TensorSpec]) -> frozenset[str]:
        """Which of the outputs that are answered with are wanted as binary data."""
        fallback = bool(self.parameters.binary_data_output)
        if not self.outputs:
            return frozenset([spec.name for spec in wanted]) if fallback else _NONE
        said = {output.name: output.parameters.binary_data for output in self.outputs}
        return frozenset(
            spec.name
            for spec in wanted
            if (fallback if (own := said.get(spec.name)) is None else own)
        )


_NONE: Final[frozenset[str]] = frozenset()


# Structs as well, because they are made for every answer.


class Parsed(Struct, frozen=True):
    """A request whose sizes are those of its body; the contract has not been asked yet."""

    request: InferenceRequest
    pieces: dict[str, memoryview]
    """Binary data by input."""


class Encoded(Struct, frozen=True):
    """An answer's body. `json_bytes`, if any, is where its binary data begin."""

    body: bytes
    json_bytes: int | None = None


class _Output(Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Mapping[str, int] | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET


class _Response(Struct):
    model_name: str
    model_version: str
    id: str | UnsetType
    parameters: Mapping[str, str] | UnsetType
    outputs: list[_Output]


_REQUEST: Final = msgspec.json.Decoder(InferenceRequest)
_encode: Final = msgspec.json.Encoder().encode


def parse_request(body: bytes | bytearray, header: str | None = None) -> Parsed:
    """`header` is the value of `Inference-Header-Content-Length`, None without.

    Raises `InvalidRequest` OUT-I106, or OUT-I104 where a NaN or an infinity is in the way.
    """
    text, binary = split(body, header)
    try:
        request = _REQUEST.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if isinstance(error, msgspec.DecodeError) and _NOT_A_NUMBER.search(text):
            raise InvalidRequest(
                "OUT-I104", "NaN and infinity are not JSON: send them as binary data"
            ) from error
        raise InvalidRequest("OUT-I106", str(error)[:200]) from error
    sizes: list[tuple[str, int]] = []
    for tensor in request.inputs:
        said = tensor.parameters
        if said is NOTHING_SAID:
            continue
        if said.shared_memory_region is not None:
            raise InvalidRequest("OUT-I106", f"{_SHARED_MEMORY}: send data with the request")
        if said.binary_data_size is not None:
            sizes.append((tensor.name, said.binary_data_size))
    for output in request.outputs:
        if output.parameters.classification is not None:
            raise InvalidRequest("OUT-I106", "the extension classification is not supported")
        if output.parameters.shared_memory_region is not None:
            raise InvalidRequest("OUT-I106", f"{_SHARED_MEMORY}: data come with the answer")
    if binary is None and not sizes:
        return Parsed(request, {})
    pieces = cut(binary, sizes)
    return Parsed(request, {name: piece for (name, _), piece in zip(sizes, pieces, strict=True)})


def inputs_of(parsed: Parsed) -> dict[str, Array]:
    """Every input as an array. They fit the contract: names, datatypes, shapes.

    Raises `InvalidRequest` OUT-I104 for data that do not fit, OUT-I106 for none or twice.
    """
    inputs: dict[str, Array] = {}
    pieces = parsed.pieces
    for tensor in parsed.request.inputs:
        piece = pieces.get(tensor.name) if pieces else None
        if piece is None:
            inputs[tensor.name] = to_array(tensor)
        elif tensor.data is not NO_DATA:
            raise InvalidRequest("OUT-I106", f"{tensor.name} has data both in JSON and in binary")
        else:
            inputs[tensor.name] = from_binary(tensor, piece)
    return inputs


def to_array(tensor: InputTensor) -> Array:
    """Values in C order, flat or nested, as an array of the tensor's datatype and shape.

    Raises `InvalidRequest` OUT-I104 for values that do not fit, OUT-I106 where there are none.
    """
    data = tensor.data
    if data is NO_DATA:
        raise InvalidRequest("OUT-I106", f"{tensor.name} has no data")
    values = _values(tensor, data)
    count = len(values)
    if count <= SMALL and count == prod(tensor.shape):
        array = _packed(tensor, values, count)
        if array is not None:
            return array
    try:
        # A float too large for the datatype becomes infinite here and is refused below.
        with np.errstate(over="ignore"):
            array = np.array(values, NUMPY_TYPES.get(tensor.datatype, np.object_))
    except (OverflowError, ValueError) as error:
        raise InvalidRequest("OUT-I104", f"{tensor.name}: {error}") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest("OUT-I104", f"{tensor.name}: a value is too large for its datatype")
    if array.ndim > 1 and array.shape != tensor.shape:
        raise InvalidRequest("OUT-I104", f"{tensor.name}: data are nested unlike its shape")
    check_length(tensor, array.size)
    return array.reshape(tensor.shape)


def encode_response(
    model: str,
    version: str,
    request_id: str | None,
    wanted: Sequence[TensorSpec],
    outputs: Mapping[str, Array],
    binary: frozenset[str] = _NONE,
    parameters: Mapping[str, str] | None = None,
) -> Encoded:
    """`outputs` by name, of which those that are `wanted` are written, in that order, as binary
    data those of `binary`; `parameters` go with the answer.

    Raises `ValueError` or `TypeError` for what cannot be written: no text, for example.
    """
    entries: list[_Output] = []
    pieces: list[bytes] = []
    for spec in wanted:
        name = spec.name
        array = outputs[name]
        if name in binary:
            piece = to_binary(array)
            pieces.append(piece)
            size = {"binary_data_size": len(piece)}
            entries.append(_Output(name, spec.datatype, array.shape, size))
        else:
            values = array.ravel().tolist()
            entries.append(_Output(name, spec.datatype, array.shape, UNSET, values))
    own_id = UNSET if request_id is None else request_id
    text = _encode(_Response(model, version, own_id, parameters or UNSET, entries))
    if not binary:
        return Encoded(text)
    return Encoded(b"".join((text, *pieces)), len(text))


def encode_error(error: OutriderError) -> bytes:
    """`{"error": "OUT-I102 pixels has shape [1,63], wanted [-1,64]"}`"""
    return msgspec.json.encode({"error": f"{error.code} {error.why or error.problem.title}"})


def encode_metadata(model: str, version: str, contract: Contract) -> bytes:
    return msgspec.json.encode(
        {
            "name": model,
            "versions": [version],
            "platform": "onnx_onnxv1",
            "inputs": [_spec(spec) for spec in contract.inputs],
            "outputs": [_spec(spec) for spec in contract.outputs],
        }
    )


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _values(tensor: InputTensor, data: Raw) -> Any:
    """Nested or flat Python values of the right kind. No data are deeper than their shape."""
    try:
        return _decoder(tensor.datatype, 1).decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        flat = error
    if len(tensor.shape) > 1:
        try:
            return _decoder(tensor.datatype, len(tensor.shape)).decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    raise InvalidRequest("OUT-I104", f"{tensor.name}: {str(flat)[:200]}") from flat


def _packed(tensor: InputTensor, values: list[Any], count: int) -> Array | None:
    """A few flat values, without what numpy does for many. None for what does not fit or pack."""
    letter = _LETTERS.get(tensor.datatype)
    if letter is None:
        return None
    try:
        packed = struct.pack(f"<{count}{letter}", *values)
    except (struct.error, OverflowError):
        return None
    return np.ndarray(tensor.shape, NUMPY_TYPES[tensor.datatype], packed)


@lru_cache(maxsize=64)
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    kind: Any = int
    if datatype == "BOOL":
        kind = bool
    elif datatype == "BYTES":
        kind = str
    elif datatype.startswith("FP"):
        kind = float
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)
