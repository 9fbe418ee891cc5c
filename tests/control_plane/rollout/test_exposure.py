"""Windows are in a span or not, and add up exactly."""

from __future__ import annotations

import dataclasses
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.clock import Span
from control_plane.rollout.exposure import Placed, latest_end, most_classes, sums, within
from control_plane.rollout.score import Sums
from tests.fakes.betting import window


@pytest.mark.parametrize(
    "t0_ms, t1_ms, inside",
    [
        (90, 110, True),
        (90, 109, False),
        (190, 210, False),
        (190, 209, True),
        (100, 200, True),
        (99, 200, False),
        (150, 150, True),
    ],
    ids=[
        "its middle is the first moment",
        "its middle is before",
        "its middle is the end",
        "its middle is just before the end",
        "as long as the span",
        "longer than the span",
        "of no length",
    ],
)
def test_a_window_is_where_its_middle_is(t0_ms, t1_ms, inside):
    assert within(Span(100, 200), t0_ms, t1_ms) is inside


@given(st.integers(0, 1000), st.integers(1, 300), st.integers(-400, 1400), st.integers(0, 400))
def test_what_is_within_ends_in_time_to_be_found(from_ms, length_ms, t0_ms, span_ms):
    span = Span(from_ms, from_ms + length_ms)
    if within(span, t0_ms, t0_ms + span_ms):
        assert span.from_ms <= t0_ms + span_ms <= latest_end(span)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=8))
def test_sums_are_those_of_the_windows_one_by_one(numbers):
    bodies = [window("v1", n, errors=errors, first=n // 2) for n, errors in numbers]
    # One whose histograms were given up still counts.
    bodies += [dataclasses.replace(window("v1", 9), latency=(), confidence=(), classes=())]
    placed = [Placed(0, 1, 1, body) for body in bodies]
    assert sums(placed, None) == reduce(add, map(Sums.of, bodies), Sums())


def test_mixes_of_other_classes_are_left_out_and_everything_else_counts():
    three = window("v1", 30)
    five = dataclasses.replace(window("v1", 10), classes=(2, 2, 2, 2, 2))
    found = sums([Placed(0, 1, 1, three), Placed(1, 2, 1, five)], 3)
    assert found.requests == 40
    assert found.classes == three.classes


def test_the_number_of_classes_is_that_of_most_windows():
    assert most_classes([3, 3, 5, 0, 0, 0]) == 3
    assert most_classes([3, 5]) == 5
    assert most_classes([0, 0]) == most_classes([]) == 0
