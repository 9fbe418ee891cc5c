"""Blocks begin where bytes change their kind, and what is packed so is read as ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding import elements, streams
from coding.cuts import LEAST, cuts
from coding.streams import LZMA, Packer, pack_zstd, unpack_zstd
from coding.varint import Reader

RNG = np.random.default_rng(1)
NOISE = RNG.bytes(32_768)
EXPONENTS = RNG.geometric(0.5, 32_768).astype("<u1").tobytes()
FLOATS = RNG.normal(0, 0.1, 65_536).astype("<f4").view("<u4")


@pytest.mark.parametrize("alike", [b"", b"x", bytes(9_000), NOISE, EXPONENTS])
def test_bytes_of_one_kind_are_not_cut(alike):
    assert cuts(alike) == []


def test_bytes_of_two_kinds_are_cut_between_them():
    assert cuts(NOISE + EXPONENTS) == [len(NOISE)]
    assert cuts(2 * (EXPONENTS + NOISE)) == [32_768, 65_536, 98_304]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 255), st.integers(1, 9_000)), max_size=5), st.integers())
def test_whatever_is_cut_is_unpacked_as_it_was(kinds, seed):
    rng = np.random.default_rng(abs(seed))
    data = b"".join(rng.integers(0, top, size).astype("<u1").tobytes() for top, size in kinds)
    at = cuts(data)
    assert at == sorted(set(at))
    assert all(0 < place < len(data) for place in at)
    for level in (1, 19):
        for numbers in (False, True):
            frame = pack_zstd(data, level, NOISE[:9], at, numbers=numbers)
            before = streams.content(NOISE[:9])
            assert unpack_zstd(memoryview(frame), len(data), 1 << 20, before) == data


def test_planes_of_floats_take_no_more_than_their_kinds_do_alone():
    planes = elements.planes(elements.rotated(FLOATS))
    alone = sum(
        len(Packer(19).stream(planes[start : start + 65_536]))
        for start in range(0, len(planes), 65_536)
    )
    assert len(Packer(19).stream(planes)) < 1.001 * alone
    assert len(Packer(19).stream(planes)) < 0.99 * len(pack_zstd(planes, 19))


def test_lzma_is_taken_only_where_it_saves_much():
    planes = elements.planes(elements.rotated(FLOATS))
    assert Packer(19, lzma=True).stream(planes) == Packer(19).stream(planes)
    sparse = RNG.choice(2, 60_000, p=(0.97, 0.03)).astype("<u1").tobytes()
    packed = Packer(19, lzma=True).stream(sparse)
    assert packed[0] & 3 == LZMA
    assert len(packed) < streams.LZMA_BELOW * len(Packer(19).stream(sparse))
    assert streams.read(Reader(packed), len(sparse), lzma=True) == sparse


def test_few_bytes_are_not_cut():
    assert cuts((NOISE[: LEAST // 2] + EXPONENTS)[: LEAST - 1]) == []
