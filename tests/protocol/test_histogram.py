"""Counts: a commutative monoid, and quantiles that do not invent."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.histogram import LATENCY_EDGES_S, LATENCY_SLOTS, add, latency_slot, quantile_s

COUNTS = st.lists(st.integers(0, 2**40), min_size=4, max_size=4).map(tuple)


@given(COUNTS, COUNTS, COUNTS)
def test_adding_commutes_and_associates_and_empty_is_neutral(a, b, c):
    assert add(a, b) == add(b, a)
    assert add(add(a, b), c) == add(a, add(b, c))
    assert add(a, ()) == add((), a) == a


def test_other_bins_do_not_add():
    with pytest.raises(ValueError):
        add((1, 2), (1, 2, 3))


@given(st.floats(0, 100))
def test_a_latency_lies_between_the_edges_of_its_slot(seconds):
    slot = latency_slot(seconds)
    assert 0 <= slot < LATENCY_SLOTS
    assert slot == 0 or LATENCY_EDGES_S[slot - 1] <= seconds
    assert slot == LATENCY_SLOTS - 1 or seconds < LATENCY_EDGES_S[slot]


@given(st.lists(st.floats(100e-6, 1.0), min_size=20, max_size=200), st.floats(0.05, 0.95))
def test_a_quantile_is_within_one_bin_of_the_exact_one(latencies, q):
    counts = [0] * LATENCY_SLOTS
    for seconds in latencies:
        counts[latency_slot(seconds)] += 1
    exact = sorted(latencies)[math.ceil(q * len(latencies)) - 1]
    estimate = quantile_s(counts, q)
    assert estimate is not None
    assert exact / 2**0.26 <= estimate <= exact * 2**0.26


def test_no_counts_have_no_quantile():
    assert quantile_s([0] * LATENCY_SLOTS, 0.95) is None
    assert quantile_s([], 0.95) is None


def test_the_open_slot_answers_with_its_lower_edge():
    assert quantile_s([0] * (LATENCY_SLOTS - 1) + [5], 0.5) == LATENCY_EDGES_S[-1]
