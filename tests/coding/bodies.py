"""Payloads made by hand, for tests of the decoder: every byte is said here, none by an encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np

from coding import bits, decoding, elements, forms, methods, table
from coding.base import BaseColumn
from coding.elements import ELEMENTS, F32, I64, U8
from coding.ops import (
    BaseEnsemble,
    Column,
    Copy,
    Derived,
    Ensemble,
    Gathered,
    Held,
    Pool,
    Set,
    Table,
)
from coding.streams import Packer
from coding.trees import Flags, Shape
from coding.varint import unsigned
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_SEGMENTS, MAX_BLOCK, Header

PACKER = Packer(3)


@dataclass(frozen=True)
class Bytes:
    """A base in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > len(self.data):
            raise ValueError("beyond the end of the base")
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class Made:
    """`body` stands behind the header."""

    header: Header
    body: bytes
    base: Bytes | None
    target: bytes

    def decoded(self) -> bytes:
        return b"".join(decoding.blocks(BytesIO(self.body), self.header, self.base))


def header(features: int, target: bytes, base: bytes | None) -> Header:
    named = None if base is None else digest_of(base)
    return Header(features, named, digest_of(target), len(target), MAX_BLOCK)


def made(listed: Table, rest: bytes, target: bytes, base: bytes | None = None) -> Made:
    """A payload of segments: the table, and what stands behind it."""
    body = PACKER.open(table.pack(listed)) + rest
    return Made(
        header(FEATURE_SEGMENTS, target, base), body, None if base is None else Bytes(base), target
    )


def block(data: bytes, size: int | None = None) -> bytes:
    """A block of a method's byte and data; `size`: bytes of output where the form has no fixed."""
    return unsigned(len(data)) + (b"" if size is None else unsigned(size)) + data


def plain(values: elements.Array) -> bytes:
    return bytes([methods.PLAIN]) + PACKER.stream(values.tobytes())


def difference(values: elements.Array, base: elements.Array, code: int) -> bytes:
    z = elements.difference(values, base, ELEMENTS[code])
    return bytes([methods.DIFF]) + PACKER.stream(elements.planes(z))


def floats(count: int, seed: int = 1) -> elements.Array:
    """Small numbers around zero."""
    return np.random.default_rng(seed).normal(0, 0.1, count).astype("<f4").view("<u4")


def update() -> Made:
    """A changed graph, a tensor of three blocks that all changed a little, and a varint column."""
    old = floats(150_000)
    new = old + np.uint32(3)
    numbers = np.arange(20_000, dtype="<u8") * np.uint64(37)
    before = forms.to_bytes(numbers, forms.TAGGED_VARINT, ELEMENTS[I64], 0x40)
    later = numbers + np.uint64(1)
    after = forms.to_bytes(later, forms.TAGGED_VARINT, ELEMENTS[I64], 0x40)
    base = b"graph of before" + old.tobytes() + before + b"the end, equal in both"
    start = 15 + 4 * len(old)
    target = b"graph of now" + new.tobytes() + after + b"the end, equal in both"
    ops = (
        Column(
            12, forms.BYTES, F32, 0, len(new), 4 * len(new),
            base=BaseColumn(15, forms.BYTES, F32, 0, len(old), 4 * len(old)),
        ),
        Column(
            0, forms.TAGGED_VARINT, I64, 0x40, len(later), len(after),
            base=BaseColumn(start, forms.TAGGED_VARINT, I64, 0x40, len(numbers), len(before)),
        ),
        Copy(0, 22, start + len(before)),
    )  # fmt: skip
    rest = PACKER.stream(b"graph of now")
    for at in range(0, len(new), 65_536):
        rest += block(difference(new[at : at + 65_536], old[at : at + 65_536], F32))
    for at in range(0, len(later), 16_384):
        some = later[at : at + 16_384]
        size = len(forms.to_bytes(some, forms.TAGGED_VARINT, ELEMENTS[I64], 0x40))
        rest += block(difference(some, numbers[at : at + 16_384], I64), size)
    return made(Table(12, ops=ops), rest, target, base)


BRANCH, LEAF = b"BRANCH_LEQ", b"LEAF"
TREES = (0, 0, 1, 1, 1), (0, 1, 0, 1, 1), (1,)
"""Leaf flags in pre-order."""


def forest(repeats: int = 1) -> Made:
    """A forest without a base, whose columns are derived, whose features are held, whose thresholds
    are ranks and whose leaf values are in groups."""
    leaves = np.array([flag for tree in TREES * repeats for flag in tree], np.uint8)
    flags = Flags(leaves)
    branches = int((leaves == 0).sum())
    features = (np.arange(branches) % 3).astype("<u2")
    shape = Shape(flags, 2)
    element = ELEMENTS[I64]
    parts: list[bytes] = []
    ops: list[object] = []
    for column in range(7):
        values = np.concatenate(list(shape.derived(column, 4)))
        data = forms.to_bytes(values, forms.TAGGED_VARINT, element, 0x40)
        first = 4 if column in (0, 4) else 0
        ops.append(Derived(0, column, 0, forms.TAGGED_VARINT, 0x40, len(values), len(data), first))
        parts.append(data)
    modes = np.concatenate(list(shape.derived(7)))
    data = forms.to_bytes(modes, forms.STRINGS, ELEMENTS[U8], 0x4A, (BRANCH, LEAF))
    ops.append(Derived(0, 7, 0, forms.STRINGS, 0x4A, len(leaves), len(data), names=(BRANCH, LEAF)))
    parts.append(data)
    ids = np.zeros(len(leaves), "<u8")
    ids[leaves == 0] = features
    data = forms.to_bytes(ids, forms.VARINT, element, 0)
    ops.append(Held(0, 0, forms.VARINT, 0, len(data)))
    parts.append(data)
    thresholds = np.zeros(len(leaves), "<u4")
    known = np.array([1.5, 2.5, -1.5], "<f4").view("<u4")[features]
    thresholds[leaves == 0] = known
    ops.append(
        Column(
            0, forms.TAGGED, F32, 0x3D, len(leaves), 5 * len(leaves), masked=True, ensemble=0,
            value_set=0,
        )
    )  # fmt: skip
    parts.append(forms.to_bytes(thresholds, forms.TAGGED, ELEMENTS[F32], 0x3D))
    weights = np.zeros(2 * int(leaves.sum()), "<u4")
    weights[1::2] = np.float32(1).view(np.uint32)
    ops.append(
        Column(0, forms.TAGGED, F32, 0x3D, len(weights), 5 * len(weights), grouped=True, ensemble=0)
    )
    parts.append(forms.to_bytes(weights, forms.TAGGED, ELEMENTS[F32], 0x3D))
    listed = Table(
        0,
        ensembles=(Ensemble(len(leaves), 2, 3),),
        sets=(Set(F32, 3, 0),),
        ops=tuple(ops),  # type: ignore[arg-type]  # all of them are ops
    )
    rest = PACKER.stream(b"") + PACKER.stream(leaves.tobytes())
    rest += block(plain(features))
    new = elements.ordered(np.array([1.5, 2.5, -1.5], "<f4").view("<u4"), ELEMENTS[F32])
    rest += PACKER.stream(elements.planes(np.ones(3, "<u2")))
    rest += PACKER.stream(elements.planes(new))
    many = 32_768
    for at in range(0, len(leaves), many):
        count = int((leaves[at : at + many] == 0).sum())
        hits = np.packbits(np.ones(count, np.uint8)).tobytes()
        ranks = bytes([methods.RANKS]) + PACKER.stream(hits) + PACKER.stream(b"") * 2
        rest += block(ranks)
    for at in range(0, len(weights), many):
        groups = min(many, len(weights) - at) // 2
        rest += block(
            bytes([methods.ONE_OF])
            + PACKER.stream(b"\x01" * groups) * 2
            + bytes([methods.VALUES, 0])
            + PACKER.stream(np.float32(1).tobytes())
        )
    return made(listed, rest, b"".join(parts))


def gathered() -> Made:
    """Two small columns that are coded together, on top of those of the base."""
    old = np.arange(20, dtype="<u4")
    new = old + np.uint32(2)
    base = b"ab" + old[:8].tobytes() + b"cd" + old[8:].tobytes()
    target = b"x" + new[:8].tobytes() + new[8:].tobytes() + b"y"
    ops = (Gathered(1, 0, 8, 32, 2), Gathered(0, 0, 12, 48, 36))
    rest = PACKER.stream(b"xy") + block(difference(new, old, F32))
    return made(Table(2, pools=(Pool(F32, 20, True),), ops=ops, tail=1), rest, target, base)


def of_other_trees() -> Made:
    """Thresholds of one tree, with those of another tree before them; flags and features too."""
    old_leaves, new_leaves = np.array([0, 1, 0, 1, 1], np.uint8), np.array([0, 1, 1], np.uint8)
    old = np.array([1, 0, 2, 0, 0], "<f4").view("<u4")
    new = np.array([2, 0, 0], "<f4").view("<u4")
    modes = forms.to_bytes(old_leaves, forms.STRINGS, ELEMENTS[U8], 0x4A, (BRANCH, LEAF))
    ids = forms.to_bytes(np.array([7, 0, 5, 0, 0], "<u8"), forms.TAGGED_VARINT, ELEMENTS[I64], 0x40)
    base = modes + ids + old.tobytes()
    start = len(modes) + len(ids)
    column = BaseColumn(start, forms.BYTES, F32, 0, 5, 20)
    trees = BaseEnsemble(
        BaseColumn(0, forms.STRINGS, U8, 0x4A, 5, len(modes), (LEAF,)),
        BaseColumn(len(modes), forms.TAGGED_VARINT, I64, 0x40, 5, len(ids)),
    )
    listed = Table(
        0,
        ensembles=(Ensemble(3, 0, 8),),
        base_ensembles=(trees,),
        sets=(Set(F32, 0, 0, column, 0),),
        ops=(
            Column(0, forms.BYTES, F32, 0, 3, 12, masked=True, ensemble=0, value_set=0, base=column,
                   base_ensemble=0),
            Held(0, 0, forms.VARINT, 0, 3),
        ),
    )  # fmt: skip
    rest = PACKER.stream(b"") + PACKER.stream(new_leaves.tobytes())
    rest += block(plain(np.array([5], "<u2")))
    rest += PACKER.stream(elements.planes(np.zeros(8, "<u2"))) + PACKER.stream(b"")
    hits = bytes([methods.RANKS]) + PACKER.stream(b"\x80") + PACKER.stream(b"") * 2
    rest += block(hits)
    return made(listed, rest, new.tobytes() + bytes([5, 0, 0]), base)


def tiny() -> Made:
    """The example of the page: four floats that changed a little, behind a changed word."""
    old = np.array([1.0, -2.0, 0.5, 3.0], "<f4").view("<u4")
    new = old + np.array([1, 0, 0, 2], "<u4")
    base, target = b"head-1;" + old.tobytes(), b"head-2;" + new.tobytes()
    column = Column(7, forms.BYTES, F32, 0, 4, 16, base=BaseColumn(7, forms.BYTES, F32, 0, 4, 16))
    rest = PACKER.stream(b"head-2;") + block(difference(new, old, F32))
    return made(Table(7, ops=(column,)), rest, target, base)


LARGE = 256
"""Blocks of the large payload, all equal."""


def large() -> tuple[tuple[bytes, bytes, int], bytes]:
    """`((what stands before the blocks, one block, how many), one block of the base)`: an update of
    64 MiB of floats, by the method that needs most room."""
    old = floats(65_536)
    z = elements.difference(old + np.uint32(70_000), old, ELEMENTS[F32])
    token, low = bits.tokens(z[elements.order_of(old, ELEMENTS[F32])])
    count = LARGE * len(old)
    column = Column(
        0, forms.BYTES, F32, 0, count, 4 * count,
        base=BaseColumn(0, forms.BYTES, F32, 0, count, 4 * count),
    )  # fmt: skip
    rest = bits.pack_low(low, bits.low_bits_of(token))
    data = bytes([methods.TOKENS_SORTED]) + PACKER.stream(token.tobytes()) + PACKER.stream(rest)
    head = PACKER.open(table.pack(Table(0, ops=(column,)))) + PACKER.stream(b"")
    return (head, block(data), LARGE), old.tobytes()


def large_header() -> Header:
    some = header(FEATURE_SEGMENTS, b"", b"")
    return replace(some, target_size=LARGE * MAX_BLOCK)


ALL = {
    "tiny": tiny,
    "update": update,
    "forest": forest,
    "gathered": gathered,
    "other trees": of_other_trees,
}
