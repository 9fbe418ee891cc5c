"""Each column starts from the column of the base that helps it most."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.encode.matching import NONE, Match, match
from control_plane.encode.segments import Key, find
from tests.control_plane.encode.sure import column
from tests.fakes import onnx_files
from tests.fakes.onnx_files import some_floats, trained_on

A, B, C = (some_floats(200, seed) for seed in range(3))
LONG = some_floats(300, 7)


def reads(*arrays, names=()):
    model = onnx_files.weights(*arrays, names=names)
    return [column(model, segment) for segment in find(model)]


def test_equal_bytes_win_over_equal_names():
    target = reads(A, B, names=("a", "b"))
    base = reads(B, A, names=("a", "b"))
    assert match(target, base) == (Match("same", 1), Match("same", 0))


def test_of_equal_bytes_those_of_the_same_name_are_taken():
    target = reads(A, A, names=("one", "two"))
    base = reads(A, A, names=("two", "one"))
    assert match(target, base) == (Match("same", 1), Match("same", 0))


def test_equal_bytes_are_taken_as_often_as_they_are_needed():
    target = reads(A, A, A, names=("one", "two", "three"))
    base = reads(A, A, names=("x", "y"))
    assert [each.base for each in match(target, base)] == [0, 1, 1]


def test_a_tensor_starts_from_that_of_its_name():
    target = reads(trained_on(A, 1), trained_on(B, 1), names=("a", "b"))
    base = reads(C, B, A, names=("c", "b", "a"))
    assert match(target, base) == (Match("alike", 2), Match("alike", 1))


def test_a_tensor_that_grew_starts_from_that_of_its_name():
    assert match(reads(LONG, names=["a"]), reads(C, A, names=("c", "a"))) == (
        Match("other count", 1),
    )


def test_a_renamed_tensor_is_found_by_its_shape_and_values():
    target = reads(trained_on(A, 1), trained_on(B, 1), names=("f.0", "f.1"))
    base = reads(LONG, B, A, names=("onnx::0", "onnx::1", "onnx::2"))
    assert match(target, base) == (Match("alike", 2), Match("alike", 1))


def test_a_renamed_tensor_with_other_values_starts_from_nothing():
    assert match(reads(A, names=["new"]), reads(B, names=["old"])) == (NONE,)


def test_a_renamed_tensor_of_another_shape_starts_from_nothing():
    square = trained_on(A, 1).reshape(10, 20)
    assert match(reads(square, names=["new"]), reads(A, names=["old"])) == (NONE,)


def test_numbers_of_another_type_are_no_base():
    wide = onnx_files.model(
        tensors=[onnx_files.tensor("a", 7, [100], onnx_files.inside(9, A.tobytes()))]
    )
    (segment,) = find(wide)
    assert match(reads(A, names=["a"]), [column(wide, segment)]) == (NONE,)


def test_columns_of_a_node_under_another_key_are_told():
    trees = onnx_files.some_trees(4, 1)
    target = onnx_files.forest(trees, 1, output="new")
    base = onnx_files.forest(trees, 2, output="old")
    read = [column(target, segment) for segment in find(target)]
    other = [column(base, segment) for segment in find(base)]
    operator = "TreeEnsembleClassifier"
    nodes: dict[Key, Key] = {("N", operator, "new"): ("N", operator, "old")}
    assert [each.base for each in match(read, other, nodes)] == list(range(len(read)))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_what_matches_can_start_from_it(target_seeds, base_seeds):
    sizes = (100, 100, 100, 150, 150, 200)
    target = reads(*(some_floats(sizes[seed], seed) for seed in target_seeds))
    base = reads(*(some_floats(sizes[seed], seed) for seed in base_seeds))
    found = match(target, base)
    assert len(found) == len(target)
    for read, each in zip(target, found, strict=True):
        assert (each.base < 0) == (each.kind == "none")
        if each.kind == "none":
            continue
        other = base[each.base]
        assert read.kind == other.kind
        assert (len(read.values) == len(other.values)) == (each.kind != "other count")
        assert (read.values.tobytes() == other.values.tobytes()) == (each.kind == "same")
    for seed, each in zip(target_seeds, found, strict=True):
        assert (seed in base_seeds) == (each.kind == "same")
