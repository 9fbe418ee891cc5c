import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge_agent.watch.chisquare import log_survival


@given(st.floats(1e-6, 5e4), st.integers(1, 20_000))
def test_the_logarithm_of_the_tail_is_that_of_scipy(statistic, degrees):
    expected = stats.chi2.logsf(statistic, degrees)
    if expected < -600:  # there scipy's own logarithm loses its digits
        assert log_survival(statistic, degrees) < -590
    else:
        assert log_survival(statistic, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.floats(700, 1e5), st.integers(1, 100))
def test_far_tails_follow_the_series_of_two_degrees(statistic, degrees):
    # For two degrees the tail is exp(-x/2) exactly; more degrees only make it heavier.
    assert log_survival(statistic, 2) == pytest.approx(-statistic / 2)
    assert log_survival(statistic, degrees + 2) >= -statistic / 2 - 1e-6


def test_the_ends():
    assert log_survival(0, 3) == 0
    assert log_survival(-1, 3) == 0
    assert log_survival(math.inf, 3) == -math.inf


@pytest.mark.parametrize("statistic, degrees", [(1, 0), (1, -1), (math.nan, 2)])
def test_what_is_no_test_is_refused(statistic, degrees):
    with pytest.raises(ValueError):
        log_survival(statistic, degrees)
