"""The safetensors layout, header only: how golden vectors are stored.

8 bytes little-endian header length, a JSON header, then raw little-endian tensors. No pickles, no
archives, nothing to unpack; a reader maps the file and takes views.

The format has no text. Here a text tensor is a U8 tensor of the Open Inference Protocol's binary
form, u32 length and UTF-8 per element, and `__metadata__` says what it is: `"BYTES 32,1"`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from protocol.codec import decode
from protocol.errors import PeerError
from protocol.members import DATATYPES

MAX_HEADER: Final = 1024 * 1024

_TEXT: Final = "BYTES"
_METADATA: Final = "__metadata__"
_LEAST_TEXT: Final = 4
"""Bytes of an element of text: its length."""
_MAX_SIZE: Final = 2**31

_NAMES: Final = {
    "BOOL": "BOOL",
    "U8": "UINT8",
    "U16": "UINT16",
    "U32": "UINT32",
    "U64": "UINT64",
    "I8": "INT8",
    "I16": "INT16",
    "I32": "INT32",
    "I64": "INT64",
    "F16": "FP16",
    "F32": "FP32",
    "F64": "FP64",
}
_CODES: Final = {datatype: code for code, datatype in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class TensorView:
    """Where one tensor lies: `datatype` is an Open Inference Protocol name, bytes are absolute."""

    datatype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def parse_header(data: bytes) -> dict[str, TensorView]:
    """Tensors of a file. Raises `PeerError` unless every one lies inside it with its exact size."""
    if len(data) < 8:
        raise PeerError("OUT-B121", "the file is cut short")
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER or 8 + length > len(data):
        raise PeerError("OUT-B121", f"a header of {length:,} bytes")
    header = decode(data[8 : 8 + length], dict[str, Any], limit=MAX_HEADER)
    said = header.pop(_METADATA, {})
    try:
        views = {
            name: _view(entry, 8 + length, said.get(name, "")) for name, entry in header.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PeerError("OUT-B121", f"{type(error).__name__}: {error}") from error
    if any(view.stop > len(data) for view in views.values()):
        raise PeerError("OUT-B121", "a tensor ends behind the end of the file")
    return views


def build(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A file of `{name: (datatype, shape, raw little-endian bytes)}`; of BYTES as said above."""
    header: dict[str, Any] = {}
    texts: dict[str, str] = {}
    offset = 0
    for name, (datatype, shape, raw) in sorted(tensors.items()):
        if datatype == _TEXT:
            texts[name] = f"{_TEXT} {','.join(map(str, shape))}"
        header[name] = {
            "dtype": _CODES["UINT8" if datatype == _TEXT else datatype],
            "shape": [len(raw)] if datatype == _TEXT else list(shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        offset += len(raw)
    if texts:
        header[_METADATA] = texts
    packed = json.dumps(header, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    body = b"".join(raw for _, (_, _, raw) in sorted(tensors.items()))
    return struct.pack("<Q", len(packed)) + packed + body


def _view(entry: dict[str, Any], base: int, said: str) -> TensorView:
    """`said`: what the metadata say of this tensor, "" for nothing."""
    datatype = _NAMES[entry["dtype"]]
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    _check_shape(shape)
    if type(begin) is not int or type(end) is not int or begin < 0:
        raise ValueError("offsets are two integers")
    if end - begin != prod(shape) * DATATYPES[datatype]:
        raise ValueError("offsets and shape disagree")
    if said.startswith(f"{_TEXT} "):
        if datatype != "UINT8" or len(shape) != 1:
            raise ValueError("text lies in a row of bytes")
        datatype, shape = _TEXT, tuple(map(int, said.removeprefix(f"{_TEXT} ").split(",")))
        _check_shape(shape)
        if prod(shape) * _LEAST_TEXT > end - begin:
            raise ValueError("too few bytes for so many texts")
    return TensorView(datatype, shape, base + begin, base + end)


def _check_shape(shape: tuple[Any, ...]) -> None:
    if not all(type(size) is int and 0 <= size < _MAX_SIZE for size in shape) or len(shape) > 16:
        raise ValueError("a shape is at most 16 sizes")
