"""Every threshold follows from the budget and from what there is to test."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.drift.budget import Terms, terms

HOURS, DAYS = 8766.0, 365.25


@pytest.mark.parametrize(
    "per_year, streams, starts, ln_threshold, peer_p, cohort_q",
    [
        (1.0, 3_000, 6_000, 9.393, 5.629e-5, 6.845e-4),
        (1.0, 5_000, 5_000, 9.210, 4.360e-5, 6.845e-4),
        (1.0, 5_000_000, 5_000_000, 16.118, 1.379e-6, 6.845e-4),
        (0.01, 3_000, 6_000, 13.998, 5.629e-6, 6.845e-6),
        (12.0, 64, 64, 5.0, 1e-4, 8.214e-3),
        (1000.0, 1, 1, 5.0, 1e-4, 0.05),
        (1.0, 0, 0, 15.4, 1e-4, 6.845e-4),
    ],
)
def test_thresholds_of_some_fleets(per_year, streams, starts, ln_threshold, peer_p, cohort_q):
    found = terms(
        per_year, streams=streams, starts=starts, slots_per_year=HOURS, days_per_year=DAYS
    )
    assert found.ln_threshold == pytest.approx(ln_threshold, rel=1e-3)
    assert found.peer_p == pytest.approx(peer_p, rel=1e-3)
    assert found.cohort_q == pytest.approx(cohort_q, rel=1e-3)


def expected(found: Terms) -> tuple[float, float, float]:
    """False alarms in a year of detectors, peers and cohorts, if nothing ever drifts."""
    return (
        found.starts * math.exp(-found.ln_threshold),
        found.slots_per_year * found.streams * 3 * found.peer_p**2,
        found.days_per_year * found.cohort_q,
    )


@given(st.floats(0.01, 1000), st.integers(1, 10**8), st.integers(1, 10**8))
def test_expected_false_alarms_stay_within_the_budget(per_year, streams, starts):
    found = terms(
        per_year, streams=streams, starts=starts, slots_per_year=HOURS, days_per_year=DAYS
    )
    shares = (per_year / 2, per_year / 4, per_year / 4)
    assert all(
        got <= share * (1 + 1e-9) for got, share in zip(expected(found), shares, strict=True)
    )


@given(st.floats(0.01, 20), st.integers(10**5, 10**8))
def test_expected_false_alarms_add_up_to_the_budget(per_year, streams):
    """Where no threshold has reached its limit."""
    found = terms(
        per_year, streams=streams, starts=streams, slots_per_year=HOURS, days_per_year=DAYS
    )
    assert sum(expected(found)) == pytest.approx(per_year)


@given(st.floats(0.01, 999), st.integers(0, 10**8))
def test_a_larger_budget_lowers_every_threshold_or_keeps_it(per_year, streams):
    small, large = (
        terms(each, streams=streams, starts=streams, slots_per_year=HOURS, days_per_year=DAYS)
        for each in (per_year, per_year + 1)
    )
    assert large.ln_threshold <= small.ln_threshold
    assert large.peer_p >= small.peer_p
    assert large.cohort_q >= small.cohort_q


@pytest.mark.parametrize("per_year, streams", [(0.0, 1), (1001.0, 1), (math.nan, 1), (1.0, -1)])
def test_budgets_that_make_no_sense_are_refused(per_year, streams):
    with pytest.raises(ValueError, match=r"a budget|fewer than none"):
        terms(per_year, streams=streams, starts=1, slots_per_year=HOURS, days_per_year=DAYS)
