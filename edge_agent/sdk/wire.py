"""Requests and answers of the Open Inference Protocol v2 with binary tensors: arrays and bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from edge_agent.runner.binary import NUMPY_TYPES, from_binary, to_binary
from edge_agent.runner.contract import Given
from edge_agent.sdk.answer import Answer, Array, Confidences, Labels
from protocol.errors import Failed, InvalidRequest, OutriderError, Unavailable
from protocol.problems import CATALOGUE

_NAMES: Final = {kind: name for name, kind in NUMPY_TYPES.items()}
_OURS: Final = re.compile(r"(OUT-[A-Z]\d{3})\s*(.*)", re.DOTALL)


class Tensor(Struct, frozen=True):
    """One input or output as the metadata describe it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Metadata(Struct, frozen=True):
    """What a model takes and gives."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    versions: tuple[str, ...] = ()


class _Parameters(Struct, frozen=True):
    binary_data_size: int | None = None
    answered_by: str = "model"


class _Counted(Struct, frozen=True):
    counted: int


class _Output(Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any = None
    parameters: _Parameters = _Parameters()


class _Answer(Struct, frozen=True):
    model_name: str
    outputs: tuple[_Output, ...]
    model_version: str = ""
    parameters: _Parameters = _Parameters()


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_METADATA: Final = msgspec.json.Decoder(Metadata)
_COUNTED: Final = msgspec.json.Decoder(_Counted)
_ERROR: Final = msgspec.json.Decoder(dict[str, Any])


def request(inputs: Mapping[str, Array], outputs: Sequence[str]) -> tuple[bytes, int]:
    """Body, and the length of its JSON part. Raises `InvalidRequest` for what is no tensor."""
    tensors, pieces = [], []
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise InvalidRequest("OUT-I103", f"{name} is a {type(array).__name__}, not an array")
        try:
            piece = to_binary(array)
        except (TypeError, ValueError) as error:
            raise InvalidRequest("OUT-I104", f"{name}: {error}") from error
        tensors.append(
            {
                "name": name,
                "datatype": _datatype(name, array),
                "shape": array.shape,
                "parameters": {"binary_data_size": len(piece)},
            }
        )
        pieces.append(piece)
    document: dict[str, Any] = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    if outputs:
        document["outputs"] = [{"name": name} for name in outputs]
    text = msgspec.json.encode(document)
    return b"".join((text, *pieces)), len(text)


def answer(body: bytes, header: str | None) -> Answer:
    """`header` is the value of `Inference-Header-Content-Length`, None without.

    Raises `Failed` OUT-I121 for what is no answer.
    """
    try:
        json_bytes = len(body) if header is None else int(header)
        said = _ANSWER.decode(body[:json_bytes])
        binary, at = memoryview(body), json_bytes
        outputs: dict[str, Array] = {}
        for output in said.outputs:
            size = output.parameters.binary_data_size
            if size is None:
                outputs[output.name] = _from_json(output)
                continue
            given = Given(output.name, output.datatype, output.shape)
            # A copy: whoever asked may write into it, and the body goes.
            outputs[output.name] = from_binary(given, binary[at : at + size]).copy()
            at += size
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise Failed("OUT-I121", str(error)[:200]) from error
    except InvalidRequest as error:
        raise Failed("OUT-I121", error.why) from error
    return Answer(outputs, said.model_name, said.model_version, said.parameters.answered_by)


def feedback(
    labels: Labels, predictions: Labels, confidences: Confidences | None, version: str | None
) -> bytes:
    """Raises `InvalidRequest` OUT-I117 for what is no list of labels."""
    document: dict[str, Any] = {"labels": _rows(labels), "predictions": _rows(predictions)}
    if confidences is not None:
        # JSON has no NaN: msgspec writes null, which says the same.
        document["confidences"] = _rows(confidences)
    if version is not None:
        document["model_version"] = version
    try:
        return msgspec.json.encode(document)
    except (TypeError, ValueError) as error:
        raise InvalidRequest("OUT-I117", str(error)[:200]) from error


def counted(body: bytes) -> int:
    """Raises `Failed` OUT-I121."""
    try:
        return _COUNTED.decode(body).counted
    except msgspec.MsgspecError as error:
        raise Failed("OUT-I121", str(error)[:200]) from error


def metadata(body: bytes) -> Metadata:
    """Raises `Failed` OUT-I121."""
    try:
        return _METADATA.decode(body)
    except msgspec.MsgspecError as error:
        raise Failed("OUT-I121", str(error)[:200]) from error


def problem(status: int, body: bytes) -> OutriderError:
    """What an answer other than 200 means, by the server's code where it gives one."""
    try:
        text = str(_ERROR.decode(body)["error"])
    except (msgspec.MsgspecError, KeyError):
        return Failed("OUT-I121", f"status {status}, and no reason that can be read")
    ours = _OURS.match(text)
    code, why = ours.groups() if ours is not None else ("", text)
    if status < 500:
        return InvalidRequest(code if code in CATALOGUE else "OUT-I106", why[:500])
    if status == 503:
        return Unavailable(code if code in CATALOGUE else "OUT-I108", why[:500])
    return Failed(code if code in CATALOGUE else "OUT-I110", why[:500])


def _rows(given: Labels | Confidences) -> list[Any]:
    """Python's own values of rows, text for bytes. Raises `InvalidRequest` OUT-I117 for an array
    that is not [rows], and for one text."""
    if isinstance(given, str | bytes):
        raise InvalidRequest("OUT-I117", "one text is no list of labels")
    values = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if isinstance(given, np.ndarray) and given.ndim != 1:
        raise InvalidRequest("OUT-I117", f"labels are [rows], these are {list(given.shape)}")
    return [_plain(value) for value in values]


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _datatype(name: str, array: Array) -> str:
    if array.dtype.kind == "O":
        return "BYTES"
    found = _NAMES.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise InvalidRequest("OUT-I103", f"{name}: no tensor has numbers of type {array.dtype}")
    return found


def _from_json(output: _Output) -> Array:
    kind: Any = NUMPY_TYPES.get(output.datatype, np.dtype(np.object_))
    # JSON says null where a float is NaN or infinite.
    return np.array(output.data, kind).reshape(output.shape)
