"""Default waves: what suits a fleet of each size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.sizes import default_waves

DAY_S = 86_400


@pytest.mark.parametrize(
    "fleet, expected",
    [
        (1, [None]),
        (2, [1, None]),
        (4, [1, None]),
        (5, [1, 3, None]),
        (8, [1, 3, 4, None]),
        (20, [1, 3, 10, None]),
        (21, [3, 6, 11, 20, None]),
        (300, [30, 75, 150, 285, None]),
        (1_000, [100, 250, 500, 950, None]),
        (1_001, [30, 300, 501, 951, None]),
        (10_000, [30, 300, 1_000, 5_000, 9_500, None]),
        (1_000_000, [30, 10_000, 100_000, 500_000, 950_000, None]),
    ],
)
def test_default_waves_suit_the_size_of_the_fleet(fleet, expected):
    waves = default_waves(fleet)
    assert [wave.devices for wave in waves] == expected
    assert waves[-1].everyone


def test_in_a_small_fleet_a_person_lets_every_step_begin():
    assert [wave.approve for wave in default_waves(8)] == [False, True, True, True]
    assert not any(wave.approve for size in (1, 4, 21, 5_000) for wave in default_waves(size))


def test_soaks_are_whole_days_and_longest_while_devices_are_left_to_compare_with():
    assert {wave.soak_s for size in (3, 12, 500) for wave in default_waves(size)} == {DAY_S}
    assert [wave.soak_s for wave in default_waves(5_000)] == [
        DAY_S, DAY_S, DAY_S, DAY_S, 3 * DAY_S, DAY_S,
    ]  # fmt: skip
    # With a control cohort that is held back, it is the last wave itself.
    assert [wave.soak_s for wave in default_waves(5_000, held=250)] == [
        DAY_S, DAY_S, DAY_S, DAY_S, 3 * DAY_S,
    ]  # fmt: skip


@given(st.integers(1, 100_000), st.integers(0, 500))
def test_default_waves_grow_and_end_with_everyone(fleet, held):
    held = min(held, fleet - 1)
    *sized, last = default_waves(fleet, held)
    counts = [wave.devices for wave in sized]
    assert last.everyone
    assert all(earlier < later for earlier, later in pairwise([0, *counts, fleet - held]))
