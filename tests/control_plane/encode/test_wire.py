"""Protobuf is read as byte ranges, and what is not protobuf ends the reading."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.encode import wire
from control_plane.encode.wire import Field, field_at, fields
from tests.fakes.onnx_files import inside, varint, whole

TAG = 0x4A
numbers = st.integers(0, (1 << 64) - 1)


def test_fields_are_ranges_of_the_file():
    data = whole(1, 300) + inside(2, b"abc") + b"\x1d1234" + b"\x2112345678"
    assert list(fields(data, 0, len(data))) == [
        Field(1, wire.VARINT, 0, 1, 3),
        Field(2, wire.BYTES, 3, 5, 8),
        Field(3, wire.FIXED32, 8, 9, 13),
        Field(4, wire.FIXED64, 13, 14, 22),
    ]
    assert wire.number_at(data, Field(1, wire.VARINT, 0, 1, 3)) == 300


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\x04abc",
        b"\x0d123",
        b"\x08\x80",
        b"\x08" + b"\xff" * 10 + b"\x01",
        b"\x0b",
        b"\x0e1234",
        b"\x02\x01a",
        b"\x80" * 20,
    ],
    ids=[
        "nothing",
        "no length",
        "too long",
        "cut short",
        "no end of the number",
        "eleven bytes",
        "a group",
        "no such kind",
        "number 0",
        "no end of the tag",
    ],
)
def test_what_is_no_field_is_none(data):
    assert field_at(data, 0, len(data)) is None


def test_a_field_that_claims_to_be_longer_than_its_message_ends_the_search_there():
    inner = inside(1, b"good") + b"\x12\x09cut"
    data = inner + b"more than enough bytes behind it"
    assert [field.number for field in fields(data, 0, len(inner))] == [1]


@given(st.binary(max_size=200))
def test_garbage_gives_ranges_inside_of_it_and_no_error(data):
    at = 0
    for field in fields(data, 0, len(data)):
        assert at == field.start < field.value_start <= field.end <= len(data)
        at = field.end


@given(st.lists(numbers, max_size=400), st.binary(max_size=30))
def test_a_run_of_varints_ends_where_a_walk_says(values, rest):
    run = b"".join(b"\x40" + varint(value) for value in values)
    data = b"xy" + run + rest
    end = 2
    while (field := field_at(data, end, len(data))) is not None and data[end] == 0x40:
        end = field.end
    assert wire.run_of_varints(data, 2, 0x40, len(data)) == end >= 2 + len(run)


@given(st.lists(st.floats(width=32), max_size=400), st.binary(max_size=30))
def test_a_run_of_fixed_elements_ends_where_a_walk_says(values, rest):
    run = b"".join(b"\x3d" + struct.pack("<f", value) for value in values)
    data = b"xy" + run + rest
    end = 2
    while end + 5 <= len(data) and data[end] == 0x3D:
        end += 5
    assert wire.run_of_fixed(data, 2, 0x3D, 4, len(data)) == end


@given(st.lists(st.text("JA", max_size=80).map(str.encode), max_size=200), st.binary(max_size=30))
def test_a_run_of_strings_ends_where_a_walk_says(strings, rest):
    """The strings are full of the byte that is their tag."""
    data = b"xy" + b"".join(bytes([TAG, len(each)]) + each for each in strings) + rest
    end = 2
    while (field := field_at(data, end, len(data))) is not None:
        if data[end] != TAG or field.value_start != end + 2:
            break
        end = field.end
    assert wire.run_of_strings(data, 2, TAG, len(data)) == end


def test_a_run_ends_with_its_message():
    data = (b"\x40\x01" * 10) + (b"\x40\x02" * 10)
    assert wire.run_of_varints(data, 0, 0x40, 20) == 20
    assert wire.run_of_fixed(data, 0, 0x40, 1, 19) == 18


@pytest.mark.parametrize("count", [3, 600, 20_000])
def test_long_runs_are_found_whole(count):
    """Longer than the pieces that are looked at together."""
    strings = b"".join(bytes([TAG, 4]) + b"LEAF" for _ in range(count))
    assert wire.run_of_strings(strings + b"\x08\x01", 0, TAG, len(strings) + 2) == len(strings)
    whole_run = b"".join(b"\x40" + varint(number * 977) for number in range(count))
    assert wire.run_of_varints(whole_run, 0, 0x40, len(whole_run)) == len(whole_run)
