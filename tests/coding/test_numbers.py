"""Elements and their bits: the order of floats, and every number back as it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coding import bits, elements
from coding.elements import BF16, ELEMENTS, F16, F32, F64, U8

KINDS = {F16: "<f2", F32: "<f4", F64: "<f8"}


def some(itemsize, **more):
    return arrays.arrays(f"<u{itemsize}", st.integers(0, 60), **more)


any_array = st.sampled_from([1, 2, 4, 8]).flatmap(some)


@pytest.mark.parametrize("code", KINDS)
def test_ordered_integers_keep_the_order_of_floats(code):
    special = [-np.inf, -1.5, -1e-7, -0.0, 0.0, 1e-7, 1.0, 1.5, np.inf, np.nan]
    floats = np.array(special, KINDS[code])
    element = ELEMENTS[code]
    order = elements.ordered(floats.view(element.dtype), element)
    assert (order[1:] > order[:-1]).all()
    lowest = elements.ordered((-floats[-1:]).view(element.dtype), element)
    assert lowest[0] < order[0], "the other NaN is the lowest"


@given(st.sampled_from(sorted(ELEMENTS)), st.data())
def test_elements_survive_all_arithmetic(code, data):
    element = ELEMENTS[code]
    x = data.draw(some(element.itemsize))
    base = data.draw(arrays.arrays(element.dtype, len(x)))
    for there, back in (
        (elements.zigzag, elements.unzigzag),
        (elements.rotated, elements.unrotated),
        (elements.steps, elements.unsteps),
        (lambda x: elements.ordered(x, element), lambda x: elements.unordered(x, element)),
        (
            lambda x: elements.difference(x, base, element),
            lambda z: elements.restored(z, base, element),
        ),
    ):
        got = back(there(x))
        assert got.dtype == x.dtype
        assert (got == x).all()
    assert (elements.unplanes(elements.planes(x), element.itemsize) == x).all()


def test_equal_exponents_stay_together_in_their_order():
    base = np.array([1.0, 8.0, 1.5, 0.25, 9.0], "<f4").view("<u4")
    assert elements.order_of(base, ELEMENTS[F32]).tolist() == [3, 0, 2, 1, 4]
    assert elements.order_of(base >> np.uint32(16), ELEMENTS[BF16]).tolist()[0] == 3


@given(any_array)
def test_bit_lengths_are_those_of_python(z):
    assert bits.bit_lengths(z).tolist() == [int(each).bit_length() for each in z]


@given(any_array)
def test_tokens_and_low_bits_survive_the_wire(z):
    token, low = bits.tokens(z)
    k = bits.low_bits_of(token)
    packed = bits.pack_low(low, k)
    counts = bits.counted(k)
    assert len(packed) == bits.low_size(counts)
    unpacked = bits.unpack_low(packed, k, counts, z.dtype.itemsize)
    assert (bits.from_tokens(token, unpacked) == z).all()


def test_tokens_say_length_and_second_bit():
    token, low = bits.tokens(np.array([0, 3, 4, 5, 6, 7, 8, 255], "<u1"))
    assert token.tolist() == [0, 3, 4, 4, 5, 5, 6, 15]
    assert low.tolist() == [0, 0, 0, 1, 0, 1, 0, 63]
    with pytest.raises(ValueError):
        bits.from_tokens(np.array([16], "<u1"), np.zeros(1, "<u1"))


def test_low_bits_are_whole_bytes_first_then_bit_by_bit():
    values, k = np.array([5, 0x1FF, 6], "<u2"), np.array([3, 9, 3], "<u1")
    # Three bits each of 5 and 6, lowest first: 101 011; then the byte of 0x1ff and its last bit.
    assert bits.pack_low(values, k) == bytes([0b10101100, 0xFF, 0b10000000])


@given(arrays.arrays("<u4", st.integers(0, 50), elements=st.integers(0, 3_000)), st.integers(0, 15))
def test_rice_survives_the_wire(gaps, k):
    unary, rest = bits.pack_rice(gaps, k)
    assert (bits.unpack_rice(unary, rest, len(gaps), k) == gaps).all()
    for wrong in (unary + b"\0", unary + b"\xff", unary[:-1]):
        if wrong != unary:
            with pytest.raises(ValueError):
                bits.unpack_rice(wrong, rest, len(gaps), k)


def test_gaps_are_ones_and_a_zero_then_remainders():
    assert bits.pack_rice(np.array([0, 5, 2], "<u4"), 1) == (
        bytes([0b01101000]),
        bytes([0b01000000]),
    )


@given(any_array)
def test_pairs_survive_the_wire(z):
    packed, large = bits.pack_pairs(z)
    symbols = bits.unpack_pairs(packed, len(z))
    assert (symbols == np.minimum(z, z.dtype.type(3))).all()
    assert (large == z[symbols == 3]).all()


@given(st.sampled_from(bits.INDEX_BITS), st.data())
def test_indices_and_flags_survive_the_wire(per, data):
    x = data.draw(some(1, elements=st.integers(0, (1 << per) - 1)))
    packed = bits.pack_indices(x, per)
    assert len(packed) == -(-len(x) * per // 8)
    assert (bits.unpack_indices(packed, len(x), per) == x).all()
    assert (bits.unpack_flags(bits.pack_flags(x), len(x)) == (x > 0)).all()
    for wrong in (lambda: bits.unpack_indices(packed + b"x", len(x), per),
                  lambda: bits.unpack_flags(b"x" * 99, len(x))):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()


def test_the_first_is_in_the_low_bits():
    assert bits.pack_indices(np.array([1, 2, 3], "<u1"), 2) == bytes([0b00111001])
    assert ELEMENTS[U8].bits == 8
