"""Open Inference Protocol v2, JSON form: bytes to arrays and back.

JSON has no NaN and no infinity. In requests both are refused; in answers they become `null`,
which numpy reads back as NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from edge_agent.runner.contract import Given, check_length
from protocol.errors import InvalidRequest, OutriderError
from protocol.members import Contract, TensorSpec

Array = NDArray[Any]

MAX_BODY: Final = 16 * 1024 * 1024

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

# The names that Python's json module writes, and other writers copy, for what JSON cannot say.
_NOT_A_NUMBER = re.compile(rb"[\[,:\s]-?(NaN|nan|Infinity|inf)\b")

# Sizes far outside any contract only have to survive until the contract refuses them.
_Size = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


# Structs, not dataclasses: those cannot have an optional `Raw`, which leaves the data unparsed
# until the contract has said what they must be.


class InputTensor(Struct, frozen=True):
    name: str
    datatype: str
    shape: Annotated[tuple[_Size, ...], Meta(max_length=64)]
    data: Raw = Raw()
    parameters: dict[str, Any] = {}

    @property
    def given(self) -> Given:
        return Given(self.name, self.datatype, self.shape)


class WantedOutput(Struct, frozen=True):
    name: str


class InferenceRequest(Struct, frozen=True):
    inputs: Annotated[tuple[InputTensor, ...], Meta(max_length=64)]
    outputs: Annotated[tuple[WantedOutput, ...], Meta(max_length=64)] = ()
    id: Annotated[str, Meta(max_length=256)] | None = None


_REQUEST: Final = msgspec.json.Decoder(InferenceRequest)


def parse_request(body: bytes) -> InferenceRequest:
    """Raises `InvalidRequest` OUT-I106, or OUT-I104 where a NaN or an infinity is in the way."""
    try:
        return _REQUEST.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if isinstance(error, msgspec.DecodeError) and _NOT_A_NUMBER.search(body):
            raise InvalidRequest(
                "OUT-I104", "NaN and infinity are not JSON and not inputs"
            ) from error
        raise InvalidRequest("OUT-I106", str(error)[:200]) from error


def to_array(tensor: InputTensor) -> Array:
    """Values in C order, flat or nested, as an array of the tensor's datatype and shape.

    Raises `InvalidRequest` OUT-I104 for values that do not fit, OUT-I106 for binary data.
    """
    if not bytes(tensor.data):
        if "binary_data_size" in tensor.parameters:
            raise InvalidRequest("OUT-I106", f"{tensor.name}: send data as JSON, not as binary")
        raise InvalidRequest("OUT-I106", f"{tensor.name} has no data")
    values = _values(tensor, tensor.data)
    try:
        # A float too large for the datatype becomes infinite here and is refused below.
        with np.errstate(over="ignore"):
            array = np.array(values, NUMPY_TYPES[tensor.datatype])
    except (OverflowError, ValueError) as error:
        raise InvalidRequest("OUT-I104", f"{tensor.name}: {error}") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest("OUT-I104", f"{tensor.name}: a value is too large for its datatype")
    if array.ndim > 1 and array.shape != tensor.shape:
        raise InvalidRequest("OUT-I104", f"{tensor.name}: data are nested unlike its shape")
    check_length(tensor.given, array.size)
    return array.reshape(tensor.shape)


def encode_response(
    model: str,
    version: str,
    request_id: str | None,
    outputs: Sequence[tuple[TensorSpec, Array]],
) -> bytes:
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id is not None:
        document["id"] = request_id
    document["outputs"] = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
        for spec, array in outputs
    ]
    return msgspec.json.encode(document)


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
