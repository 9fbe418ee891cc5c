"""Where the numbers of an ONNX file lie: tensors and repeated attributes, as byte ranges.

What is not ONNX has no segments. What is cut short has those before the cut. Field numbers are
those of onnx.proto. Long because every message that holds numbers is walked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from coding import elements, forms
from coding.varint import Buffer
from control_plane.encode import wire
from control_plane.encode.wire import Field

LEAST: Final = 64
"""Fewer bytes than this are left to what stands around them."""
DEEPEST: Final = 32
"""Graphs in attributes of nodes of graphs, and so on."""
MAX_DIGITS: Final = 19
"""Of offsets and lengths of external tensors."""

Key = tuple[str, ...]

TENSOR_ELEMENTS: Final = {
    1: elements.F32,
    2: elements.U8,
    3: elements.I8,
    4: elements.U16,
    5: elements.I16,
    6: elements.I32,
    7: elements.I64,
    9: elements.U8,
    10: elements.F16,
    11: elements.F64,
    12: elements.U32,
    13: elements.U64,
    14: elements.F32,
    15: elements.F64,
    16: elements.BF16,
}
"""Of TensorProto.data_type; complex numbers are pairs. Other types are opaque bytes."""


@dataclass(frozen=True, slots=True)
class Segment:
    """`[start, end)` holds one column of numbers: form, element and tag as in a payload.

    `key` tells equal places of two files: ("T", tensor), ("N", operator, first output, attribute)
    or ("F", function, operator, first output, attribute). `shape` is empty where none is given.
    """

    start: int
    end: int
    form: int
    element: int
    tag: int
    key: Key
    shape: tuple[int, ...]


def find(model: Buffer) -> tuple[Segment, ...]:
    """The segments of an ONNX file: sorted, disjoint, each of at least 64 bytes."""
    return tuple(sorted(_Search(model).segments(), key=lambda each: each.start))


def find_external(model: Buffer) -> dict[str, tuple[Segment, ...]]:
    """The segments of the weights files of an ONNX file, by their `location` as it is written.

    They may lie outside of those files. Of ranges that overlap, the first stays.
    """
    found: dict[str, list[Segment]] = {}
    for tensor in _Search(model).tensors():
        if tensor.external and (placed := _placed(model, tensor)) is not None:
            found.setdefault(placed[0], []).append(placed[1])
    return {location: _disjoint(segments) for location, segments in found.items()}


@dataclass(frozen=True, slots=True)
class _Column:
    start: int
    end: int
    form: int
    element: int | None
    """None: as the type of the tensor says."""
    tag: int = 0


@dataclass(frozen=True, slots=True)
class _Tensor:
    key: Key
    element: int
    dims: tuple[int, ...]
    columns: tuple[_Column, ...]
    external: tuple[Field, ...]


@dataclass(slots=True)
class _Node:
    """Where an attribute stands."""

    key: Key
    depth: int


class _Search:
    """One walk through a file, as far as it is well formed."""

    def __init__(self, model: Buffer) -> None:
        self._model = model

    def segments(self) -> Iterator[Segment]:
        for found in self._walk():
            if isinstance(found, Segment):
                yield found
            else:
                for column in found.columns:
                    yield from _segment(column, found.key, found.element, found.dims)

    def tensors(self) -> Iterator[_Tensor]:
        return (found for found in self._walk() if isinstance(found, _Tensor))

    def _walk(self) -> Iterator[Segment | _Tensor]:
        for field in wire.fields(self._model, 0, len(self._model)):
            if field.kind != wire.BYTES:
                continue
            if field.number == 7:
                yield from self._graph(field, 0)
            elif field.number == 25:
                yield from self._function(field)

    def _inside(self, field: Field) -> Iterator[Field]:
        return wire.fields(self._model, field.value_start, field.end)

    def _text(self, field: Field) -> str:
        return bytes(self._model[field.value_start : field.end]).decode("utf-8", "replace")

    def _graph(self, graph: Field, depth: int) -> Iterator[Segment | _Tensor]:
        for field in self._inside(graph):
            if field.kind != wire.BYTES:
                continue
            if field.number == 1:
                yield from self._node(field, ("N",), depth)
            elif field.number == 5:
                yield self._tensor(field, ("T",), named=True)
            elif field.number == 15:
                yield from self._sparse(field, ("T",), named=True)

    def _function(self, function: Field) -> Iterator[Segment | _Tensor]:
        name = ""
        for field in self._inside(function):
            if field.kind != wire.BYTES:
                continue
            if field.number == 1:
                name = self._text(field)
            elif field.number == 7:
                yield from self._node(field, ("F", name), 0)

    def _node(self, node: Field, prefix: Key, depth: int) -> Iterator[Segment | _Tensor]:
        output = operator = None
        attributes = []
        for field in self._inside(node):
            if field.kind != wire.BYTES:
                continue
            if field.number == 2 and output is None:
                output = self._text(field)
            elif field.number == 4:
                operator = self._text(field)
            elif field.number == 5:
                attributes.append(field)
        key = (*prefix, operator or "", output or "")
        for field in attributes:
            yield from self._attribute(field, _Node(key, depth))

    def _attribute(self, attribute: Field, node: _Node) -> Iterator[Segment | _Tensor]:
        """A run of unpacked elements is passed over at a stroke: it may be millions of fields."""
        key = (*node.key, "")
        at = attribute.value_start
        while (field := wire.field_at(self._model, at, attribute.end)) is not None:
            at = field.end
            if (run := self._run(field, attribute.end, _ATTRIBUTE_RUNS)) is not None:
                at = run.end
                yield from _segment(run, key)
            elif field.kind != wire.BYTES:
                continue
            elif field.number == 1:
                key = (*node.key, self._text(field))
            elif field.number in (5, 10):
                yield self._tensor(field, key)
            elif field.number in (22, 23):
                yield from self._sparse(field, key)
            elif field.number in (6, 11) and node.depth < DEEPEST:
                yield from self._graph(field, node.depth + 1)
            elif (packed := _packed(field, _ATTRIBUTE_PACKED)) is not None:
                yield from _segment(packed, key)

    def _sparse(self, sparse: Field, key: Key, named: bool = False) -> Iterator[_Tensor]:
        for field in self._inside(sparse):
            if field.kind == wire.BYTES and field.number in (1, 2):
                yield self._tensor(field, key, named, *(("indices",) if field.number == 2 else ()))

    def _tensor(self, tensor: Field, key: Key, named: bool = False, *part: str) -> _Tensor:
        name = ""
        data_type = 0
        dims: list[int] = []
        columns = []
        external = []
        at = tensor.value_start
        while (field := wire.field_at(self._model, at, tensor.end)) is not None:
            at = field.end
            if (run := self._run(field, tensor.end, _TENSOR_RUNS)) is not None:
                at = run.end
                columns.append(run)
            elif (packed := _packed(field, _TENSOR_PACKED)) is not None:
                columns.append(packed)
            elif field.number == 1:
                dims += self._numbers(field)
            elif field.number == 2 and field.kind == wire.VARINT:
                data_type = wire.number_at(self._model, field)
            elif field.number == 8 and field.kind == wire.BYTES:
                name = self._text(field)
            elif field.number == 13 and field.kind == wire.BYTES:
                external.append(field)
        return _Tensor(
            (*key, *((name,) if named else ()), *part),
            TENSOR_ELEMENTS.get(data_type, elements.U8),
            tuple(dims),
            tuple(columns),
            tuple(external),
        )

    def _numbers(self, field: Field) -> list[int]:
        """Of a repeated varint: unpacked (one), or packed."""
        if field.kind == wire.VARINT:
            return [wire.number_at(self._model, field)]
        numbers = []
        at = field.value_start
        while field.kind == wire.BYTES and at < field.end:
            one = wire.varint(self._model, at, field.end)
            if one is None:
                break
            numbers.append(one[0])
            at = one[1]
        return numbers

    def _run(self, field: Field, end: int, kinds: _Kinds) -> _Column | None:
        """The run of unpacked elements that `field` begins; its tag and length have one byte."""
        kind = kinds.get((field.number, field.kind))
        if kind is None or field.value_start - field.start != 1 + (field.kind == wire.BYTES):
            return None
        form, element = kind
        tag = self._model[field.start]
        if form == forms.TAGGED:
            width = elements.ELEMENTS[element].itemsize
            reach = wire.run_of_fixed(self._model, field.start, tag, width, end)
        elif form == forms.TAGGED_VARINT:
            reach = wire.run_of_varints(self._model, field.start, tag, end)
        else:
            reach = wire.run_of_strings(self._model, field.start, tag, end)
        return _Column(field.start, reach, form, element, tag) if reach > field.start else None


_Kinds = dict[tuple[int, int], tuple[int, int]]

_ATTRIBUTE_RUNS: Final[_Kinds] = {
    (7, wire.FIXED32): (forms.TAGGED, elements.F32),
    (8, wire.VARINT): (forms.TAGGED_VARINT, elements.I64),
    (9, wire.BYTES): (forms.STRINGS, elements.U8),
}
_TENSOR_RUNS: Final[_Kinds] = {
    (4, wire.FIXED32): (forms.TAGGED, elements.F32),
    (10, wire.FIXED64): (forms.TAGGED, elements.F64),
    **{(number, wire.VARINT): (forms.TAGGED_VARINT, elements.I64) for number in (5, 7, 11)},
}
"""Unpacked repeated fields by number and kind: form and element of the run."""


_ATTRIBUTE_PACKED: Final[dict[int, tuple[int, int | None]]] = {
    7: (forms.BYTES, elements.F32),
    8: (forms.VARINT, elements.I64),
}
_TENSOR_PACKED: Final[dict[int, tuple[int, int | None]]] = {
    4: (forms.BYTES, elements.F32),
    9: (forms.BYTES, None),
    10: (forms.BYTES, elements.F64),
    **dict.fromkeys((5, 7, 11), (forms.VARINT, elements.I64)),
}
"""Packed repeated fields, and raw data: form and element."""


def _packed(field: Field, kinds: Mapping[int, tuple[int, int | None]]) -> _Column | None:
    if field.kind != wire.BYTES or field.number not in kinds:
        return None
    return _Column(field.value_start, field.end, *kinds[field.number])


def _segment(
    column: _Column, key: Key, element: int = elements.U8, shape: tuple[int, ...] = ()
) -> Iterator[Segment]:
    """Long enough, or none. A rest behind the last whole element makes all of it opaque."""
    size = column.end - column.start
    if size < LEAST:
        return
    code = element if column.element is None else column.element
    if column.form == forms.BYTES and size % elements.ELEMENTS[code].itemsize:
        code = elements.U8
    yield Segment(column.start, column.end, column.form, code, column.tag, key, shape)


def _placed(model: Buffer, tensor: _Tensor) -> tuple[str, Segment] | None:
    """Location and segment of an external tensor; None if it does not say where it lies."""
    said: dict[str, str] = {}
    for entry in tensor.external:
        texts = {
            field.number: bytes(model[field.value_start : field.end]).decode("utf-8", "replace")
            for field in wire.fields(model, entry.value_start, entry.end)
            if field.kind == wire.BYTES
        }
        said[texts.get(1, "")] = texts.get(2, "")
    offset = _whole(said.get("offset", "0"))
    if "length" in said:
        size = _whole(said["length"])
    else:
        size = elements.ELEMENTS[tensor.element].itemsize
        for dimension in tensor.dims:
            size = min(size * dimension, 1 << 63)
    if "location" not in said or offset is None or size is None:
        return None
    column = _Column(offset, offset + size, forms.BYTES, None)
    for segment in _segment(column, tensor.key, tensor.element, tensor.dims):
        return said["location"], segment
    return None


def _whole(text: str) -> int | None:
    short = len(text) <= MAX_DIGITS
    return int(text) if short and text.isascii() and text.isdecimal() else None


def _disjoint(segments: list[Segment]) -> tuple[Segment, ...]:
    kept: list[Segment] = []
    for segment in sorted(segments, key=lambda each: (each.start, each.end)):
        if not kept or segment.start >= kept[-1].end:
            kept.append(segment)
    return tuple(kept)
