"""Columns as they lie in files: both ways, and nothing that is not canonical."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coding import forms
from coding.base import BaseColumn
from coding.elements import ELEMENTS, F32, F64, I64, U8, U16
from coding.forms import BYTES, STRINGS, TAGGED, TAGGED_VARINT, VARINT, Forward
from tests.coding.bodies import Bytes

NAMES = (b"BRANCH_LEQ", b"", b"LEAF", b"a\0")
CASES = [(BYTES, U16), (BYTES, F64), (TAGGED, F32), (VARINT, I64), (TAGGED_VARINT, I64)]
numbers = arrays.arrays("<u8", st.integers(0, 50))
strings = arrays.arrays("<u1", st.integers(0, 50), elements=st.integers(0, len(NAMES) - 1))


@pytest.mark.parametrize("form, code", CASES)
@given(values=numbers)
def test_columns_of_every_form_survive_the_wire(form, code, values):
    element = ELEMENTS[code]
    values = values.astype(element.dtype)
    data = forms.to_bytes(values, form, element, 0x40)
    found = forms.from_bytes(data, form, element, 0x40)
    assert found is not None
    assert (found == values).all()


@given(strings)
def test_strings_survive_the_wire_and_their_names_are_found(values):
    data = forms.to_bytes(values, STRINGS, ELEMENTS[U8], 0x4A, NAMES)
    assert data == b"".join(bytes([0x4A, len(NAMES[each])]) + NAMES[each] for each in values)
    found = forms.from_bytes(data, STRINGS, ELEMENTS[U8], 0x4A, NAMES)
    assert found is not None
    assert (found == values).all()
    names = tuple(sorted({NAMES[each] for each in values}))
    assert forms.names_in(data, 0x4A) == (names or None)


@given(st.integers(0, (1 << 64) - 1))
def test_varints_are_those_of_protobuf(value):
    expected, left = bytearray(), value
    while left >= 0x80:
        expected.append(left & 0x7F | 0x80)
        left >>= 7
    expected.append(left)
    assert forms.to_bytes(np.array([value], "<u8"), VARINT, ELEMENTS[I64], 0) == expected


@pytest.mark.parametrize(
    "form, code, data",
    [
        pytest.param(BYTES, F32, b"abc", id="part of an element"),
        pytest.param(TAGGED, F32, b"\x41abcd", id="another tag"),
        pytest.param(TAGGED, F32, b"\x40abc", id="cut short"),
        pytest.param(VARINT, I64, b"\x80", id="a number that does not end"),
        pytest.param(VARINT, I64, b"\x80\x00", id="longer than needed"),
        pytest.param(VARINT, I64, b"\xff" * 10 + b"\x01", id="eleven bytes"),
        pytest.param(VARINT, I64, b"\xff" * 9 + b"\x02", id="more than 64 bits"),
        pytest.param(TAGGED_VARINT, I64, b"\x40\x01\x41\x01", id="another tag later"),
        pytest.param(TAGGED_VARINT, I64, b"\x40\x01\x40", id="a tag and nothing"),
        pytest.param(STRINGS, U8, b"\x40\x04LEAF\x40\x05LEAF", id="a string cut short"),
        pytest.param(STRINGS, U8, b"\x40\x02ab", id="a string without a name"),
        pytest.param(STRINGS, U8, b"\x40\x04LEAF\x41\x04LEAF", id="another tag of a string"),
    ],
)
def test_what_is_not_canonical_is_refused(form, code, data):
    assert forms.from_bytes(data, form, ELEMENTS[code], 0x40, NAMES) is None


@pytest.mark.parametrize("form", [VARINT, TAGGED_VARINT, STRINGS])
def test_a_column_of_the_base_is_read_forward(form):
    rng = np.random.default_rng(1)
    code, names = (U8, NAMES) if form == STRINGS else (I64, ())
    dtype = ELEMENTS[code].dtype
    values = rng.integers(0, len(NAMES) if names else 1 << 40, 60_000).astype(dtype)
    data = forms.to_bytes(values, form, ELEMENTS[code], 0x40, names)
    column = BaseColumn(3, form, code, 0x40, len(values), len(data), names)
    forward = Forward(Bytes(b"abc" + data + b"\x01" * 99), column)
    assert (forward.take(20_000) == values[:20_000]).all()
    forward.skip(30_000)
    assert (forward.take(10_000) == values[50_000:]).all()
    with pytest.raises(ValueError):
        forward.take(1)


def test_a_base_that_is_not_the_column_is_refused():
    column = BaseColumn(0, TAGGED_VARINT, I64, 0x40, 4, 8)
    for data in (b"\x41\x01" * 4, b"\x40\x80" * 4, b"\x40\x01" * 3 + b"\x40\x80"):
        with pytest.raises(ValueError):
            Forward(Bytes(data), column).take(4)


def test_a_string_of_the_base_without_a_name_has_the_next_number():
    data = b"\x4a\x04LEAF\x4a\x03new"
    column = BaseColumn(0, STRINGS, U8, 0x4A, 2, len(data), (b"LEAF",))
    assert Forward(Bytes(data), column).take(2).tolist() == [0, 1]


@pytest.mark.parametrize("form, code", [*CASES, (BYTES, U8), (TAGGED, F64)])
def test_no_block_has_more_than_256_kib_and_groups_stay_whole(form, code):
    element = ELEMENTS[code]
    for group in (0, 7):
        count = forms.block_count(form, element, (), group)
        highest = np.full(count, -1, "<i8").view("<u8").astype(element.dtype)
        assert len(forms.to_bytes(highest, form, element, 0x40)) <= 262_144
        assert not group or count % group == 0
    longest = (b"x" * 127,)
    count = forms.block_count(STRINGS, ELEMENTS[U8], longest)
    data = forms.to_bytes(np.zeros(count, "<u1"), STRINGS, ELEMENTS[U8], 0x4A, longest)
    assert len(data) <= 262_144
