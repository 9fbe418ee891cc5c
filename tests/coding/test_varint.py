"""Whole numbers: one way to write each, and never beyond what may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding.varint import Reader, signed, unsigned

FAR = (1 << 55) - 1


@given(st.lists(st.integers(-FAR, FAR)))
def test_numbers_survive_the_wire(numbers):
    reader = Reader(b"".join(signed(each) + unsigned(abs(each)) for each in numbers))
    for each in numbers:
        assert reader.signed(FAR) == each
        assert reader.unsigned(FAR) == abs(each)
    reader.end()


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\x80\x00", b"\xff\x80\x00", b"\x65", b"\x80" * 8 + b"\x01"],
    ids=["empty", "cut short", "longer zero", "longer than needed", "too much", "too long"],
)
def test_varints_are_shortest_and_bounded(data):
    with pytest.raises(ValueError):
        Reader(data).unsigned(100)


@pytest.mark.parametrize("value", [-1, 1 << 56])
def test_what_would_not_be_read_is_not_written(value):
    with pytest.raises(ValueError):
        unsigned(value)


def test_nothing_is_taken_beyond_the_end():
    reader = Reader(b"abc")
    assert bytes(reader.take(2)) == b"ab"
    with pytest.raises(ValueError):
        reader.take(2)
    with pytest.raises(ValueError):
        reader.end()
    assert (reader.byte(), reader.left) == (ord("c"), 0)
    with pytest.raises(ValueError):
        reader.byte()
