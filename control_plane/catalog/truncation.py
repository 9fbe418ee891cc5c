"""Where a damaged ONNX file ends: a walk over protobuf's wire format that needs no valid message.

The parser only says that it failed. People want to know how far the file goes and inside what,
because that tells a broken download from a broken export.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Field numbers of onnx.proto that lead to what has a name.
_MODEL_GRAPH: Final = 7
_MODEL_OPSETS: Final = 8
_CHILDREN: Final = {
    "model": {7: "graph", 8: "opset import", 14: "metadata", 25: "function"},
    "graph": {1: "node", 5: "initializer", 11: "input", 12: "output", 13: "value"},
}
_NAMES: Final = {"node": 3, "initializer": 8, "input": 1, "output": 1, "value": 1}
_ROOM_FOR_NAME: Final = 256

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Break:
    """Where reading ended. `inside` is "initializer conv1.weight", or "" at the top."""

    at: int
    inside: str
    cut: bool
    """The file ends too early; otherwise the bytes at `at` make no sense."""

    def __str__(self) -> str:
        where = f" inside {self.inside}" if self.inside else ""
        if self.cut:
            return f"ends at byte {self.at:,}{where}"
        return f"makes no sense at byte {self.at:,}{where}"


class _Broken(Exception):
    def __init__(self, found: Break) -> None:
        self.found = found


def find_break(data: bytes) -> Break | None:
    """Where an ONNX file breaks off; None if its outer structure is whole."""
    try:
        seen = _walk(memoryview(data), 0, len(data), "model", "")
    except _Broken as broken:
        return broken.found
    missing = {_MODEL_GRAPH: "its graph", _MODEL_OPSETS: "its opset imports"}
    for field, name in missing.items():
        if field not in seen:
            return Break(len(data), f"the model, before {name}", cut=True)
    return None


def _walk(data: memoryview, start: int, stop: int, kind: str, inside: str) -> set[int]:
    """Fields seen between `start` and `stop`. Raises `_Broken`."""
    children = _CHILDREN.get(kind, {})
    seen: set[int] = set()
    at = start
    while at < stop:
        tag_at = at
        tag, at = _varint(data, at, stop, inside)
        field, wire = tag >> 3, tag & 7
        if not field:
            raise _Broken(Break(tag_at, inside, cut=False))
        if wire == _VARINT:
            _, at = _varint(data, at, stop, inside)
        elif wire == _BYTES:
            length, at = _varint(data, at, stop, inside)
            end = at + length
            child = children.get(field, "")
            if end > stop:
                if stop < len(data):  # longer than the message around it: not cut, but wrong
                    raise _Broken(Break(tag_at, inside, cut=False))
                _describe_cut(data, at, child, inside)
            if child == "graph":
                _walk(data, at, end, child, inside)
            at = end
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
            if at > stop:
                raise _Broken(Break(len(data), inside, cut=True))
        else:
            raise _Broken(Break(tag_at, inside, cut=False))
        seen.add(field)
    return seen


def _describe_cut(data: memoryview, at: int, child: str, inside: str) -> None:
    """Raise `_Broken` for a field that reaches over the end of the file."""
    if child == "graph":
        _walk(data, at, len(data), child, "the graph")
    elif child:
        name = _name(data, at, _NAMES.get(child, 0))
        inside = f"{child} {name}".strip()
    raise _Broken(Break(len(data), inside, cut=True))


def _name(data: memoryview, at: int, wanted: int) -> str:
    """Text of field `wanted` of the message that starts at `at`, if it comes before the end."""
    try:
        while at < len(data):
            tag, at = _varint(data, at, len(data), "")
            if tag & 7 != _BYTES:
                if tag & 7 != _VARINT:
                    return ""
                _, at = _varint(data, at, len(data), "")
                continue
            length, at = _varint(data, at, len(data), "")
            if tag >> 3 == wanted and length <= _ROOM_FOR_NAME and at + length <= len(data):
                return bytes(data[at : at + length]).decode("utf-8", "replace")
            at += length
    except _Broken:
        return ""
    return ""


def _varint(data: memoryview, at: int, stop: int, inside: str) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= stop:
            raise _Broken(Break(min(stop, len(data)), inside, cut=stop == len(data)))
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, at + place + 1
    raise _Broken(Break(at, inside, cut=False))
