"""The table of operations is that of the code: all journeys, with real processes.

Some of its cells are in test_crash_cells.py; `make crash-matrix` plays them all.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.fakes.whole_fleet import short_folder
from tests.faults.cell import Case
from tests.faults.operations import Operation
from tests.faults.table import ROWS
from tests.faults.world import JOURNEYS, Journey, World

ENDS = {
    "update": "went on",
    "bad": "given up, OUT-D310",
    "unfit": "given up, OUT-D301",
    "rollback": "went back, OUT-D316, then on",
    "first": "went on",
    "delta": "went on",
}


@pytest.mark.timeout(600)
def test_every_operation_of_a_journey_is_a_row(subtests: pytest.Subtests):
    """One test: all journeys share a fleet."""
    with short_folder() as folder, World(folder) as world:
        for journey in JOURNEYS:
            with subtests.test(journey):
                is_in_the_table(world, journey)


def is_in_the_table(world: World, journey: Journey) -> None:
    seen: Counter[Operation] = Counter()
    case = Case(world, journey, trace=seen)
    assert case.play() == ENDS[journey]
    known = {row.operation for row in ROWS}
    assert {str(each) for each in seen.keys() - known} == set(), "operations without a row"
    rows = [row for row in ROWS if row.journey == journey]
    assert [row.name for row in rows if seen[row.operation] < row.nth] == [], "rows of the past"
