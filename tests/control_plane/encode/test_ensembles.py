"""Columns of trees that follow from the shape of the trees are told by it, and only those."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding.trees import LEAF_TREES, NODE_TREES
from control_plane.encode.columns import column
from control_plane.encode.ensembles import (
    DERIVED,
    NODES_MODES,
    Derivation,
    ensembles,
    modes_in_order,
    pairs,
)
from control_plane.encode.segments import find
from tests.fakes import onnx_files
from tests.fakes.onnx_files import forest, some_trees

FORESTS = some_trees(6, 3)


def reads(model):
    return [column(model, segment) for segment in find(model)]


def only(model):
    read = reads(model)
    (found,) = ensembles(read)
    return found


def derived(found):
    names = {place: name for name, place in found.places.items()}
    return {names[place]: each.column for place, each in found.derived.items()}


@settings(max_examples=40)
@given(st.integers(4, 9), st.integers(0, 99), st.integers(4, 9), st.integers(1, 4))
def test_redundant_tree_columns_are_derived(count, seed, depth, classes):
    """Whatever trees there are: the columns are made by a walk from node to node."""
    found = only(forest(some_trees(count, seed, depth), seed, classes=classes))
    wanted = {name: number for name, number in DERIVED.items() if name in found.places}
    assert derived(found) == wanted
    assert found.group == classes


@pytest.mark.parametrize(
    "name",
    sorted(name for name in DERIVED if not name.startswith("target") and name != NODES_MODES),
)
def test_one_changed_id_makes_its_column_explicit(name):
    changed = only(forest(FORESTS, change={name: (5, 999)}))
    assert name not in derived(changed)
    others = derived(only(forest(FORESTS)))
    del others[name]
    assert derived(changed) == others


def test_the_first_tree_may_have_another_id():
    found = only(forest(FORESTS, first_tree=200))
    firsts = {each for each in found.derived.values() if each.column in (NODE_TREES, LEAF_TREES)}
    assert firsts == {Derivation(NODE_TREES, 200), Derivation(LEAF_TREES, 200)}


def test_a_breadth_first_forest_is_not_derived():
    """Its children are not; how many nodes each tree has, and which are leaves, still follows."""
    found = derived(only(forest(FORESTS, breadth_first=True)))
    everything = derived(only(forest(FORESTS)))
    assert everything.keys() - found.keys() == {"nodes_truenodeids", "nodes_falsenodeids"}


def test_a_forest_whose_last_tree_does_not_end_is_not_derived():
    found = only(forest(FORESTS, change={"nodes_modes": (-1, "BRANCH_LEQ")}))
    assert derived(found) == {}
    assert found.masked


def test_a_tree_that_is_too_large_is_not_derived(monkeypatch):
    monkeypatch.setattr("coding.trees.MAX_TREE", 20)
    assert derived(only(forest(FORESTS))) == {}


def test_masks_come_from_leaf_flags_not_from_names():
    model = forest(FORESTS)
    found = only(model)
    assert {found.places["nodes_values"], found.places["nodes_featureids"]} == found.masked
    leaf = int(np.flatnonzero(found.leaves)[3])
    other = only(forest(FORESTS, change={"nodes_values": (leaf, 0.5)}))
    assert other.masked == {found.places["nodes_featureids"]}
    assert other.features is not None
    hits = only(model.replace(b"nodes_values", b"nodes_magics"))
    assert hits.places["nodes_magics"] in hits.masked


def test_features_are_held_unless_a_leaf_has_one():
    found = only(forest(FORESTS))
    assert found.features is not None
    leaf = int(np.flatnonzero(found.leaves)[0])
    assert only(forest(FORESTS, change={"nodes_featureids": (leaf, 3)})).features is None
    assert only(forest(FORESTS, change={"nodes_featureids": (0, 70_000)})).features is None
    assert only(forest(FORESTS, change={"nodes_featureids": (0, -1)})).features is None


def test_values_of_leaves_are_told_by_their_number():
    found = only(forest(FORESTS, classes=3))
    assert found.leaf_values == {found.places["class_weights"]}
    assert found.group == 3


def test_modes_are_a_branch_and_a_leaf_in_this_order():
    read = modes_in_order(only(forest(FORESTS)))
    assert read.names == (b"BRANCH_LEQ", b"LEAF")
    assert read.values.tolist() == only(forest(FORESTS)).leaves.astype(int).tolist()


def test_modes_of_three_names_are_not_derived():
    found = only(forest(FORESTS, change={"nodes_modes": (0, "BRANCH_LT")}))
    assert NODES_MODES not in derived(found)
    assert "nodes_truenodeids" in derived(found)


def test_a_node_without_leaves_by_name_is_no_ensemble():
    assert ensembles(reads(forest(FORESTS).replace(b"LEAF", b"LOAF"))) == ()


@pytest.mark.parametrize("seed", range(3))
def test_what_skl2onnx_writes_is_derived(seed):
    found = only(onnx_files.sklearn_forest(8, seed))
    assert {"nodes_treeids", "nodes_truenodeids", "nodes_falsenodeids", "class_treeids"} <= (
        derived(found).keys()
    )
    assert found.features is not None
    assert found.places["nodes_values"] in found.masked
    assert found.leaf_values


def test_ensembles_are_paired_by_node_else_by_order():
    one, two, three = (only(forest(FORESTS, output=name)) for name in ("a", "b", "c"))
    assert pairs([one, two], [two, one]) == (1, 0)
    assert pairs([three, two], [one, two]) == (0, 1)
    assert pairs([one, two], [one]) == (0, None)
    assert pairs([], [one]) == ()
