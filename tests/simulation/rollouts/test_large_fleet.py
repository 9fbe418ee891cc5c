"""A short version of what `make simulate` does with a million devices."""

from __future__ import annotations

import pytest

from control_plane.rollout.phase import PHASES
from control_plane.rollout.phase_table import TABLE
from tests.simulation.rollouts.large import BAD, GOOD, MOVES, SAYS, SLIGHTLY_BAD, roll_out
from tests.simulation.rollouts.run import expected


@pytest.mark.parametrize("model", [GOOD, SLIGHTLY_BAD, BAD], ids=lambda model: model.name)
def test_a_large_fleet_gets_a_good_model_and_is_spared_a_bad_one(model):
    seen = roll_out(3_000, model, seed=1)
    assert seen.wrong == []
    assert expected(seen) == []
    if model == GOOD:
        assert (seen.status, len(seen.waves)) == ("completed", 5)
        assert seen.pending > 0
    if model == BAD:
        assert seen.exposed <= 30


@pytest.mark.parametrize("seed", range(2, 4))
def test_a_good_model_is_not_aborted(seed):
    assert roll_out(1_200, GOOD, seed).status == "completed"


def test_the_same_seed_is_the_same_rollout():
    assert roll_out(1_500, SLIGHTLY_BAD, 9) == roll_out(1_500, SLIGHTLY_BAD, 9)


def test_the_phase_table_of_arrays_is_the_phase_table():
    for before, row in TABLE.items():
        for said, after in row.items():
            assert PHASES[MOVES[PHASES.index(before), SAYS.index(said)]] == after
