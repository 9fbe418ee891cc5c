"""Payloads whose streams are stored as they are, as the encoder writes them: one of each method,
and models. A changed byte of a packed stream ends in the unpacker, here it reaches the methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from coding import forms, methods
from coding.base import BaseColumn
from coding.elements import ELEMENTS, F32, I8, Array
from coding.methods import Context
from coding.ops import Column, Table
from coding.streams import STORED, Packer
from coding.varint import unsigned
from control_plane.encode import container
from control_plane.encode.layout import lay_out
from control_plane.encode.search import Effort
from control_plane.encode.segments import find
from control_plane.encode.transforms import encode
from protocol.payload import FEATURE_SEGMENTS
from tests.coding.bodies import Bytes, Made, block, floats, header, made
from tests.golden.payloads import FLOATS, FOREST, GROWN, UPDATED

COUNT = 3_000
OF_TREES = (methods.RANKS, methods.ONE_OF)
"""The payloads that are made by hand have those."""
MODELS = ((FLOATS, None), (FOREST, None), (UPDATED, FLOATS), (GROWN, FOREST))


@dataclass(frozen=True)
class Stored(Packer):
    """Does not pack."""

    def _smallest(self, data: bytes, length: bytes, prefix: bytes | None, window: bytes) -> bytes:
        return unsigned(len(data) << 2 | STORED) + length + data


@dataclass(frozen=True)
class Quick(Effort):
    @property
    def packer(self) -> Packer:
        return PACKER


PACKER = Stored()


def of_models() -> Iterator[Made]:
    for target, base in MODELS:
        body = BytesIO()
        segments = () if base is None else find(base)
        layout = lay_out(target, find(target), base, segments)
        container.write(target, base, layout, body, Quick(), lambda _: None, workers=1)
        before = None if base is None else Bytes(base)
        said = header(FEATURE_SEGMENTS, target, base)
        yield Made(said, body.getvalue(), before, target)


def of_methods() -> Iterator[Made]:
    """On top of a base where the method needs or takes one, and without one where it does not."""
    for method in range(methods.ONE_OF + 1):
        for code in (F32, I8):
            old = floats(COUNT, 2) if code == F32 else _few(2)
            new = _changed(old, method)
            for base in (old, None):
                context = Context(ELEMENTS[code], COUNT, lzma=False, base=base)
                data = None if method in OF_TREES else encode(method, new, context, PACKER)
                if data is not None:
                    yield _payload(bytes([method]) + data, new, base, code)


def _few(seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 9, COUNT).astype("<u1")


def _changed(old: Array, method: int) -> Array:
    """Like `old`, as far as it takes for the method to apply."""
    if method == methods.SAME:
        return old
    if method == methods.VALUES:
        return old[np.arange(COUNT) % 7]
    steps = np.random.default_rng(method).integers(0, 9, COUNT).astype(old.dtype)
    return old + np.where(np.arange(COUNT) % 5, 0, steps).astype(old.dtype)


def _payload(data: bytes, new: Array, base: Array | None, code: int) -> Made:
    size = new.nbytes
    old = None if base is None else BaseColumn(0, forms.BYTES, code, 0, COUNT, size)
    column = Column(0, forms.BYTES, code, 0, COUNT, size, base=old)
    rest = PACKER.stream(b"") + block(data)
    before = None if base is None else base.tobytes()
    return made(Table(0, ops=(column,)), rest, new.tobytes(), before)
