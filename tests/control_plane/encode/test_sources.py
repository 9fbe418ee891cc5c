"""What is known of a column is what the file and its base say, and where the base says it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from coding import columns
from coding.elements import ELEMENTS, F32, U8, U16
from coding.forms import BYTES, STRINGS, TAGGED
from control_plane.encode.ensembles import ensembles
from control_plane.encode.layout import HeldColumn, Numbers
from control_plane.encode.segments import find
from control_plane.encode.sources import Sources, base_column, base_ensemble
from tests.control_plane.encode.sure import column
from tests.control_plane.encode.test_layout import laid_out
from tests.control_plane.encode.test_whole import Held
from tests.fakes import onnx_files
from tests.fakes.onnx_files import attribute, forest, inside, node, some_floats, some_trees, walk

TREES = some_trees(8, 3)
OLD, NEW = forest(TREES[:6], 1, classes=3), forest(TREES, 2, classes=3, features=20)
# Features are not held where a leaf has one.
UNHELD = forest(TREES, 3, change={"nodes_featureids": (walk(TREES[0])[0].index(True), 3)})


def said(model, name, number=0):
    """An attribute of a node, as onnx reads it."""
    every = onnx.load_from_string(model).graph.node[number].attribute
    (found,) = (each for each in every if each.name == name)
    return np.array(onnx.helper.get_attribute_value(found))


def leaves(model, number=0):
    return said(model, "nodes_modes", number) == b"LEAF"


def branch_features(model, number=0):
    return said(model, "nodes_featureids", number)[~leaves(model, number)]


def floats(model, name):
    return said(model, name).astype("<f4").tobytes()


def both(one, other):
    """Two forests in one file."""
    joined, second = (onnx.load_from_string(model) for model in (one, other))
    second.graph.node[0].output[0] = "second"
    joined.graph.node.extend(second.graph.node)
    return joined.SerializeToString()


def known(target, base=None):
    """`(sources, what is told of each column by its name, those of one name in order)`."""
    layout = laid_out(target, base)
    found: dict[str, list[Numbers | HeldColumn]] = {}
    for part in layout.parts:
        if isinstance(part, Numbers | HeldColumn):
            found.setdefault(part.read.segment.key[-1], []).append(part)
    return Sources(layout), found


def tensor(seed):
    return onnx_files.weights(some_floats(60, seed))


def strings(name):
    return onnx_files.model([node("Op", "y", attribute("s", inside(9, name) * 30))])


def tagged(seed, count=60):
    run = b"".join(b"\x3d" + each.tobytes() for each in some_floats(count, seed))
    return onnx_files.model([node("Op", "y", attribute("f", run))])


@pytest.mark.parametrize(
    "target, base, kind, names, same_count",
    [
        (tensor(1), tensor(2), (BYTES, F32, 0), (), True),
        (tagged(1), tagged(2), (TAGGED, F32, 0x3D), (), True),
        (tagged(1), tagged(2, 70), (TAGGED, F32, 0x3D), (), False),
        (strings(b"b"), strings(b"a"), (STRINGS, U8, 0x4A), (b"a", b"b"), True),
    ],
    ids=["tensor", "floats", "another count", "strings"],
)
def test_a_column_outside_of_trees_has_its_kind_and_its_base(target, base, kind, names, same_count):
    sources, found = known(target, base)
    ((part,),) = found.values()
    source = sources.numbers(part)
    assert (source.form, source.element.code, source.tag) == kind
    assert source.values is part.read.values
    assert (source.leaves, source.group, source.features) == (None, 0, None)
    assert source.base is part.base.values
    assert (source.names, source.same_count) == (names, same_count)


@pytest.mark.parametrize("base", [None, OLD, forest(TREES, 5, classes=3)])
def test_leaf_values_are_told_in_groups_and_thresholds_without_leaves(base):
    sources, found = known(NEW, base)
    values, thresholds = (
        sources.numbers(found[name][0]) for name in ("class_weights", "nodes_values")
    )
    assert values.values.tobytes() == floats(NEW, "class_weights")
    assert (values.group, values.leaves, values.base_leaves, values.features) == (3, *[None] * 3)
    assert thresholds.values.tobytes() == floats(NEW, "nodes_values")
    assert thresholds.group == 0
    assert np.array_equal(thresholds.leaves, leaves(NEW))
    assert np.array_equal(thresholds.features, said(NEW, "nodes_featureids"))
    # Not even of as many nodes: others of them may be leaves.
    assert not thresholds.same_count
    if base is None:
        assert (values.base, thresholds.base, thresholds.base_leaves) == (None, None, None)
    else:
        assert values.base.tobytes() == floats(base, "class_weights")
        assert values.same_count == (len(values.base) == len(values.values))
        assert thresholds.base.tobytes() == floats(base, "nodes_values")
        assert np.array_equal(thresholds.base_leaves, leaves(base))


@pytest.mark.parametrize(
    "base, has_base", [(None, False), (OLD, True), (UNHELD, False)], ids=["none", "held", "not"]
)
def test_features_are_those_of_branches_and_start_from_those_of_the_base(base, has_base):
    sources, found = known(NEW, base)
    (held,) = found["nodes_featureids"]
    assert sources.held(0) is held
    source = sources.features(held)
    assert (source.element, source.values.dtype) == (ELEMENTS[U16], "<u2")
    assert np.array_equal(source.values, branch_features(NEW))
    assert (source.base is not None, source.same_count) == (has_base, False)
    if source.base is not None:
        assert np.array_equal(source.base, branch_features(base))
        assert source.base.dtype == "<u2"


def test_each_of_two_ensembles_has_its_own_space_and_the_first_of_the_base_before_it():
    few, other_few = (forest(TREES[:4], seed, features=9) for seed in (5, 6))
    target, base = both(few, NEW), both(other_few, OLD)
    sources, found = known(target, base)
    spaces = [int(said(target, "nodes_featureids", number).max()) + 1 for number in (0, 1)]
    assert spaces[0] < spaces[1]
    assert [sources.space(number) for number in (0, 1, 2)] == [*spaces, 0]
    for number, held in enumerate(found["nodes_featureids"]):
        source = sources.features(held)
        assert np.array_equal(source.values, branch_features(target, number))
        assert np.array_equal(source.base, branch_features(base, 0))


def test_features_that_are_not_held_have_no_space():
    sources, found = known(UNHELD, NEW)
    assert (sources.held(0), sources.space(0)) == (None, 0)
    source = sources.numbers(found["nodes_values"][0])
    assert source.features is None
    assert np.array_equal(source.leaves, leaves(UNHELD))


@settings(max_examples=40)
@given(onnx_files.models())
def test_a_decoder_finds_a_column_of_the_base_where_it_is_said_to_lie(made):
    data = made.SerializeToString()
    for segment in find(data):
        read = column(data, segment)
        placed = base_column(read)
        assert (placed.start, placed.end) == (read.start, read.end)
        found = np.concatenate(list(columns.parts(Held(data), placed)))
        assert np.array_equal(found, read.values)


@pytest.mark.parametrize("model, held", [(NEW, True), (UNHELD, False)], ids=["held", "not held"])
def test_a_decoder_finds_the_trees_of_the_base_where_they_are_said_to_lie(model, held):
    (ensemble,) = ensembles([column(model, segment) for segment in find(model)])
    placed = base_ensemble(ensemble)
    assert placed.modes.names == (b"LEAF",)
    flags = columns.flags_of(Held(model), placed)
    assert np.array_equal(flags.leaves(0, flags.nodes), leaves(model))
    assert (placed.features is not None) == held
    if placed.features is not None:
        found = np.concatenate(list(columns.of_branches(Held(model), placed.features, flags)))
        assert np.array_equal(found, branch_features(model))
