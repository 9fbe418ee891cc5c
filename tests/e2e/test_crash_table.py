"""The table of operations is that of the code, and some of its cells, with real processes.

Cells of another kind are in test_crash_cells.py; `make crash-matrix` plays them all.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.fakes.whole_fleet import short_folder
from tests.faults.cell import Case
from tests.faults.operations import Operation
from tests.faults.run import SEED, sample
from tests.faults.table import ROWS
from tests.faults.world import JOURNEYS, Journey, World

CELLS = 6
ENDS = {
    "update": "went on",
    "bad": "given up, OUT-D310",
    "unfit": "given up, OUT-D301",
    "rollback": "went back, OUT-D316, then on",
    "first": "went on",
    "delta": "went on",
}


@pytest.mark.timeout(600)
def test_every_operation_of_a_journey_is_a_row_and_devices_come_through(
    subtests: pytest.Subtests,
):
    """One test: another fleet for each worker would take longer than all that is done with it."""
    with short_folder() as folder, World(folder) as world:
        for journey in JOURNEYS:
            with subtests.test(journey):
                is_in_the_table(world, journey)
        for cell in sample(CELLS, random.Random(SEED)):
            with subtests.test(cell.name):
                assert cell.play(world) != ""


def is_in_the_table(world: World, journey: Journey) -> None:
    seen: Counter[Operation] = Counter()
    case = Case(world, journey, trace=seen)
    assert case.play() == ENDS[journey]
    known = {row.operation for row in ROWS}
    assert {str(each) for each in seen.keys() - known} == set(), "operations without a row"
    rows = [row for row in ROWS if row.journey == journey]
    assert [row.name for row in rows if seen[row.operation] < row.nth] == [], "rows of the past"
