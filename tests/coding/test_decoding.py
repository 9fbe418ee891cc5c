"""The decoder: exactly the file or a refusal, from any point on, in bounded memory."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from coding import decoding, streams, table
from coding.base import BaseColumn
from coding.elements import F32
from coding.ops import Column, Copy, Derived, Ensemble, Table
from coding.varint import Reader, signed, unsigned
from protocol import payload
from protocol.errors import PeerError
from tests.coding import bodies
from tests.coding.bodies import ALL, PACKER, Bytes, Made, block, made, plain


@pytest.fixture(scope="module", params=ALL)
def each(request):
    return ALL[request.param]()


def test_a_payload_becomes_its_file(each):
    assert each.decoded() == each.target


def test_no_block_is_larger_than_a_quarter_of_a_mebibyte(each):
    for data in decoding.blocks(BytesIO(each.body), each.header, each.base):
        assert len(data) <= payload.MAX_BLOCK


def test_from_every_border_of_blocks_the_rest_is_the_same(each):
    borders = [0]
    for data in decoding.blocks(BytesIO(each.body), each.header, each.base):
        borders.append(borders[-1] + len(data))
    for border in sorted(set(borders)):
        at, rest = decoding.resume(BytesIO(each.body), each.header, each.base, border)
        assert at == border
        assert b"".join(rest) == each.target[border:]


def test_within_a_block_it_goes_on_from_the_border_before():
    each = bodies.update()
    at, rest = decoding.resume(BytesIO(each.body), each.header, each.base, 12 + 262_144 + 5)
    assert at == 12 + 262_144
    assert b"".join(rest) == each.target[at:]


def test_every_prefix_is_refused_and_gives_at_most_what_is_right_so_far(each):
    step = max(1, len(each.body) // 60)
    for length in {*range(0, len(each.body), step), len(each.body) - 1}:
        got = b""
        with pytest.raises(PeerError):  # noqa: PT012  # what came before the refusal counts
            for data in decoding.blocks(BytesIO(each.body[:length]), each.header, each.base):
                got += data
        assert each.target.startswith(got)


def test_bytes_behind_the_last_block_are_refused(each):
    with pytest.raises(PeerError):
        replace(each, body=each.body + b"\0").decoded()


@pytest.mark.parametrize("other", [1, -1, 100_000])
def test_parts_that_give_another_size_than_the_header_are_refused_before_the_first_byte(other):
    each = bodies.update()
    wrong = replace(each.header, target_size=each.header.target_size + other)
    with pytest.raises(PeerError):
        next(decoding.blocks(BytesIO(each.body), wrong, each.base))


def test_a_base_that_is_missing_or_not_needed_is_refused(each):
    wrong = None if each.base else Bytes(b"x")
    with pytest.raises(PeerError):
        replace(each, base=wrong).decoded()


@given(st.data())
def test_changed_bytes_give_a_refusal_or_a_file_of_the_same_size(data):
    each = bodies.forest()
    spoilt = bytearray(each.body)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PeerError):
        assert len(replace(each, body=bytes(spoilt)).decoded()) == len(each.target)


@pytest.mark.parametrize("start, length", [(-1, 4), (5, 4), (0, 9), (1 << 39, 1)])
def test_no_part_reaches_outside_of_the_base(start, length):
    packed = b"".join(
        [unsigned(0), bytes(4), unsigned(0), b"\x01", unsigned(length), signed(start), b"\0\0"]
    )
    each = made(Table(0), b"\0", bytes(length), bytes(8))
    with pytest.raises(PeerError):
        replace(each, body=PACKER.open(packed) + b"\0").decoded()


def test_a_column_of_the_base_ends_with_the_base():
    base = BaseColumn(4, 0, F32, 0, 2, 8)
    ops = (Column(0, 0, F32, 0, 2, 8, base=base),)
    each = made(Table(0, ops=ops), b"\0" + block(plain(bodies.floats(2))), bytes(8), bytes(11))
    with pytest.raises(PeerError):
        each.decoded()


def test_a_forest_whose_last_tree_does_not_end_is_refused():
    ops = (Derived(0, 1, 0, 2, 0, 3, 3),)
    listed = Table(0, ensembles=(Ensemble(3),), ops=ops)
    each = made(listed, b"\0" + PACKER.stream(bytes([0, 0, 1])), bytes(3))
    with pytest.raises(PeerError):
        each.decoded()


def test_the_front_is_bounded_before_it_is_read():
    nodes = 4_194_304
    listed = Table(0, ensembles=(Ensemble(nodes),) * 7)
    with pytest.raises(PeerError, match="would have to be kept"):
        made(listed, b"", b"").decoded()


def test_encodings_and_bases_go_together():
    each = bodies.update()
    for features in (payload.FEATURE_RAW, payload.FEATURE_ZSTD, payload.FEATURE_BROTLI):
        with pytest.raises(PeerError):
            replace(each, header=replace(each.header, features=features)).decoded()
    with pytest.raises(PeerError):
        replace(
            each, base=None, header=replace(each.header, base=None, features=payload.FEATURE_PATCH)
        ).decoded()


def test_literals_may_start_from_the_parts_of_the_base_that_nothing_else_uses():
    graph = bytes(np.random.default_rng(1).integers(0, 256, 3_000, np.uint8))
    base, target = graph + b"equal" * 10, graph[:2_000] + b"!" + b"equal" * 10
    listed = Table(2_001, ops=(Copy(2_001, 50, 3_000),))
    each = made(listed, PACKER.stream(target[:2_001], graph), target, base)
    assert len(each.body) < 100
    assert each.decoded() == target


def test_whole_files_are_given_as_they_are():
    target = bytes(600_000) + b"end"
    for features, body in {
        payload.FEATURE_RAW: target,
        payload.FEATURE_ZSTD: zstandard.compress(target),
        payload.FEATURE_BROTLI: _brotli(target),
    }.items():
        each = Made(bodies.header(features, target, None), body, None, target)
        assert each.decoded() == target
        assert decoding.resume(BytesIO(body), each.header, None, 300_000)[0] == 0
        for spoilt in (body[: len(body) // 2], body + b"more"):
            with pytest.raises(PeerError):
                replace(each, body=spoilt).decoded()
        for size in (len(target) - 1, len(target) + 1):
            with pytest.raises(PeerError):
                replace(each, header=replace(each.header, target_size=size)).decoded()


def _brotli(data: bytes, window: int = 22) -> bytes:
    packed: bytes = pytest.importorskip("brotli").compress(data, lgwin=window)
    return packed


def test_brotli_of_a_larger_window_is_refused():
    target = bytes(range(256)) * 40_000
    body = _brotli(target, 24)
    each = Made(bodies.header(payload.FEATURE_BROTLI, target, None), body, None, target)
    with pytest.raises(PeerError, match="window"):
        each.decoded()


def test_a_patch_starts_from_its_base():
    base = bytes(np.random.default_rng(1).integers(0, 256, 400_000, np.uint8))
    target = base[:1000] + b"!" + base[1000:]
    header = bodies.header(payload.FEATURE_PATCH, target, base)
    each = Made(header, streams.pack_zstd(target, 3, base), Bytes(base), target)
    assert len(each.body) < 300
    assert each.decoded() == target
    with pytest.raises(PeerError):
        replace(each, body=each.body[:-1]).decoded()
    with pytest.raises(PeerError):
        replace(each, body=each.body + b"\0").decoded()


def test_bsdiff_adds_to_pieces_of_its_base_and_inserts_between_them():
    base, target = b"abcdefgh", b"bcd!efg"
    controls = unsigned(3) + unsigned(1) + signed(-3) + unsigned(3) + unsigned(0) + signed(0)
    # The second piece starts from `abc` and adds 4 to each.
    parts = (controls, bytes([1, 1, 1, 4, 4, 4]), b"!")
    body = unsigned(2) + b"".join(unsigned(len(part)) + PACKER.stream(part) for part in parts)
    header = bodies.header(payload.FEATURE_BSDIFF, target, base)
    each = Made(header, body, Bytes(base), target)
    assert each.decoded() == target
    outside = controls.replace(signed(-3), signed(-4), 1)
    with pytest.raises(PeerError):
        replace(each, body=body.replace(controls, outside)).decoded()


_GROWTH = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from coding import decoding
from tests.coding import bodies
from tests.fakes.peak import peak_of

each, old = bodies.large()

class Repeated:
    size = len(old) * 256
    def read(self, offset, length):
        at = offset % len(old)
        return (old + old)[at : at + length] if length <= len(old) else b""

class Body:
    def __init__(self):
        self.head, self.each, self.left = each
    def read(self, length):
        while len(self.head) < length and self.left:
            self.head, self.left = self.head + self.each, self.left - 1
        part, self.head = self.head[:length], self.head[length:]
        return part

list(zip(range(3), decoding.blocks(Body(), bodies.large_header(), Repeated())))
with peak_of(os.getpid()) as peak:
    size = sum(map(len, decoding.blocks(Body(), bodies.large_header(), Repeated())))
    print(size, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_decoding_64_mb_of_floats_grows_by_less_than_8_mb():
    root = Path(__file__).parents[2]
    said = subprocess.run(
        [sys.executable, "-c", _GROWTH, str(root)], capture_output=True, text=True, check=True
    )
    size, grown = map(int, said.stdout.split())
    assert size == 64 * 1024 * 1024
    assert grown < payload.MAX_DECODE_MEMORY


def test_a_table_that_is_packed_is_the_table():
    for build in ALL.values():
        each = build()
        reader = Reader(each.body)
        packed = streams.read_open(reader, 1 << 19, lzma=False)
        size = 0 if each.base is None else each.base.size
        assert table.pack(table.unpack(packed, len(each.target), size)) == packed
