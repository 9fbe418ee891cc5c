"""The binary tensor data extension: tensors as raw bytes behind the JSON part of a body.

Little-endian, row-major, without gaps; in the order in which the JSON part names them, each as
long as its `binary_data_size` says. A BOOL is one byte, an element of BYTES is its length (u32)
and then its text. Unlike JSON, this form can say NaN and infinity: they are inputs like others,
and counted in slots of their own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from math import prod
from struct import Struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.contract import Described, check_length
from protocol.errors import InvalidRequest

Array = NDArray[Any]

_HEADER: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_LENGTH: Final = Struct("<I")
_LITTLE: Final = sys.byteorder == "little"

NUMPY_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}


def split(
    body: bytes | bytearray, header: str | None
) -> tuple[bytes | bytearray | memoryview, memoryview | None]:
    """JSON part and binary part; `header` is `Inference-Header-Content-Length`, None for all JSON.

    Raises `InvalidRequest` OUT-I106 for a length that the body does not have.
    """
    if header is None:
        return body, None
    view = memoryview(body)
    if not _HEADER.fullmatch(header) or int(header) > len(body):
        raise InvalidRequest(
            "OUT-I106",
            f"inference-header-content-length is {header[:40]!a}, the body has {len(body):,} bytes",
        )
    return view[: int(header)], view[int(header) :]


def cut(binary: memoryview | None, sizes: Iterable[tuple[str, int]]) -> list[memoryview]:
    """The binary part in pieces, one for every input that has a size.

    Raises `InvalidRequest` OUT-I106 unless it is exactly as long as all of them together.
    """
    pieces: list[memoryview] = []
    at = 0
    for name, size in sizes:
        if binary is None:
            raise InvalidRequest(
                "OUT-I106",
                f"{name[:80]!a} has binary data, but no inference-header-content-length says "
                "where they begin",
            )
        if size > len(binary) - at:
            raise InvalidRequest(
                "OUT-I106",
                f"{name[:80]!a} has {size:,} bytes of binary data, {len(binary) - at:,} are left",
            )
        pieces.append(binary[at : at + size])
        at += size
    if binary is not None and at < len(binary):
        raise InvalidRequest("OUT-I106", f"{len(binary) - at:,} bytes follow that no input claims")
    return pieces


def from_binary(given: Described, data: memoryview) -> Array:
    """A view of `data` where the processor can read it in place, else a copy.

    `given` fits the contract. Raises `InvalidRequest` OUT-I104 for another number of bytes than
    its shape needs, and for bytes that are no values of its datatype.
    """
    if given.datatype == "BYTES":
        return _texts(given, data)
    kind = NUMPY_TYPES[given.datatype]
    needed = prod(given.shape) * kind.itemsize
    if len(data) != needed:
        raise InvalidRequest(
            "OUT-I104",
            f"{given.name} has {len(data):,} bytes of binary data, its shape and datatype need "
            f"{needed:,}",
        )
    if given.datatype == "BOOL" and (np.frombuffer(data, np.uint8) > 1).any():
        raise InvalidRequest("OUT-I104", f"{given.name}: a BOOL is a byte 0 or 1")
    array = np.ndarray(given.shape, kind, data)
    return array if array.flags.aligned else array.copy()


def to_binary(array: Array) -> bytes:
    """Raises `ValueError` or `TypeError` for elements of an object array that are no text."""
    kind = array.dtype
    if kind.kind != "O":
        if not (_LITTLE and kind.isnative):
            array = array.astype(kind.newbyteorder("<"), copy=False)
        return array.tobytes()
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        if not isinstance(element, str | bytes):
            raise TypeError(f"an element is a {type(element).__name__}, not text")
        text = element.encode() if isinstance(element, str) else element
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def _texts(given: Described, data: memoryview) -> Array:
    count = prod(given.shape)
    # Every element has its length at least: nothing is made for a shape that cannot be true.
    if count * _LENGTH.size > len(data):
        raise InvalidRequest(
            "OUT-I104", f"{given.name} has {len(data):,} bytes, too few for {count:,} elements"
        )
    texts: list[str] = []
    at, end = 0, len(data)
    while at < end:
        if at + _LENGTH.size > end:
            raise InvalidRequest("OUT-I104", f"{given.name}: its last length is cut off")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if size > end - at:
            raise InvalidRequest(
                "OUT-I104", f"{given.name}: an element has {size:,} bytes, {end - at:,} are left"
            )
        if len(texts) == count:
            # Not kept, only counted as one too many.
            check_length(given, count + 1)
        try:
            texts.append(str(data[at : at + size], "utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidRequest("OUT-I104", f"{given.name}: an element is not UTF-8") from error
        at += size
    check_length(given, len(texts))
    array = np.empty(count, np.object_)
    array[:] = texts
    return array.reshape(given.shape)
