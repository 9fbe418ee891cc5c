"""Every byte of a file is told once: as in the base, as numbers, derived, or plain."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding import forms
from coding.limits import MAX_LOADED
from coding.trees import MODES, Flags, Shape
from control_plane.encode.layout import (
    LARGEST_PLAIN,
    DerivedColumn,
    HeldColumn,
    Layout,
    Numbers,
    Plain,
    Same,
    lay_out,
)
from control_plane.encode.segments import Segment, find
from tests.fakes import onnx_files
from tests.fakes.onnx_files import forest, inside, node, some_floats, some_trees, trained_on

A, B, C, D = (some_floats(3_000, seed) for seed in range(4))
FORESTS = some_trees(8, 3)


def laid_out(target, base=None):
    layout = lay_out(target, find(target), base, () if base is None else find(base))
    assert rebuilt(layout, target, base) == target
    return layout


def rebuilt(layout: Layout, target: bytes, base: bytes | None) -> bytes:
    """The file as a decoder would write it, with the rules of what a part may start from."""
    out = []
    at = 0
    for part in layout.parts:
        assert part.start == at < part.end
        at = part.end
        if isinstance(part, Plain):
            out.append(target[part.start : part.end])
        elif isinstance(part, Same):
            assert base is not None
            out.append(base[part.base_start : part.base_start + part.end - part.start])
        else:
            out.append(written(part.read, values_of(layout, part)))
    return b"".join(out)


def values_of(layout, part):
    if isinstance(part, Numbers):
        check_base(layout, part)
        return part.read.values
    trees = layout.ensembles[part.ensemble]
    if isinstance(part, HeldColumn):
        assert part.read is trees.features
        return part.read.values
    assert part.column != MODES or len(part.read.names) == 2
    shape = Shape(Flags(trees.leaves), trees.group)
    return np.concatenate(list(shape.derived(part.column, part.first)))


def check_base(layout, part):
    masked = part.ensemble is not None and part.role != "leaf value"
    if masked:
        assert not part.read.values[layout.ensembles[part.ensemble].leaves].any()
    if part.base is None:
        assert (part.base_same_count, part.base_ensemble) == (False, None)
        return
    assert part.base.kind == part.read.kind
    assert part.base.names == part.read.names
    if masked:
        assert not part.base_same_count
        assert len(part.base.values) == len(layout.base_ensembles[part.base_ensemble].leaves)
    else:
        assert part.base_same_count == (len(part.base.values) == len(part.read.values))


def written(read, values):
    return forms.to_bytes(values, read.segment.form, read.element, read.segment.tag, read.names)


def kinds(layout):
    return [type(part).__name__ for part in layout.parts]


def columns_of(layout):
    return {part.read.segment.key[-1]: part for part in layout.parts if hasattr(part, "read")}


@settings(max_examples=30)
@given(onnx_files.models(), onnx_files.models())
def test_a_layout_covers_every_byte_once(target, base):
    """Also of files that have nothing in common."""
    laid_out(target.SerializeToString(), base.SerializeToString())


@given(st.lists(st.binary(max_size=90), max_size=8), st.lists(st.integers(0, 7), max_size=8))
def test_files_without_segments_are_copied_where_they_are_equal(pieces, order):
    base = b"".join(pieces)
    laid_out(b"".join(pieces[place] for place in order if place < len(pieces)), base)


@given(st.binary(max_size=300), st.data())
def test_segments_that_lie_are_left_out(data, draw):
    start, end = draw.draw(st.integers(-5, 400)), draw.draw(st.integers(-5, 400))
    segment = Segment(start, end, forms.TAGGED, 10, 0x3D, ("T", "w"), ())
    layout = lay_out(data, [segment], data[::-1], [segment])
    assert rebuilt(layout, data, data[::-1]) == data


def test_the_same_file_is_one_copy():
    model = onnx_files.weights(A, B, C)
    assert laid_out(model, model).parts == (Same(0, len(model), 0),)


def test_a_file_without_a_base_has_its_numbers_and_what_is_between():
    assert kinds(laid_out(onnx_files.weights(A, B))) == ["Plain", "Numbers"] * 2 + ["Plain"]


def test_an_edit_of_the_graph_leaves_one_literal_between_two_copies():
    nodes = [node(f"Op{number}", f"y{number}") for number in range(50)]
    other = [*nodes[:20], node("Other", "y20"), *nodes[21:]]
    tensors = [onnx_files.tensor("w", 1, [3000], inside(9, A.tobytes()))]
    base = onnx_files.model(nodes, tensors)
    target = onnx_files.model(other, tensors)
    layout = laid_out(target, base)
    assert kinds(layout)[-3:] == ["Same", "Plain", "Same"]
    assert len(layout.parts) <= 5
    assert sum(part.end - part.start for part in layout.parts if isinstance(part, Plain)) < 20


def test_a_file_that_shifted_by_18_bytes_still_matches():
    base = onnx_files.weights(A, B, C)
    target = onnx_files.weights(A, trained_on(B, 1), C, head="eighteen more byte")
    assert len(target) == len(base) + 18
    layout = laid_out(target, base)
    (numbers,) = (part for part in layout.parts if isinstance(part, Numbers))
    assert numbers.base_same_count
    assert numbers.base is not None
    assert numbers.start - numbers.base.start == 18
    assert sum(isinstance(part, Same) for part in layout.parts) == 2


def test_gaps_between_numbers_stay_whole():
    """A copy for each would cost more than the bytes, packed with the base before them."""
    base = onnx_files.weights(A, B, C)
    layout = laid_out(onnx_files.weights(*(trained_on(each, 1) for each in (A, B, C))), base)
    assert kinds(layout) == ["Plain", "Numbers"] * 3 + ["Plain"]


def test_renamed_tensors_keep_their_numbers():
    base = onnx_files.weights(A, B, names=("onnx::0", "onnx::1"))
    layout = laid_out(onnx_files.weights(A, trained_on(B, 1), names=("f.zero", "f.one")), base)
    (numbers,) = (part for part in layout.parts if isinstance(part, Numbers))
    assert (numbers.role, numbers.base_same_count) == ("tensor", True)


@pytest.mark.parametrize("swapped", [False, True])
def test_moved_tensors_are_copied_from_where_they_were(swapped):
    names = ("b", "a") if swapped else ("a", "b")
    layout = laid_out(onnx_files.weights(B, A, names=names), onnx_files.weights(A, B))
    assert not any(isinstance(part, Numbers) for part in layout.parts)


def test_a_large_column_with_few_changes_is_copied_but_for_them():
    large = some_floats(100_000, 5)
    changed = large.copy()
    changed[40_000:40_010] += 1
    layout = laid_out(onnx_files.weights(changed), onnx_files.weights(large))
    assert kinds(layout) == ["Same", "Numbers", "Same"]
    assert layout.parts[1].end - layout.parts[1].start <= 8192


def test_a_column_with_changes_everywhere_stays_whole():
    large = some_floats(100_000, 5)
    changed = large.copy()
    changed[::2_000] += 1
    layout = laid_out(onnx_files.weights(changed), onnx_files.weights(large))
    assert kinds(layout) == ["Plain", "Numbers", "Plain"]


def test_long_bytes_without_a_meaning_are_a_column():
    data = random.Random(1).randbytes(LARGEST_PLAIN + 1)
    assert kinds(laid_out(data)) == ["Numbers"]
    other = random.Random(2).randbytes(LARGEST_PLAIN + 500)
    (part,) = laid_out(data, other).parts
    assert (part.read.element.itemsize, part.role) == (1, "other")
    assert (part.base.start, part.base.end, part.base_same_count) == (0, len(other), False)


def test_a_file_of_very_many_columns_stays_within_what_a_payload_can_say():
    tensors = [
        onnx_files.tensor(f"w{place}", 1, [20], inside(9, some_floats(20, place).tobytes()))
        for place in range(9_000)
    ]
    assert kinds(laid_out(onnx_files.model(tensors=tensors))) == ["Numbers"]


def test_a_forest_is_told_by_its_shape():
    layout = laid_out(forest(FORESTS, 1))
    found = columns_of(layout)
    roles = {name: part.role for name, part in found.items() if isinstance(part, Numbers)}
    assert roles == {
        "class_weights": "leaf value",
        "nodes_hitrates": "other",
        "nodes_values": "threshold",
    }
    assert isinstance(found["nodes_featureids"], HeldColumn)
    assert {name for name, part in found.items() if isinstance(part, DerivedColumn)} == {
        *("class_ids", "class_nodeids", "class_treeids", "nodes_falsenodeids", "nodes_modes"),
        *("nodes_nodeids", "nodes_treeids", "nodes_truenodeids"),
    }
    assert found["nodes_values"].ensemble == found["class_weights"].ensemble == 0
    assert found["nodes_modes"].read.names == (b"BRANCH_LEQ", b"LEAF")
    assert layout.base_ensembles == ()


@pytest.mark.parametrize("output", ["label", "renamed"])
def test_a_forest_that_grew_starts_from_its_base(output):
    base = forest(FORESTS, 1)
    layout = laid_out(forest([*FORESTS, *some_trees(2, 9)], 1, output=output), base)
    found = columns_of(layout)
    assert found["nodes_values"].base is not None
    assert found["nodes_values"].base_ensemble == 0
    assert found["class_weights"].base is not None
    assert len(layout.base_ensembles) == 1
    assert len(layout.base_ensembles[0].leaves) == len(found["nodes_values"].base.values)


def test_ensembles_that_no_part_names_are_not_told():
    base = forest(FORESTS, 1)
    layout = laid_out(forest(FORESTS, 1, output="another"), base)
    assert (layout.ensembles, layout.base_ensembles) == ((), ())


def test_only_as_many_elements_of_a_base_are_read_at_once():
    """Of columns whose elements have no fixed size, if there are more or fewer of them."""

    def model(count):
        run = b"".join(b"\x40" + onnx_files.varint(number * 7) for number in range(count))
        return onnx_files.model([node("Op", "y", onnx_files.attribute("n", run))])

    for count, has_base in ((MAX_LOADED, True), (MAX_LOADED + 1, False)):
        (part,) = (p for p in laid_out(model(500), model(count)).parts if isinstance(p, Numbers))
        assert (part.base is not None) == has_base


def test_strings_are_told_by_the_names_of_both_files():
    def model(*names):
        run = b"".join(inside(9, name) for name in names * 30)
        return onnx_files.model([node("Op", "y", onnx_files.attribute("s", run))])

    layout = laid_out(model(b"b", b"c"), model(b"a", b"b"))
    (part,) = (part for part in layout.parts if isinstance(part, Numbers))
    assert part.base is not None
    assert part.read.names == part.base.names == (b"a", b"b", b"c")
