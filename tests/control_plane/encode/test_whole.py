"""Bodies that stand for a whole file become that file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding import decoding
from coding.limits import MAX_BSDIFF, MAX_PATCH
from coding.streams import Packer
from control_plane.encode import whole
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_LZMA,
    FEATURE_PATCH,
    MAX_BLOCK,
    Header,
)

NOISE = np.random.default_rng(1).bytes(20_000)


class Held:
    def __init__(self, data):
        self.data = data
        self.size = len(data)

    def read(self, offset, length):
        assert 0 <= offset <= offset + length <= self.size
        return self.data[offset : offset + length]


def decoded(body, features, target, base=None):
    named = None if base is None else digest_of(base)
    header = Header(features, named, digest_of(target), len(target), MAX_BLOCK)
    held = None if base is None else Held(base)
    return b"".join(decoding.blocks(io.BytesIO(body), header, held))


@st.composite
def twins(draw):
    """Two files with pieces in common, one of them moved."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=6))
    moved = draw(st.permutations(pieces))
    return b"".join(pieces), b"".join(moved) + draw(st.binary(max_size=40))


@settings(max_examples=40)
@given(twins())
def test_patches_and_bsdiffs_become_their_targets(files):
    base, target = files
    assert decoded(whole.patch(target, base), FEATURE_PATCH, target, base) == target
    for packer in (Packer(), Packer(19, lzma=True)):
        features = FEATURE_BSDIFF | FEATURE_LZMA * packer.lzma
        assert decoded(whole.bsdiff(target, base, packer), features, target, base) == target


def test_a_piece_that_moved_back_costs_little():
    target = NOISE[10_000:] + NOISE[:10_000]
    body = whole.bsdiff(target, NOISE, Packer(19, lzma=True))
    patch = whole.patch(target, NOISE)
    assert body is not None
    assert patch is not None
    assert decoded(body, FEATURE_BSDIFF | FEATURE_LZMA, target, NOISE) == target
    assert len(body) < 100
    assert len(patch) < 100


@settings(max_examples=20)
@given(st.binary(min_size=1, max_size=500))
def test_brotli_becomes_its_target(target):
    assert decoded(whole.pressed(target, 1_000), FEATURE_BROTLI, target) == target


def test_brotli_is_left_out_where_the_first_megabyte_says_that_it_loses(monkeypatch):
    packed = []

    def noting(data):
        packed.append(len(data))
        return data

    monkeypatch.setattr(whole, "_brotli", noting)
    large = bytes(2 * whole.SAMPLE)
    assert whole.pressed(large, whole.SAMPLE) is None
    assert packed == [whole.SAMPLE]
    assert whole.pressed(large, 3 * whole.SAMPLE) == large
    assert whole.pressed(bytes(whole.MOST_BROTLI + 1), 1 << 40) is None


@pytest.mark.parametrize("part", ["target", "base"])
def test_files_that_are_too_large_to_be_held_are_left_alone(part):
    files = {"target": b"x", "base": b"x"}
    assert whole.patch(**files | {part: bytes(MAX_PATCH)}) is None
    assert whole.bsdiff(**files | {part: bytes(MAX_BSDIFF + 1)}, packer=Packer()) is None
