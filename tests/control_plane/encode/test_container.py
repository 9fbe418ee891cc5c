"""What a layout says is what a decoder makes of the body."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import load_from_string

from coding import decoding, ops, streams, table
from coding.limits import MAX_TABLE
from coding.varint import Reader
from control_plane.encode import container
from control_plane.encode.layout import Layout, Same, lay_out
from control_plane.encode.search import Effort
from control_plane.encode.segments import find
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_LZMA, FEATURE_SEGMENTS, MAX_BLOCK, Header
from tests.control_plane.encode.test_whole import Held
from tests.fakes import onnx_files as onnx

QUICK = Effort(3, lzma=False, refine=1)


def quiet(_done):
    pass


def written(target, base=None, effort=QUICK, layout=None, tell=quiet, workers=1):
    layout = layout or lay_out(target, find(target), base, () if base is None else find(base))
    sink = io.BytesIO()
    container.write(target, base, layout, sink, effort, tell, workers)
    return sink.getvalue()


def decoded(body, target, base=None):
    named = None if base is None else digest_of(base)
    header = Header(
        FEATURE_SEGMENTS | FEATURE_LZMA, named, digest_of(target), len(target), MAX_BLOCK
    )
    held = None if base is None else Held(base)
    return b"".join(decoding.blocks(io.BytesIO(body), header, held))


def table_of(body, target, base=b""):
    packed = streams.read_open(Reader(body), MAX_TABLE, lzma=True)
    return table.unpack(packed, len(target), len(base))


def tree_columns(body, target, base=b""):
    return [op for op in table_of(body, target, base).ops if isinstance(op, ops.Column)]


@settings(max_examples=12)
@given(onnx.models(), onnx.models())
def test_generated_models_round_trip_alone_and_on_top_of_another(one, other):
    target, base = one.SerializeToString(), other.SerializeToString()
    if target:
        assert decoded(written(target), target) == target
    if target and base:
        assert decoded(written(target, base), target, base) == target


@settings(max_examples=5)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 4), st.booleans())
def test_forests_round_trip_alone_and_on_top_of_another(trees, others, classes, breadth_first):
    target = onnx.forest(
        onnx.some_trees(trees, 1), classes=classes, breadth_first=breadth_first, first_tree=3
    )
    assert decoded(written(target), target) == target
    base = onnx.forest(onnx.some_trees(others + 1, 2), 1, classes=classes)
    assert decoded(written(target, base), target, base) == target


@pytest.mark.parametrize("data", [b"x", bytes(9_000), np.random.default_rng(2).bytes(300_000)])
def test_bytes_without_a_meaning_round_trip(data):
    assert decoded(written(data), data) == data
    assert decoded(written(data, data[:-1] + b"y"), data, data[:-1] + b"y") == data


def test_small_tensors_are_coded_together():
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(each).astype("<f4") for each in range(20, 40)]
    base, target = onnx.weights(*arrays), onnx.weights(*(onnx.trained_on(a, 2) for a in arrays))
    body = written(target, base)
    told = table_of(body, target, base)
    assert len(told.pools) == 1
    assert sum(isinstance(op, ops.Gathered) for op in told.ops) > 15
    assert decoded(body, target, base) == target


def test_thresholds_that_come_again_are_told_as_ranks_in_a_set():
    trees = onnx.some_trees(60, 1, depth=7)
    target, base = onnx.forest(trees, 1, features=4), onnx.forest(trees[:50], 2, features=4)
    alone, on_base = written(target), written(target, base)
    assert [each for each in tree_columns(alone, target) if each.value_set is not None]
    assert table_of(alone, target).sets[0].base is None
    assert any(each.base for each in table_of(on_base, target, base).sets)
    assert decoded(alone, target) == target
    assert decoded(on_base, target, base) == target


def test_a_set_of_features_that_nobody_keeps_has_the_zeros_of_the_base_s_leaves():
    trees = onnx.some_trees(6, 31, depth=4)
    base, target = (onnx.forest(trees, each, features=1) for each in (2, 1))
    body = written(target, base)
    (told,) = table_of(body, target, base).sets
    assert told.ensemble is None
    assert told.base is not None
    assert decoded(body, target, base) == target


def test_trees_whose_numbers_are_packed_round_trip_on_top_of_such_trees():
    """Writers of proto3 pack them; in a base devices find features only behind tags."""
    trees = onnx.some_trees(30, 1)
    old, new = packed(onnx.forest(trees[:25], 1)), packed(onnx.forest(trees, 1))
    for base in (None, old):
        assert decoded(written(new, base), new, base) == new


def packed(model):
    """A forest with one field for all numbers of an attribute, not one for each."""
    (trees,) = load_from_string(model).graph.node
    attributes = []
    for each in trees.attribute:
        numbers = onnx.inside(8, b"".join(map(onnx.varint, each.ints))) if each.ints else b""
        floats = onnx.inside(7, np.array(each.floats, "<f4").tobytes()) if each.floats else b""
        strings = b"".join(onnx.inside(9, string) for string in each.strings)
        attributes.append(onnx.attribute(each.name, numbers + floats + strings))
    return onnx.model([onnx.node(trees.op_type, "label", *attributes)])


def test_leaf_values_of_pure_leaves_are_grouped():
    target = onnx.sklearn_forest(10)
    assert [each for each in tree_columns(written(target), target) if each.grouped]


def test_progress_ends_with_the_whole_file_and_never_goes_back():
    target = onnx.forest(onnx.some_trees(10, 1))
    told: list[int] = []
    written(target, tell=told.append)
    assert told == sorted(told)
    assert 0.5 * len(target) < told[-1] <= len(target)


def test_the_body_does_not_depend_on_the_number_of_workers():
    target = onnx.weights(onnx.some_floats(350_000, 1))
    assert written(target, workers=1) == written(target, workers=4)


def test_a_layout_of_too_many_parts_is_refused():
    data = bytes(20_000)
    parts = tuple(Same(at, at + 2, 0) for at in range(0, 20_000, 2))
    with pytest.raises(ValueError, match="10,000 parts"):
        written(data, data, layout=Layout(parts))


def test_a_layout_that_does_not_cover_its_file_is_refused():
    data = bytes(20_000)
    with pytest.raises(ValueError, match="19,000 of 20,000"):
        written(data, data, layout=Layout((Same(0, 19_000, 0),)))
