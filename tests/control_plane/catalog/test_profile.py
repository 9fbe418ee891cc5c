"""Edges and reference counts, against a slow oracle and the pitfalls of the study."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from control_plane.catalog.profile import (
    CATEGORIES,
    Wishes,
    count,
    count_words,
    make_coarse_edges,
    make_dictionary,
    make_edges,
    make_input_profile,
    make_profile,
)
from edge_agent.watch.fold import FeatureFold, answer_rows, class_counts, confidence_counts
from protocol import codec
from protocol.errors import InvalidRequest, NotUnderstood
from protocol.members import Contract, TensorSpec, member_document, pretty
from protocol.profile import Feature, Profile

FLOAT32 = st.floats(width=32)
COLUMN = hnp.arrays(np.float32, st.integers(1, 300), elements=FLOAT32)
FEW = hnp.arrays(
    np.float32, st.integers(1, 100), elements=st.sampled_from([0, -0.0, 1, 2, 3.5, math.inf])
)


def slow_slot(value: float, edges: list[float]) -> int:
    """Below 0, then one more for every edge passed, then +inf, then NaN."""
    if math.isnan(value):
        return len(edges) + 2
    if value == math.inf:
        return len(edges) + 1
    return sum(value >= edge for edge in edges)


def decile(values: list[float], tenths: int) -> float:
    """The smallest value that at least so many tenths of all values do not exceed."""
    return next(
        v for v in sorted(values) if 10 * sum(w <= v for w in values) >= tenths * len(values)
    )


@given(COLUMN | FEW)
@settings(deadline=None)
def test_reference_counts_equal_a_slow_oracle(column):
    edges = make_edges(column)
    slots = [slow_slot(float(v), [float(e) for e in edges]) for v in column]
    expected = [slots.count(slot) for slot in range(len(edges) + 3)]
    assert list(count(column, edges)) == expected
    assert sum(expected) == len(column)


@given(COLUMN | FEW)
@settings(deadline=None)
def test_edges_are_finite_and_strictly_increasing_in_float32(column):
    edges = make_edges(column)
    assert edges.dtype == np.float32
    assert 1 <= len(edges) <= 2 * CATEGORIES
    assert np.isfinite(edges).all()
    assert (np.diff(edges.astype(np.float64)) > 0).all()
    assert [float(np.float32(float(e))) for e in edges] == edges.tolist()


@given(COLUMN)
@settings(deadline=None)
def test_no_finite_row_of_the_reference_lies_outside_unless_it_is_the_largest_float(column):
    finite = column[np.isfinite(column) & (column < np.finfo(np.float32).max)]
    edges = make_edges(finite)
    counts = count(finite, edges)
    if len(finite):
        assert counts[0] == 0
        assert sum(counts[1 : len(edges)]) == len(finite)


@given(hnp.arrays(np.float64, st.integers(60, 200), elements=st.floats(-1e3, 1e3), unique=True))
@settings(deadline=None)
def test_many_values_have_the_deciles_of_the_study(column):
    narrow = column.astype(np.float32)
    if len(np.unique(narrow)) > CATEGORIES:
        values = narrow.tolist()
        last = float(np.nextafter(narrow.max(), np.float32(np.inf)))
        inner = {decile(values, tenths) for tenths in range(1, 10)}
        assert make_edges(column).tolist() == sorted({min(values), last} | inner)


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=FLOAT32))
@settings(deadline=None)
def test_coarse_edges_hold_every_row_and_no_row_begins_a_bin(column):
    edges, fine = make_coarse_edges(column), make_edges(column)
    assert 1 <= len(edges) <= 2 * CATEGORIES
    assert np.isfinite(edges).all()
    assert (np.diff(edges.astype(np.float64)) > 0).all()
    finite = column[np.isfinite(column)]
    if len(np.unique(finite)) <= CATEGORIES:
        assert edges.tolist() == fine.tolist()
    elif np.abs(finite).max() < 1e38:
        counts = count(finite, edges)
        assert (counts[0], counts[len(edges)]) == (0, 0)
        assert len(edges) <= len(fine)


def test_a_sum_in_another_order_is_in_the_same_bin():
    column = np.random.default_rng(3).gamma(2, size=5000).astype(np.float32)
    edges = make_coarse_edges(column)
    assert len(edges) == 11
    noisy = np.nextafter(column, np.float32(0))
    assert count(noisy, edges) == count(column, edges)
    assert count(noisy, make_edges(column)) != count(column, make_edges(column))


def test_each_of_a_few_values_has_its_own_bin_and_gaps_are_unseen():
    column = np.array([0, 0, 1, 1, 1], np.float32)
    edges = make_edges(column)
    assert count(column, edges) == (0, 2, 0, 3, 0, 0, 0)
    # A value between the two, which midpoints would have hidden.
    assert count(np.array([0.3], np.float32), edges) == (0, 0, 1, 0, 0, 0, 0)


def test_any_other_value_than_a_constant_is_in_a_bad_slot():
    edges = make_edges(np.full(50, 7.25))
    assert count(np.array([7.25, 7.24, 7.26, np.inf, np.nan]), edges) == (1, 1, 1, 1, 1)


def test_a_column_without_any_number_makes_every_number_new():
    edges = make_edges(np.array([np.nan, np.nan, np.inf]))
    assert count(np.array([np.nan, np.inf, -3, 3]), edges) == (1, 1, 1, 1)


def test_edges_are_made_of_float32_values_so_that_no_row_changes_its_bin():
    # 0.1 is not a float32: float64 edges would lie between the value and its own cast.
    column = np.repeat(np.linspace(0.1, 1.7, 17), 5)
    edges = make_edges(column)
    counted = count(column, edges)
    assert counted == count(column.astype(np.float32), edges)
    assert max(counted) <= 10


CONTRACT = Contract(
    (TensorSpec("x", "FP64", (-1, 2, 2)),),
    (TensorSpec("p", "FP32", (-1, 3), role="probabilities"),),
    ("a", "b", "c"),
)


@given(
    hnp.arrays(np.float64, (30, 2, 2), elements=st.floats()),
    hnp.arrays(np.float32, (30, 3), elements=st.floats(0, 1, width=32) | st.just(math.nan)),
)
@settings(deadline=None)
def test_the_profile_counts_exactly_as_a_device_does(inputs, probabilities):
    profile = make_profile(CONTRACT, {"x": inputs}, {"p": probabilities}).profile
    with np.errstate(over="ignore"):
        rows = inputs.reshape(30, -1).astype(np.float32)
    fold = FeatureFold(profile.features)
    assert fold.split(fold(rows)) == tuple(f.counts for f in profile.features)
    answers = answer_rows(CONTRACT, {"p": probabilities}, 30)
    assert profile.confidence == tuple(confidence_counts(answers).tolist())
    assert profile.classes == tuple(class_counts(answers, 3).tolist())


def test_classes_come_from_labels_where_there_are_no_probabilities():
    contract = Contract(
        (TensorSpec("x", "FP32", (-1, 1)),),
        (TensorSpec("label", "INT64", (-1,), role="label"),),
        ("3", "5"),
    )
    labels = np.array([5, 3, 5, 9])
    profile = make_profile(contract, {"x": np.zeros((4, 1))}, {"label": labels}).profile
    assert (profile.confidence, profile.classes) == ((), (1, 2))
    answers = answer_rows(contract, {"label": labels}, 4)
    assert profile.classes == tuple(class_counts(answers, 2).tolist())


@pytest.mark.parametrize("shape", [(-1, 5000), (-1, -1)])
def test_inputs_too_wide_or_of_free_width_are_not_monitored(shape):
    contract = Contract((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", (-1, 1)),))
    width = max(shape[1], 3)
    profile = make_profile(contract, {"x": np.zeros((2, width))}, {"y": np.zeros((2, 1))}).profile
    assert (profile.rows, profile.features) == (2, ())


def test_feature_names_must_be_as_many_as_columns():
    with pytest.raises(InvalidRequest, match="3 feature names for 4"):
        make_profile(CONTRACT, {"x": np.zeros((2, 2, 2))}, {"p": np.zeros((2, 3))}, ["a", "b", "c"])


def test_words_are_ordered_by_count_then_text():
    values = ["b"] * 20 + ["a"] * 20 + ["z"] * 21 + [""] * 3
    assert make_dictionary(values) == (("z", "a", "b"), 0)
    assert count_words([*values, "new"], ("z", "a", "b")) == (21, 20, 20, 1, 3)


def test_a_dictionary_has_64_words_and_none_that_is_rare_or_long():
    many = [f"w{number:03}" for number in range(70)] * 20
    words, rare = make_dictionary([*many, *["seldom"] * 19, *["é" * 65] * 30])
    assert words == tuple(f"w{number:03}" for number in range(64))
    assert rare == 1


def test_labels_make_accuracy_and_calibration():
    rng = np.random.default_rng(8)
    table = rng.dirichlet((1, 1, 1), 900).astype(np.float32)
    labels = np.array(["abc"[row.argmax()] for row in table])
    labels[:90] = "?"
    samples = {"x": rng.normal(size=(900, 2, 2))}
    made = make_profile(CONTRACT, samples, {"p": table}, labels=labels)
    assert made.profile.accuracy == 0.9
    assert len(made.profile.calibration) == 12
    assert made.profile.must_understand == ()


def test_there_are_as_many_labels_as_rows():
    samples = {"x": np.zeros((2, 2, 2))}
    with pytest.raises(InvalidRequest, match=r"B108.*3 labels for 2 rows"):
        make_profile(CONTRACT, samples, {"p": np.zeros((2, 3))}, labels=np.zeros(3))


def test_a_score_is_counted_by_its_first_column():
    contract = Contract(
        (TensorSpec("x", "FP32", (-1, 1)),),
        (TensorSpec("risk_score", "FP32", (-1, 2), role="score"),),
    )
    scores = np.array([[0.5, 9], [0.25, 9], [0.5, 9], [np.nan, 9]])
    profile = make_profile(contract, {"x": np.zeros((4, 1))}, {"risk_score": scores}).profile
    assert profile.score == Feature(
        "risk_score", tuple(make_edges(scores[:, 0]).tolist()), (0, 1, 0, 2, 0, 0, 1)
    )


@pytest.mark.parametrize("wishes", [Wishes(window_s=299), Wishes(window_rows=10_001)])
def test_a_window_has_bounds(wishes):
    with pytest.raises(InvalidRequest, match="S120"):
        make_profile(CONTRACT, {"x": np.zeros((2, 2, 2))}, {"p": np.zeros((2, 3))}, wishes=wishes)


def test_a_profile_without_new_members_reads_as_before():
    old = {
        "rows": 3,
        "features": [{"name": "x_0", "edges": [0.0, 1.0], "counts": [0, 3, 0, 0, 0]}],
        "confidence": [0] * 20,
        "classes": [1, 2],
    }
    profile = member_document(json.dumps(old).encode(), Profile)
    assert profile == Profile(3, (Feature("x_0", (0.0, 1.0), (0, 3, 0, 0, 0)),), (0,) * 20, (1, 2))
    assert (profile.columns, profile.streams) == (("x_0",), 1)
    assert json.loads(pretty(profile)) == old | {"must_understand": []}


def test_an_old_agent_refuses_a_profile_with_words_by_name(monkeypatch):
    spec = TensorSpec("city", "BYTES", (-1,))
    data = pretty(make_input_profile([spec], {"city": np.array(["a"] * 30)}).profile)
    assert member_document(data, Profile).features[0].words == ("a",)
    monkeypatch.setattr(codec, "FEATURES", codec.FEATURES - {"profile/2"})
    with pytest.raises(NotUnderstood) as caught:
        member_document(data, Profile)
    assert caught.value.names == ("profile/2",)
