"""Streams: packed as small as allowed, unpacked to exactly what is expected."""

import lzma
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from coding import streams
from coding.limits import MAX_STREAM
from coding.streams import LZMA, PREFIXED, STORED, ZSTD, Packer
from coding.varint import Reader, unsigned

TEXT = b"the same again and again, " * 200
WRONG = (ValueError, zstandard.ZstdError, lzma.LZMAError)


def read(data, length, allowed=True, prefix=None):
    reader = Reader(data)
    found = streams.read(reader, length, lzma=allowed, prefix=prefix)
    reader.end()
    return found


@given(st.binary(max_size=300), st.integers(1, 9), st.booleans(), st.none() | st.binary())
def test_streams_survive_the_wire(data, repeats, allowed, prefix):
    data = data * repeats
    packed = Packer(3, allowed).stream(data, prefix)
    before = None if prefix is None else lambda _: prefix
    assert read(packed, len(data), allowed, before) == data
    opened = Packer(3, allowed).open(data, prefix)
    assert streams.read_open(Reader(opened), len(data), lzma=allowed, prefix=before) == data


def test_the_smallest_coding_is_written_and_what_is_missing_told():
    assert Packer().stream(b"") == b"\0"
    assert Packer().stream(b"abc")[0] & 3 == STORED
    assert Packer().stream(TEXT)[0] & 3 == ZSTD
    packed = Packer().stream(TEXT, TEXT, b"\x07\x08")
    assert packed[0] & 3 == PREFIXED

    def before(reader):
        assert (reader.byte(), reader.byte()) == (7, 8)
        return TEXT

    assert read(packed, len(TEXT), prefix=before) == TEXT


def frame(**more):
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, **more
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def stream(coding, data):
    return unsigned(len(data) << 2 | coding) + data


@pytest.mark.parametrize(
    "data, length",
    [
        pytest.param(b"\x10abcd", 5, id="stored, of another length"),
        pytest.param(b"\x10abcd", 3, id="more than it may be"),
        pytest.param(b"\x01", 0, id="an empty frame"),
        pytest.param(stream(ZSTD, frame().compress(TEXT)), len(TEXT) + 1, id="another content"),
        pytest.param(stream(ZSTD, frame().compress(TEXT)), len(TEXT) - 1, id="less content"),
        pytest.param(stream(ZSTD, frame().compress(TEXT) + b"x"), len(TEXT), id="bytes behind"),
        pytest.param(stream(ZSTD, frame().compress(TEXT)[:-1]), len(TEXT), id="cut short"),
        pytest.param(
            stream(ZSTD, frame(write_content_size=False).compress(TEXT)), len(TEXT), id="no size"
        ),
        pytest.param(stream(ZSTD, zstandard.compress(TEXT)), len(TEXT), id="with magic"),
        pytest.param(stream(PREFIXED, frame().compress(TEXT)), len(TEXT), id="no prefix"),
        pytest.param(stream(LZMA, b"\x01\x00\x00a"), 40, id="lzma without an end"),
        pytest.param(stream(LZMA, b"\x01\x00\x00a\x00x"), 40, id="bytes behind lzma"),
    ],
)
def test_what_is_not_exactly_the_stream_is_refused(data, length):
    with pytest.raises(WRONG):
        read(data, length)


def test_a_frame_that_asks_for_a_large_window_is_refused():
    packer = frame(window_log=24).compressobj()
    data = packer.compress(TEXT) + packer.flush()
    with pytest.raises(WRONG):
        read(stream(ZSTD, data), len(TEXT))


def test_lzma_is_read_only_where_the_header_names_it():
    data = bytes(random.Random(1).choices((0, 1), (9, 1), k=20_000))
    packed = Packer(1, lzma=True).stream(data)
    assert packed[0] & 3 == LZMA
    assert read(packed, len(data)) == data
    with pytest.raises(ValueError, match="lzma"):
        read(packed, len(data), allowed=False)


def test_a_stream_that_declares_more_than_it_may_is_refused_before_anything_is_allocated():
    # A frame of 12 bytes that says that it holds 1 GiB.
    huge = b"\xe0" + (1 << 30).to_bytes(8, "little") + b"\x01\0\0"
    tracemalloc.start()
    for length in (MAX_STREAM + 1, MAX_STREAM):
        with pytest.raises(WRONG):
            read(stream(ZSTD, huge), length)
    with pytest.raises(WRONG):
        streams.read_open(Reader(stream(ZSTD, huge)), 100, lzma=False)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
