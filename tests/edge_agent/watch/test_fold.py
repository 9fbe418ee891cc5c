import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.watch.fold import (
    FeatureFold,
    answer_rows,
    class_counts,
    confidence_counts,
    feature_rows,
)
from protocol.members import Contract, Feature, TensorSpec

numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
edge_lists = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8, unique=True
).map(lambda edges: tuple(sorted(edges)))


def feature(edges: tuple[float, ...]) -> Feature:
    return Feature("f", edges, (0,) * (len(edges) + 3))


def obvious_slot(edges: tuple[float, ...], value: float) -> int:
    """What the profile's definition says, read aloud."""
    if math.isnan(value):
        return len(edges) + 2
    if value == math.inf:
        return len(edges) + 1
    return sum(edge <= value for edge in edges)


@given(
    st.integers(1, 4).flatmap(
        lambda columns: st.tuples(
            st.lists(edge_lists, min_size=columns, max_size=columns),
            st.lists(
                st.lists(numbers, min_size=columns, max_size=columns), min_size=0, max_size=20
            ),
        )
    )
)
def test_every_value_is_counted_in_the_slot_that_the_profile_defines(table):
    edges, rows = table
    if any(len({e + 0.0 for e in each}) < len(each) for each in edges):
        return
    fold = FeatureFold([feature(each) for each in edges])
    counts = fold.split(fold(np.array(rows, np.float32).reshape(len(rows), len(edges))))
    for column, each in enumerate(edges):
        expected = Counter(obvious_slot(each, row[column]) for row in rows)
        assert counts[column] == tuple(expected[slot] for slot in range(len(each) + 3))


known = st.integers(0, 64).map(lambda count: tuple(f"word {n}" for n in range(count)))


@given(st.data(), st.lists(st.one_of(known, edge_lists), min_size=1, max_size=4))
def test_every_value_is_in_the_slot_the_profile_defines_for_words_among_numbers(data, kinds):
    features = [
        Feature("w", counts=(0,) * (len(kind) + 2), kind="words", words=kind)
        if not kind or isinstance(kind[0], str)
        else feature(kind)
        for kind in kinds
    ]
    if any(len({e + 0.0 for e in each.edges}) < len(each.edges) for each in features):
        return
    values = [
        st.integers(0, each.slots - 1).map(float) if each.kind == "words" else numbers
        for each in features
    ]
    rows = data.draw(st.lists(st.tuples(*values), max_size=12))
    fold = FeatureFold(features)
    assert fold.size == sum(each.slots for each in features)
    counts = fold.split(fold(np.array(rows, np.float32).reshape(len(rows), len(features))))
    for column, each in enumerate(features):
        expected = Counter(
            int(row[column]) if each.kind == "words" else obvious_slot(each.edges, row[column])
            for row in rows
        )
        assert counts[column] == tuple(expected[slot] for slot in range(each.slots))


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 255, 256, 2039, 2040, 2041, 5000])
@pytest.mark.parametrize("columns", [1, 3, 500])
def test_any_number_of_rows_is_counted_as_one_by_one(rows, columns):
    rng = np.random.default_rng(rows)
    features = [feature(tuple(sorted(rng.normal(size=1 + n % 9).tolist()))) for n in range(columns)]
    table = rng.normal(size=(rows, columns)).astype(np.float32)
    table[::5] = np.nan
    table[1::7] = np.inf
    fold = FeatureFold(features)
    counts = fold.split(fold(table))
    for each, found, values in zip(features, counts, table.T, strict=True):
        known = [*np.array(each.edges, np.float32), np.inf, np.nan]
        slots = np.searchsorted(known, values, side="right")
        slots[np.isnan(values)] = len(each.edges) + 2
        assert found == tuple(np.bincount(slots, minlength=each.slots).tolist())
    assert fold.split(fold(np.asfortranarray(table))) == counts


def test_below_inner_above_infinite_and_nan_have_slots_of_their_own():
    fold = FeatureFold([feature((0.0, 1.0, 2.0))])
    values = [-math.inf, -5, -0.0, 0.5, 1, 2, 3, math.inf, math.nan]
    counts = fold.split(fold(np.array(values, np.float32)[:, None]))
    assert counts == ((2, 2, 1, 2, 1, 1),)


def test_double_precision_inputs_meet_edges_in_single_precision():
    # 0.1 as float32 is larger than 0.1 as float64: compared in mixed precision, the edge itself
    # would be counted below its own bin.
    fold = FeatureFold([feature((0.1, 0.2))])
    rows = feature_rows(np.array([[0.1], [0.2]], np.float64), 2)
    assert fold.split(fold(rows)) == ((0, 1, 1, 0, 0),)


def test_doubles_beyond_single_precision_are_infinite():
    fold = FeatureFold([feature((0.0,))])
    rows = feature_rows(np.array([[1e300], [-1e300]], np.float64), 2)
    assert fold.split(fold(rows)) == ((1, 0, 1, 0),)


def test_rows_are_flattened_in_c_order():
    image = np.arange(12, dtype=np.int64).reshape(2, 2, 3)
    assert feature_rows(image, 2).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


PROBABILITIES = Contract(
    inputs=(TensorSpec("x", "FP32", (-1, 1)),),
    outputs=(TensorSpec("p", "FP32", (-1, 3), role="probabilities"),),
    classes=("a", "b", "c"),
)
LABEL = Contract(
    inputs=(TensorSpec("x", "FP32", (-1, 1)),),
    outputs=(TensorSpec("y", "INT64", (-1,), role="label"),),
    classes=("0", "1", "7"),
)
NAMES = Contract(
    inputs=(TensorSpec("x", "FP32", (-1, 1)),),
    outputs=(TensorSpec("y", "BYTES", (-1,), role="label"),),
    classes=("cat", "dog"),
)


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), max_size=30))
def test_confidence_is_the_largest_probability_in_twenty_equal_bins(rows):
    if not rows:
        return
    answers = answer_rows(PROBABILITIES, {"p": np.array(rows, np.float32)}, len(rows))
    expected = Counter(min(int(max(row) * 20), 19) for row in rows)
    assert confidence_counts(answers).tolist() == [expected[slot] for slot in range(20)]
    places = Counter(row.index(max(row)) for row in rows)
    assert class_counts(answers, 3).tolist() == [places[place] for place in range(3)]


@pytest.mark.parametrize(
    "row, confidence, classes",
    [
        pytest.param([0, 0, 1], {19: 1}, [0, 0, 1], id="certain is in the last bin"),
        pytest.param([0, 0, 0], {0: 1}, [1, 0, 0], id="nothing is in the first"),
        pytest.param([0.2, math.nan, 0.1], {}, [0, 0, 0], id="NaN is in none"),
        pytest.param([-0.5, -2, -3], {0: 1}, [1, 0, 0], id="negative is clipped"),
        pytest.param([0, 4, 0], {19: 1}, [0, 1, 0], id="above one is clipped"),
    ],
)
def test_odd_probabilities_are_counted_without_failing(row, confidence, classes):
    answers = answer_rows(PROBABILITIES, {"p": np.array([row], np.float32)}, 1)
    expected = [confidence.get(slot, 0) for slot in range(20)]
    assert confidence_counts(answers).tolist() == expected
    assert class_counts(answers, 3).tolist() == classes


def test_labels_are_counted_by_their_value_where_there_are_no_probabilities():
    answers = answer_rows(LABEL, {"y": np.array([7, 7, 1, 3], np.int64)}, 4)
    assert class_counts(answers, 3).tolist() == [0, 1, 2]
    assert confidence_counts(answers).sum() == 0
    answers = answer_rows(NAMES, {"y": np.array(["dog", b"cat", "dog"], object)}, 3)
    assert class_counts(answers, 2).tolist() == [1, 2]


def test_outputs_of_an_unexpected_form_count_nothing():
    answers = answer_rows(PROBABILITIES, {"p": np.zeros(5, np.float32)}, 2)
    assert confidence_counts(answers).sum() == class_counts(answers, 3).sum() == 0
    answers = answer_rows(LABEL, {"y": np.zeros(5, np.int64)}, 2)
    assert class_counts(answers, 3).sum() == 0
