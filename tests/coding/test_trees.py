"""Columns of trees follow from their leaves, as a naive walk says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding import trees
from coding.elements import ELEMENTS, F32, F64
from coding.limits import MAX_TREE
from coding.sets import ValueSet
from coding.trees import Flags, Shape

LEAF = True
tree = st.recursive(st.just(LEAF), lambda each: st.tuples(each, each), max_leaves=30)


def walk(root):
    """`(leaf, true child, false child)` of each node in pre-order."""
    nodes: list[tuple[int, int, int]] = []

    def go(node):
        at = len(nodes)
        nodes.append((1, 0, 0))
        if node is not LEAF:
            nodes[at] = (0, go(node[0]), go(node[1]))
        return at

    go(root)
    return nodes


@given(st.lists(tree, min_size=1, max_size=6), st.integers(1, 3), st.integers(-5, 5))
def test_trees_in_pre_order_derive_as_a_naive_walk_says(forest, group, first):
    walked = [walk(each) for each in forest]
    nodes = [(first + t, i, *node) for t, each in enumerate(walked) for i, node in enumerate(each)]
    leaves = [node for node in nodes if node[2] for _ in range(group)]
    expected = {
        trees.NODE_TREES: [node[0] for node in nodes],
        trees.NODE_IDS: [node[1] for node in nodes],
        trees.TRUE_IDS: [node[3] for node in nodes],
        trees.FALSE_IDS: [node[4] for node in nodes],
        trees.LEAF_TREES: [node[0] for node in leaves],
        trees.LEAF_NODES: [node[1] for node in leaves],
        trees.LEAF_IDS: list(range(group)) * (len(leaves) // group),
        trees.MODES: [node[2] for node in nodes],
    }
    shape = Shape(Flags(np.array([node[2] for node in nodes], np.uint8)), group)
    for column, values in expected.items():
        parts = list(shape.derived(column, first, 7))
        assert np.concatenate(parts).view("<i8").tolist() == values
        assert max(map(len, parts)) <= 7


def test_a_forest_larger_than_what_is_looked_at_at_once_is_derived():
    one = [0, 0, 1, 1, 1]
    count = MAX_TREE // 2
    shape = Shape(Flags(np.array(one * count, np.uint8)))
    ids = np.concatenate(list(shape.derived(trees.FALSE_IDS)))
    assert ids.tolist() == [4, 3, 0, 0, 0] * count
    numbers = np.concatenate(list(shape.derived(trees.NODE_TREES)))
    assert numbers.tolist() == [t for t in range(count) for _ in one]


@pytest.mark.parametrize(
    "leaves",
    [[0], [0, 1], [1, 0, 1], [0] * (MAX_TREE // 2 + 1) + [1] * (MAX_TREE // 2 + 2)],
    ids=["a branch", "one child", "the last is open", "a tree too large"],
)
def test_trees_that_do_not_end_are_refused(leaves):
    with pytest.raises(ValueError):
        list(Shape(Flags(np.array(leaves, np.uint8))).trees())


def test_flags_are_joined_of_whole_bytes_and_read_anywhere():
    leaves = np.random.default_rng(1).integers(0, 2, 99).astype(np.uint8)
    flags = Flags.joined(iter([leaves[:64], leaves[64:]]), 99)
    for start, stop in ((0, 99), (3, 50), (64, 65), (98, 99), (5, 5)):
        assert (flags.leaves(start, stop) == leaves[start:stop]).all()
    assert flags.leaf_count() == leaves.sum()
    with pytest.raises(ValueError):
        Flags.joined(iter([leaves[:3], leaves[3:]]), 99)
    with pytest.raises(ValueError):
        Flags.joined(iter([leaves]), 100)


@pytest.mark.parametrize("code", [F32, F64])
@given(data=st.data())
def test_ranks_of_a_value_set_lead_back_to_the_values(code, data):
    element = ELEMENTS[code]
    size = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(size)
    values = rng.integers(0, 1 << 62, size).astype(element.dtype)[rng.integers(0, size, 2 * size)]
    features = rng.integers(0, 5, len(values)).astype("<u2")
    for held in (None, features):
        values_of = ValueSet(element, values[:size], None if held is None else held[:size], 5)
        ranks, hits = values_of.ranks_of(values, held)
        assert hits[:size].all()
        some = None if held is None else held[hits]
        assert (values_of.values_at(ranks[hits], some) == values[hits]).all()
        widths = values_of.widths(some, int(hits.sum()))
        assert ((ranks[hits].astype(np.int64) >> widths) == 0).all()


def test_a_rank_or_feature_without_a_value_is_refused():
    values = ValueSet(ELEMENTS[F32], np.array([1, 2], "<u4"), np.array([0, 0], "<u2"), 2)
    for ranks, features in (([2], [0]), ([0], [1])):
        with pytest.raises(ValueError):
            values.values_at(np.array(ranks, "<u4"), np.array(features, "<u2"))
    with pytest.raises(ValueError):
        values.widths(np.array([1], "<u2"), 1)
