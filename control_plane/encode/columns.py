"""A column as numbers: what a segment holds, if it is written as an encoder would write it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coding import elements, forms
from coding.elements import ELEMENTS, Array, Element
from coding.varint import Buffer
from control_plane.encode.segments import Key, Segment


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """`values`: the elements as `coding.elements.Array`; of strings, their places in `names`."""

    segment: Segment
    values: Array
    names: tuple[bytes, ...] = ()

    @property
    def element(self) -> Element:
        return ELEMENTS[self.segment.element]

    @property
    def start(self) -> int:
        return self.segment.start

    @property
    def end(self) -> int:
        return self.segment.end

    @property
    def kind(self) -> tuple[int, int, int]:
        """Form, element and tag: columns of one kind may start from one another."""
        return self.segment.form, self.segment.element, self.segment.tag


def column(data: Buffer, segment: Segment) -> Read | None:
    """The numbers of `segment`. Bytes that would not be written like that are one opaque column;
    None where the segment is empty or reaches outside of `data`."""
    if not 0 <= segment.start < segment.end <= len(data):
        return None
    part = memoryview(data)[segment.start : segment.end]
    names: tuple[bytes, ...] | None = ()
    if segment.form == forms.STRINGS:
        names = forms.names_in(part, segment.tag)
    values = (
        None
        if names is None
        else forms.from_bytes(part, segment.form, ELEMENTS[segment.element], segment.tag, names)
    )
    if values is None:
        return opaque(data, segment.start, segment.end, segment.key, segment.shape)
    return Read(segment, values, names or ())


def opaque(data: Buffer, start: int, end: int, key: Key = (), shape: tuple[int, ...] = ()) -> Read:
    """Bytes without a meaning."""
    segment = Segment(start, end, forms.BYTES, elements.U8, 0, key, shape)
    return Read(segment, np.frombuffer(data, np.uint8, end - start, start))


def part(read: Read, first: int, last: int) -> Read:
    """Elements `[first, last)` of a column of a form whose elements have one size."""
    width = forms.width_of(read.segment.form, read.element)
    segment = replace(read.segment, start=read.start + first * width, end=read.start + last * width)
    return Read(segment, read.values[first:last], read.names)


def renamed(read: Read, names: tuple[bytes, ...]) -> Read:
    """The same strings by their places in other names, which must hold them all."""
    places = np.array([names.index(name) for name in read.names], np.uint8)
    return Read(read.segment, places[read.values], names)
