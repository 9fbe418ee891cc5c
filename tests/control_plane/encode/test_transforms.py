"""Whatever a method writes, the devices' decoder reads as the same elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coding import methods
from coding.elements import ELEMENTS, F32, F64, I8, U8
from coding.methods import ONE_OF, RANKS, SAME, SPARSE, TOKENS, VALUES, Context
from coding.sets import ValueSet
from coding.streams import Packer
from control_plane.encode import transforms
from tests.control_plane.encode.sure import encode

ALL = range(14)
PACKERS = {"quick": Packer(), "lzma": Packer(19, lzma=True)}


def bits(data, element):
    return np.frombuffer(data, "u1").view(element.dtype)


@st.composite
def columns(draw):
    """An element, and a block of it with a base that differs in some places."""
    element = ELEMENTS[draw(st.sampled_from(sorted(ELEMENTS)))]
    count = draw(st.sampled_from([0, 1, 2, 7, 100, 1_000]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    base = rng.integers(0, 1 << element.bits, count, element.dtype, endpoint=False)
    change = rng.integers(0, 1 << draw(st.integers(1, element.bits)), count, element.dtype)
    change[rng.random(count) > draw(st.sampled_from([0.01, 0.5, 1.0]))] = 0
    # Not numbers, endless ones, denormals and both zeros are elements like all others.
    special = [0, 1, (1 << element.bits) - 1, 1 << element.bits - 1]
    x = base + change
    if count > 4 and draw(st.booleans()):
        x[: len(special)] = np.array(special, element.dtype)
    return element, x, base


@settings(max_examples=50)
@given(columns(), st.sampled_from(ALL), st.sampled_from(sorted(PACKERS)))
def test_every_method_of_every_element_survives_the_wire(column, method, packer):
    element, x, base = column
    context = Context(element, len(x), lzma=True, base=base)
    data = transforms.encode(method, x, context, PACKERS[packer])
    if data is not None:
        assert np.array_equal(methods.decode(bytes([method]) + data, context), x)


@settings(max_examples=25)
@given(columns(), st.sampled_from(ALL))
def test_without_a_base_only_what_needs_none_is_written(column, method):
    element, x, _ = column
    context = Context(element, len(x), lzma=False)
    data = transforms.encode(method, x, context, Packer())
    assert data is None or method in {*methods.FOLDS, VALUES}
    if data is not None:
        assert np.array_equal(methods.decode(bytes([method]) + data, context), x)


@settings(max_examples=25)
@given(st.sampled_from(sorted(methods.FOLDS)), st.integers(0, 300), st.integers(0, 300))
@example(0, 0, 0)
def test_a_window_of_a_base_of_other_length_stands_before_the_stream(method, first, count):
    element = ELEMENTS[F32]
    base = np.random.default_rng(1).integers(0, 1 << 32, 600, "<u4")
    x = np.concatenate([base[100:250], base[:100]])
    context = Context(element, len(x), False, window=lambda p, m: base[p : p + m])
    data = encode(method, x, context, Packer(), (first, count))
    assert np.array_equal(methods.decode(bytes([method]) + data, context), x)


def test_a_window_that_holds_the_elements_makes_them_small():
    base = np.random.default_rng(1).integers(0, 1 << 32, 600, "<u4")
    context = Context(ELEMENTS[F32], 400, False, window=lambda p, m: base[p : p + m])
    alone = encode(methods.PLAIN, base[100:500], context, Packer())
    assert len(encode(methods.PLAIN, base[100:500], context, Packer(), (0, 600))) < len(alone) / 20


def test_equal_elements_are_nothing_at_all():
    x = np.arange(1_000, dtype="<u4")
    assert encode(SAME, x, Context(ELEMENTS[F32], 1_000, False, base=x), Packer()) == b""
    other = Context(ELEMENTS[F32], 1_000, False, base=x + np.uint32(1))
    assert transforms.encode(SAME, x, other, Packer()) is None


def test_few_differences_cost_about_their_gaps():
    rng = np.random.default_rng(5)
    base = rng.integers(0, 1 << 32, 65_536, "<u4")
    x = base.copy()
    x[rng.choice(65_536, 500, replace=False)] += np.uint32(1)
    context = Context(ELEMENTS[F32], len(x), False, base=base)
    data = encode(SPARSE, x, context, Packer(19))
    assert len(data) < 800
    assert len(data) < len(encode(TOKENS, x, context, Packer(19, lzma=True))) * 0.9


@pytest.mark.parametrize("element", [U8, I8, F32, F64])
@pytest.mark.parametrize("distinct", [1, 2, 3, 16, 17, 256])
def test_few_values_are_listed(element, distinct):
    rng = np.random.default_rng(distinct)
    values = np.arange(distinct, dtype=ELEMENTS[element].dtype)
    x = values[rng.integers(0, distinct, 1_000)]
    context = Context(ELEMENTS[element], len(x), False)
    data = encode(VALUES, x, context, Packer())
    assert np.array_equal(methods.decode(bytes([VALUES]) + data, context), x)


def test_more_than_256_values_are_not_listed():
    x = np.arange(257, dtype="<u4")
    assert transforms.encode(VALUES, x, Context(ELEMENTS[F32], 257, False), Packer()) is None


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("element", [F32, F64])
def test_values_of_a_set_are_ranks_and_others_stand_beside(element, per_feature):
    rng = np.random.default_rng(3)
    dtype = ELEMENTS[element].dtype
    known = rng.integers(0, 1 << 30, 300).astype(dtype)
    of = (np.arange(300) % 7).astype("<u4")
    at = rng.integers(0, 300, 2_000)
    x, features = known[at], of[at] if per_feature else None
    x[::50] = rng.integers(0, 1 << 30, 40).astype(dtype)
    found = ValueSet(ELEMENTS[element], known, of if per_feature else None, 7)
    context = Context(ELEMENTS[element], len(x), False, values=found, features=features)
    data = encode(RANKS, x, context, Packer())
    assert np.array_equal(methods.decode(bytes([RANKS]) + data, context), x)
    assert len(data) < x.nbytes / 2


@pytest.mark.parametrize("group", [1, 2, 10, 256])
def test_groups_with_one_value_each_tell_only_where_it_is(group):
    rng = np.random.default_rng(group)
    x = np.zeros((500, group), "<u4")
    x[np.arange(500), rng.integers(0, group, 500)] = 0x3C23D70A
    x = x.reshape(-1)
    context = Context(ELEMENTS[F32], len(x), False, group=group)
    data = encode(ONE_OF, x, context, Packer())
    assert np.array_equal(methods.decode(bytes([ONE_OF]) + data, context), x)
    assert len(data) < 600


def test_a_group_of_256_values_that_are_all_used_is_not_counted_in_a_byte():
    x = np.ones(256, "<u4")
    assert (
        transforms.encode(ONE_OF, x, Context(ELEMENTS[F32], 256, False, group=256), Packer())
        is None
    )


def test_an_unknown_method_is_a_mistake():
    x = np.ones(4, "<u4")
    with pytest.raises(ValueError, match="no method"):
        encode(14, x, Context(ELEMENTS[F32], 4, False, base=x), Packer())
