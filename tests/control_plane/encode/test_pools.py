"""Small columns lie together as they lie in the file, and never more than a decoder takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding import forms
from coding.elements import ELEMENTS, F32, F64, I64, U8
from coding.limits import MAX_GATHERED, MAX_GATHERED_OP, MAX_POOLS
from control_plane.encode import pools
from control_plane.encode.columns import Read
from control_plane.encode.layout import HeldColumn, Numbers, Plain, Same
from control_plane.encode.pools import gathered
from control_plane.encode.segments import Segment
from tests.control_plane.encode.test_layout import laid_out
from tests.fakes import onnx_files
from tests.fakes.onnx_files import inside, some_floats, tensor, trained_on

KINDS = [(element, has_base) for element in sorted(ELEMENTS) for has_base in (False, True)]


def read_of(size, element=F32, form=forms.BYTES, seed=0):
    values = np.frombuffer(np.random.default_rng(seed).bytes(size), ELEMENTS[element].dtype)
    return Read(Segment(0, size, form, element, 0, ("T", "w"), ()), values)


def small(size, element=F32, has_base=False, seed=0, **said):
    base = read_of(size, element, seed=seed + 1_000) if has_base else None
    said = {"base": base, "base_same_count": has_base, **said}
    return Numbers(0, size, read_of(size, element, seed=seed), **said)


def test_small_tensors_of_one_element_are_pooled_apart_with_and_without_a_base():
    def model(**arrays):
        types = {"float32": 1, "float64": 11}
        tensors = [
            tensor(name, types[array.dtype.name], array.shape, inside(9, array.tobytes()))
            for name, array in arrays.items()
        ]
        return onnx_files.model(tensors=tensors)

    a, b, c = (some_floats(count, count) for count in (20, 30, 40))
    d = some_floats(50, 50).astype("<f8")
    base = model(a=a, c=c)
    new_a, new_c = trained_on(a, 1), trained_on(c, 2)
    target = model(a=new_a, b=b, c=new_c, d=d)
    parts = laid_out(target, base).parts
    found, places = gathered(parts)
    assert [(pool.element, pool.has_base) for pool in found] == [
        (F32, True),
        (F32, False),
        (F64, False),
    ]
    names = {parts[place].read.segment.key[-1]: pool for place, pool in places.items()}
    assert names == {"a": 0, "b": 1, "c": 0, "d": 2}
    with_base, without, _ = (pool.source() for pool in found)
    assert with_base.values.tobytes() == new_a.tobytes() + new_c.tobytes()
    assert with_base.base is not None
    assert with_base.base.tobytes() == a.tobytes() + c.tobytes()
    assert (without.values.tobytes(), without.base) == (b.tobytes(), None)


@pytest.mark.parametrize(
    "part, is_gathered",
    [
        pytest.param(small(MAX_GATHERED_OP), True, id="as large as may be"),
        pytest.param(small(MAX_GATHERED_OP + 4), False, id="larger"),
        pytest.param(small(80, has_base=True), True, id="with a base"),
        pytest.param(
            small(80, has_base=True, base_same_count=False), False, id="with a base of other count"
        ),
        pytest.param(small(80, ensemble=0), False, id="of trees"),
        pytest.param(Numbers(0, 100, read_of(80, F32, forms.TAGGED)), False, id="with tags"),
        pytest.param(Numbers(0, 30, read_of(80, I64, forms.VARINT)), False, id="of varints"),
        pytest.param(HeldColumn(0, 80, 0, read_of(80, I64)), False, id="features"),
        pytest.param(Plain(0, 80), False, id="plain"),
        pytest.param(Same(0, 80, 0), False, id="a copy"),
    ],
)
def test_only_a_small_column_of_bytes_is_gathered_whatever_is_around_it(part, is_gathered):
    first, last = small(80, seed=1), small(80, seed=2)
    found, places = gathered([first, part, last])
    assert (1 in places) == is_gathered
    assert places[0] == places[2]
    assert sum(len(pool.reads) for pool in found) == 2 + is_gathered


def test_what_goes_beyond_the_budget_of_all_pools_stays_alone(monkeypatch):
    """Whatever its pool is; a smaller column behind it may still fit."""
    monkeypatch.setattr(pools, "MAX_GATHERED", 1_000)
    sizes = [(600, F32), (500, F32), (396, U8), (8, F32), (4, F32), (1, U8)]
    assert gathered([small(*each) for each in sizes])[1].keys() == {0, 2, 4}


def test_a_decoder_takes_all_that_is_gathered_of_a_file_of_very_many_small_columns():
    parts = [small(MAX_GATHERED_OP, element) for element in (F32, I64)] * 40
    found, places = gathered(parts)
    assert list(places) == list(range(MAX_GATHERED // MAX_GATHERED_OP))
    bytes_of = [pool.elements * ELEMENTS[pool.element].itemsize for pool in found]
    assert sum(bytes_of) == MAX_GATHERED


def test_there_are_no_more_pools_than_a_payload_may_name():
    """Columns of the kinds that have one still join."""
    parts = [small(80, *kind, seed=number) for number, kind in enumerate([*KINDS, *KINDS])]
    found, places = gathered(parts)
    assert [(pool.element, pool.has_base) for pool in found] == KINDS[:MAX_POOLS]
    first = {place: place for place in range(MAX_POOLS)}
    assert places == first | {place + len(KINDS): number for place, number in first.items()}


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 40)), max_size=40))
def test_the_elements_of_a_pool_are_those_of_its_columns_in_their_order(drawn):
    parts = [
        small(count * ELEMENTS[element].itemsize, element, has_base, seed=number)
        for number, ((element, has_base), count) in enumerate(drawn)
    ]
    found, places = gathered(parts)
    assert len({(pool.element, pool.has_base) for pool in found}) == len(found) <= MAX_POOLS
    assert set(places.values()) == set(range(len(found)))
    for number, pool in enumerate(found):
        own = [parts[place] for place, other in sorted(places.items()) if other == number]
        source = pool.source()
        assert source.element == ELEMENTS[pool.element]
        assert source.values.tobytes() == b"".join(part.read.values.tobytes() for part in own)
        assert len(source.values) == pool.elements
        assert source.same_count == pool.has_base == (source.base is not None)
        if source.base is not None:
            bases = [part.base for part in own if part.base is not None]
            assert source.base.tobytes() == b"".join(base.values.tobytes() for base in bases)
