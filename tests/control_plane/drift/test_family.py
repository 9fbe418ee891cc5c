"""Benjamini and Hochberg's rule, against scipy and against many families without any effect."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from control_plane.drift.family import called


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(1e-6, 0.3))
def test_those_are_called_whose_adjusted_p_by_scipy_is_at_most_the_level(p, q):
    adjusted = stats.false_discovery_control(p)
    assume(not np.isclose(adjusted, q, rtol=1e-9).any())
    found, cut = called(dict(enumerate(p)), q)
    assert found == {number for number, each in enumerate(adjusted) if each <= q}
    assert found == {number for number, each in enumerate(p) if each <= cut and cut > 0}


def test_nothing_is_called_of_nothing():
    assert called({}, 0.05) == (frozenset(), 0.0)
    assert called({"a": 0.2, "b": 0.9}, 0.05) == (frozenset(), 0.0)


def test_a_p_of_zero_is_called():
    found, cut = called({"a": 0.0, "b": 0.9}, 0.05)
    assert found == {"a"}
    assert cut == pytest.approx(0.025)


def test_families_without_an_effect_have_any_call_at_most_as_often_as_their_level():
    rng = np.random.default_rng(3)
    families = 2000
    called_in = sum(
        bool(called(dict(enumerate(rng.random(30).tolist())), 0.05)[0]) for _ in range(families)
    )
    # So many or more would have a chance of one in a million at the level.
    assert called_in < stats.binom.isf(1e-6, families, 0.05)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        called({"a": p}, 0.05)
