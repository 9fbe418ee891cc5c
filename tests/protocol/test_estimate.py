"""What is said of a model's accuracy, with labels and without."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.estimate import LEAST_ROWS, estimated_accuracy, measured_accuracy
from protocol.histogram import CONFIDENCE_BINS


def histogram(confidence: np.ndarray) -> list[int]:
    counts, _ = np.histogram(confidence, CONFIDENCE_BINS, (0, 1))
    return [int(count) for count in counts]


def knots(rng: np.random.Generator) -> list[tuple[float, float]]:
    """As a model has them whose confidence is off by a little everywhere."""
    at = np.sort(rng.uniform(0.2, 1, 12))
    right = np.maximum.accumulate(np.clip(at + rng.normal(0, 0.03, 12), 0, 1))
    return [(float(x), float(y)) for x, y in zip(at, right, strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_estimated_accuracy_equals_an_interpolation_of_every_row_within_its_bins(seed):
    rng = np.random.default_rng(seed)
    line = knots(rng)
    confidence = rng.beta(6, 2, 20_000)
    each = np.interp(confidence, [x for x, _ in line], [y for _, y in line]).mean()
    found = estimated_accuracy(line, histogram(confidence))
    assert found == pytest.approx(each, abs=0.004)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=12,
        unique_by=lambda x: x[0],
    ),
    st.lists(st.integers(0, 100), min_size=CONFIDENCE_BINS, max_size=CONFIDENCE_BINS),
)
def test_it_is_the_mean_of_numpys_interpolation_at_the_middles_of_the_bins(pairs, counts):
    at, right = sorted(x for x, _ in pairs), sorted(y for _, y in pairs)
    line = list(zip(at, right, strict=True))
    found = estimated_accuracy(line, counts)
    if sum(counts) < LEAST_ROWS:
        assert found is None
        return
    middles = (np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS
    wanted = np.average(np.interp(middles, at, right), weights=counts)
    assert found == pytest.approx(wanted, abs=1e-9)


def test_there_is_no_estimate_without_calibration_or_with_few_rows():
    full = [0] * 19 + [LEAST_ROWS]
    assert estimated_accuracy([], full) is None
    assert estimated_accuracy([(0.5, 0.5)], [0] * 19 + [LEAST_ROWS - 1]) is None
    assert estimated_accuracy([(0.5, 0.5)], ()) is None
    assert estimated_accuracy([(0.5, 0.5), (0.9, 0.8)], full) == 0.8


def test_measured_accuracy_comes_with_its_standard_deviation():
    assert measured_accuracy(0, 0) is None
    assert measured_accuracy(50, 50) == (1.0, 0.0)
    found = measured_accuracy(100, 80)
    assert found == pytest.approx((0.8, math.sqrt(0.8 * 0.2 / 100)))
