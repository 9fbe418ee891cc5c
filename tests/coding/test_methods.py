"""Each method gives back what its data says, from bytes made by hand; all else is refused."""

import numpy as np
import pytest

from coding import methods
from coding.elements import ELEMENTS, F32, I8, U8, U16
from coding.methods import Context
from coding.sets import ValueSet
from coding.streams import Packer


def stored(*values):
    """A stream as it is."""
    return bytes([len(values) << 2, *values])


BASE = np.array([10, 20, 30, 40], "<u1")
HALF = np.array([0x3C00, 0xBC00, 0x4000, 0x0001], "<u2")
SET = ValueSet(ELEMENTS[F32], np.array([1.0, 2.0, 3.0], "<f4").view("<u4"))
FLOATS = np.array([2.0, 9.0, 1.0], "<f4").view("<u4").tolist()
NINE = (0x41100000 << 1).to_bytes(4, "little")

CASES = [
    ("plain", U8, stored(7, 8, 9, 0), [7, 8, 9, 0]),
    ("planes", U16, stored(1, 2, 3, 4), [0x0301, 0x0402]),
    ("rotated", U16, stored(1, 0, 0, 2), [0x8000, 0x0100]),
    ("steps", U8, stored(10, 2, 1, 0), [5, 6, 5, 5]),
    ("diff", U8, stored(2, 1, 0, 4), [11, 19, 30, 42]),
    ("tokens", U8, stored(2, 4, 0, 5) + stored(0b10000000), [11, 17, 30, 43]),
    ("pairs", U8, stored(0b11_00_01_10) + stored(9), [11, 19, 30, 35]),
    ("same", U8, b"", [10, 20, 30, 40]),
    ("values", U8, b"\0" + stored(5), [5, 5, 5, 5]),
    ("values", U8, b"\2" + stored(5, 6, 7) + b"\2" + stored(0b00_10_01_00), [5, 6, 7, 5]),
    ("ranks", F32, stored(0b10100000) + stored(0b10000000) + stored(*NINE), FLOATS),
    ("one_of", U8, stored(1, 0) + stored(1) + b"\0" + stored(9), [0, 9, 0, 0]),
]
COUNTS = {U8: 4, U16: 2, F32: 3}


@pytest.mark.parametrize("name, code, data, expected", CASES, ids=lambda x: str(x)[:12])
def test_each_method_gives_back_what_its_data_says(name, code, data, expected):
    base = BASE if code == U8 else None
    context = Context(
        ELEMENTS[code], COUNTS[code], False, base, values=SET if code == F32 else None, group=2
    )
    packed = bytes([getattr(methods, name.upper())]) + data
    assert methods.decode(packed, context).tolist() == expected
    for wrong in (packed[:-1], packed + b"\0"):
        with pytest.raises((ValueError, IndexError)):
            methods.decode(wrong, context)


def test_sparse_differences_stand_behind_gaps():
    base = np.arange(10, dtype="<u1")
    # Places 1 and 5: gaps 1 and 3, of k = 1: quotients 0 and 1, remainders 1 and 1.
    data = bytes([methods.SPARSE, 2, 1]) + b"\1" + stored(0b0_10_00000) + stored(0b11000000)
    found = methods.decode(data + stored(1, 0), Context(ELEMENTS[I8], 10, False, base))
    assert found.tolist() == [0, 2, 2, 3, 4, 4, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="behind the end"):
        methods.decode(data + stored(1, 0), Context(ELEMENTS[I8], 5, False, base[:5]))


def test_sorted_differences_stand_in_the_order_of_the_base_exponents():
    base = np.array([8.0, 1.0], "<f4").view("<u4")
    z = stored(2, 4, 0, 0, 0, 0, 0, 0)
    for method in (methods.DIFF, methods.DIFF_SORTED):
        found = methods.decode(bytes([method]) + z, Context(ELEMENTS[F32], 2, False, base))
        more = (found - base).tolist()
        assert more == ([1, 2] if method == methods.DIFF else [2, 1])


def test_a_part_of_another_base_may_stand_before_a_stream():
    old = np.random.default_rng(1).integers(0, 1 << 16, 1_000).astype("<u2")
    new = old[300:700]
    asked = []

    def window(first, count):
        asked.append((first, count))
        return old[first : first + count]

    packer = Packer()
    context = Context(ELEMENTS[U16], 400, False, window=window)
    for method, fold in methods.FOLDS.items():
        told = b"\xac\x02\x90\x03"
        packed = packer.stream(fold(new), fold(new), told)
        assert packed[0] & 3 == 3
        assert (methods.decode(bytes([method]) + packed, context) == new).all()
    assert asked == [(300, 400)] * 4


@pytest.mark.parametrize("method", range(4, 11))
def test_differences_need_a_base_of_the_same_count(method):
    with pytest.raises(ValueError):
        methods.decode(bytes([method]) + stored() * 9, Context(ELEMENTS[F32], 0, False))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes([14]), id="an unknown method"),
        pytest.param(b"", id="nothing"),
        pytest.param(bytes([methods.RANKS]) + stored(0) * 3, id="ranks without a set"),
        pytest.param(bytes([methods.TOKENS]) + stored(16, 0, 0, 0), id="a token too large"),
        pytest.param(bytes([methods.VALUES, 1]) + stored(1, 2) + b"\3", id="indices of 3 bits"),
        pytest.param(
            bytes([methods.VALUES, 1]) + stored(1, 2) + b"\2" + stored(255), id="an index too large"
        ),
        pytest.param(bytes([methods.ONE_OF]) + stored(3, 3), id="more than there are places"),
        pytest.param(
            bytes([methods.ONE_OF]) + stored(1, 0) + stored(2) + b"\0" + stored(9),
            id="a place outside of its group",
        ),
        pytest.param(
            bytes([methods.ONE_OF]) + stored(1, 0) + stored(1) + bytes([methods.ONE_OF]),
            id="groups within groups",
        ),
        pytest.param(bytes([methods.DIFF_SORTED]) + stored(0, 0, 0, 0), id="integers sorted"),
        pytest.param(bytes([methods.SPARSE, 5, 0, 0]), id="more differences than elements"),
        pytest.param(bytes([methods.SPARSE, 1, 16, 0]), id="gaps of 16 bits"),
    ],
)
def test_data_that_says_something_else_is_refused(data):
    with pytest.raises((ValueError, IndexError)):
        methods.decode(data, Context(ELEMENTS[U8], 4, False, BASE, group=2))


def test_blocks_without_elements_have_data_as_well():
    for method in (methods.PLAIN, methods.ROTATED, methods.STEPS):
        assert not len(methods.decode(bytes([method, 0]), Context(ELEMENTS[F32], 0, False)))
