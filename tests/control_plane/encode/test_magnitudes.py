"""Rows that became larger or smaller as a whole are told without the signs of their numbers."""

import numpy as np

from coding.elements import ELEMENTS, F32, U32
from control_plane.encode.columns import Read
from control_plane.encode.layout import Numbers, Plain, Same
from control_plane.encode.magnitudes import INTEGERS, smaller
from control_plane.encode.search import Effort
from control_plane.encode.segments import Segment
from tests.control_plane.encode.test_container import decoded, tree_columns, written
from tests.fakes import onnx_files as onnx

ROWS, WIDTH = 120, 200
QUICK = Effort(3, lzma=False, refine=1)


def scaled(seed=1):
    """`(weights, the same of which each row moved up or down a little, in half of its places)`."""
    rng = np.random.default_rng(seed)
    old = rng.standard_normal((ROWS, WIDTH)).astype("<f4")
    step = np.where(rng.random((ROWS, 1)) < 0.5, 1, -1) * (rng.random((ROWS, WIDTH)) < 0.3)
    return old, (old.view("<i4") + step.astype("<i4")).view("<f4")


def columns(body, target, base):
    return [(each.element, each.base.element) for each in tree_columns(body, target, base)]


def numbers(old, new, element=F32):
    size = new.itemsize * new.size

    def read(values):
        return Read(Segment(0, size, 0, element, 0, (), ()), values.reshape(-1).view("<u4"))

    return Numbers(0, size, read(new), read(old), True)


def test_rows_that_moved_as_a_whole_are_told_as_integers_and_come_back():
    old, new = scaled()
    base, target = onnx.weights(old), onnx.weights(new)
    body = written(target, base)
    assert columns(body, target, base) == [(U32, U32)]
    assert decoded(body, target, base) == target


def test_numbers_that_all_moved_stay_floats():
    old = onnx.some_floats(ROWS * WIDTH, 1)
    base, target = onnx.weights(old), onnx.weights(onnx.trained_on(old, 2, 1e-3))
    assert columns(written(target, base), target, base) == [(F32, F32)]


def test_a_block_that_is_the_same_says_nothing():
    old, new = scaled()
    same = onnx.some_floats(65_536, 5)
    later = (np.concatenate([same, each.reshape(-1)]) for each in (old, new))
    first = numbers(*later)
    told = smaller(first, QUICK)
    assert isinstance(told, Numbers)
    assert told.read.segment.element == U32
    nothing = numbers(old, old)
    assert smaller(nothing, QUICK) is nothing


def test_what_has_no_base_or_is_small_stays_as_it_is():
    old, new = scaled()
    small = numbers(old[:2], new[:2])
    alone = Numbers(0, new.nbytes, numbers(old, new).read)
    for part in (Plain(0, 9), Same(0, 9, 0), small, alone):
        assert smaller(part, QUICK) is part


def test_integers_have_the_size_of_their_floats():
    assert set(INTEGERS) == {code for code, each in ELEMENTS.items() if each.mantissa}
    for floats, integers in INTEGERS.items():
        assert ELEMENTS[integers].itemsize == ELEMENTS[floats].itemsize
        assert not ELEMENTS[integers].mantissa
