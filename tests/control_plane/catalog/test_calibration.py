"""What confidence is worth, against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.catalog.calibration import isotonic, judge, knots, label_text
from protocol.members import Contract, TensorSpec
from protocol.profile import Profile


def brute_force(values, weights):
    """The least of the largest means of stretches around each place (Barlow and others, 1972)."""

    def mean(a, b):
        return np.average(values[a : b + 1], weights=weights[a : b + 1])

    last = len(values)
    return [
        max(min(mean(a, b) for b in range(at, last)) for a in range(at + 1)) for at in range(last)
    ]


WEIGHTED = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500)), min_size=1, max_size=12)


@given(WEIGHTED)
@settings(deadline=None)
def test_knots_equal_brute_force_isotonic_regression(pairs):
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]
    assert isotonic(values, weights) == pytest.approx(brute_force(values, weights), abs=1e-9)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.3, 0.5, 0.9, 1.0]) | st.floats(0, 1, width=32), st.booleans()),
        max_size=1500,
    )
)
@settings(deadline=None, max_examples=60)
def test_knots_rise_and_fit_into_a_profile(rows):
    confidence = np.array([x for x, _ in rows], np.float32)
    found = knots(confidence, np.array([y for _, y in rows], bool))
    assert Profile(len(rows), calibration=found).calibration == found
    assert len(found) <= min(12, len(rows) // 50)
    if len(rows) >= 100:
        assert found
        below = sum(x <= found[-1][0] + 1e-6 for x in confidence.tolist())
        assert below
    else:
        assert found == ()


def test_knots_map_a_calibrated_model_to_itself():
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.2, 1, 40_000).astype(np.float32)
    found = np.array(knots(confidence, rng.uniform(size=40_000) < confidence))
    assert len(found) == 12
    assert found[:, 1] == pytest.approx(found[:, 0], abs=0.03)


def test_an_overconfident_model_is_mapped_to_what_it_gets_right():
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 20_000)
    right = rng.uniform(size=20_000) < confidence - 0.3
    found = np.array(knots(confidence, right))
    estimate = np.interp(confidence, found[:, 0], found[:, 1]).mean()
    assert estimate == pytest.approx(right.mean(), abs=0.005)


def test_equal_confidences_are_one_knot():
    right = np.arange(600) % 3 == 0
    ((confidence, share),) = knots(np.full(600, 0.75), right)
    assert (confidence, round(share, 5)) == (0.75, 0.33333)


CLASSES = ("cat", "dog", "owl")
LABELLED = Contract(
    (TensorSpec("x", "FP32", (-1, 1)),),
    (
        TensorSpec("label", "INT64", (-1,), role="label"),
        TensorSpec("p", "FP32", (-1, 3), role="probabilities"),
    ),
    CLASSES,
)
OUTPUTS = {
    "label": np.array([0, 1, 2, 1]),
    "p": np.array([[0.8, 0.1, 0.1], [0, 1, 0], [0.2, 0.2, 0.6], [0, 0.9, 0.1]], np.float32),
}


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1, 2, 0]),
        np.array([0.0, 1.0, 2.0, 0.0]),
        np.array(["0", "1", "2", "0"]),
        np.array(["cat", "dog", "owl", "cat"]),
        np.array([b"cat", b"dog", b"owl", b"cat"]),
    ],
    ids=["integers", "floats", "texts", "classes", "bytes"],
)
def test_labels_are_numbers_or_names_of_classes(labels):
    found = judge(LABELLED, OUTPUTS, labels)
    assert found is not None
    assert (found.right.tolist(), found.accuracy) == ([True, True, True, False], 0.75)
    assert found.confidence is not None
    assert found.confidence.tolist() == pytest.approx([0.8, 1, 0.6, 0.9])


def test_rows_without_a_label_are_left_out_and_foreign_labels_are_counted():
    found = judge(LABELLED, OUTPUTS, np.array(["cat", "", "fish", "dog"], object))
    assert found is not None
    assert (found.right.tolist(), found.foreign) == ([True, False, True], 1)
    gaps = judge(LABELLED, OUTPUTS, np.array([0, np.nan, 2, 1]))
    assert gaps is not None
    assert gaps.accuracy == 1


def test_a_model_without_classes_cannot_be_judged():
    contract = Contract((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))
    assert judge(contract, {"y": np.zeros((2, 1))}, np.zeros(2)) is None


@pytest.mark.parametrize(
    "label,text",
    [(3, "3"), (3.0, "3"), (2.5, "2.5"), ("3", "3"), (b"3", "3"), (float("nan"), ""), (None, "")],
)
def test_a_whole_number_is_one_label_however_it_is_written(label, text):
    assert label_text(label) == text
