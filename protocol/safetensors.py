"""The safetensors layout, header only: how golden vectors are stored.

8 bytes little-endian header length, a JSON header, then raw little-endian tensors. No pickles, no
archives, nothing to unpack; a reader maps the file and takes views.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final

from protocol.codec import decode
from protocol.errors import PeerError
from protocol.members import DATATYPES

MAX_HEADER: Final = 1024 * 1024

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
    header.pop("__metadata__", None)
    try:
        views = {name: _view(entry, 8 + length) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError("OUT-B121", f"{type(error).__name__}: {error}") from error
    if any(view.stop > len(data) for view in views.values()):
        raise PeerError("OUT-B121", "a tensor ends behind the end of the file")
    return views


def build(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A file of `{name: (datatype, shape, raw little-endian bytes)}`."""
    header: dict[str, Any] = {}
    offset = 0
    for name, (datatype, shape, raw) in sorted(tensors.items()):
        header[name] = {
            "dtype": _CODES[datatype],
            "shape": list(shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        offset += len(raw)
    packed = json.dumps(header, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    body = b"".join(raw for _, (_, _, raw) in sorted(tensors.items()))
    return struct.pack("<Q", len(packed)) + packed + body


def _view(entry: dict[str, Any], base: int) -> TensorView:
    datatype = _NAMES[entry["dtype"]]
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape) or len(shape) > 16:
        raise ValueError("a shape is at most 16 sizes")
    if type(begin) is not int or type(end) is not int or begin < 0:
        raise ValueError("offsets are two integers")
    elements = 1
    for size in shape:
        elements *= size
    if end - begin != elements * DATATYPES[datatype]:
        raise ValueError("offsets and shape disagree")
    return TensorView(datatype, shape, base + begin, base + end)
