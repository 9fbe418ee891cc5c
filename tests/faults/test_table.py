"""The table of operations is that of the code: traced in real processes, without faults."""

from __future__ import annotations

from collections import Counter

import pytest

from edge_agent import steps
from tests.faults.cell import Case
from tests.faults.operations import Operation
from tests.faults.table import ROWS, STEPS_SIMULATED_ONLY, cells
from tests.faults.world import JOURNEYS, Journey, World

pytestmark = pytest.mark.timeout(400)

ENDS = {
    "update": "went on",
    "bad": "given up, OUT-D310",
    "unfit": "given up, OUT-D301",
    "rollback": "went back, OUT-D316, then on",
    "first": "went on",
}


@pytest.mark.parametrize("journey", JOURNEYS)
def test_every_operation_of_a_journey_is_a_row_and_every_row_an_operation(
    world: World, journey: Journey
):
    seen: Counter[Operation] = Counter()
    case = Case(world, journey, trace=seen)
    assert case.play() == ENDS[journey]
    known = {row.operation for row in ROWS}
    assert {str(each) for each in seen.keys() - known} == set(), "operations without a row"
    rows = [row for row in ROWS if row.journey == journey]
    assert [row.name for row in rows if seen[row.operation] < row.nth] == [], "rows of the past"


def test_every_row_is_there_once():
    names = Counter((row.journey, row.name) for row in ROWS)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_step_of_the_update_machine_is_crashed_somewhere():
    rows = {row.operation.where for row in ROWS if row.operation.kind == "step"}
    every = {each.__name__ for each in steps.Step.__args__}
    assert rows | STEPS_SIMULATED_ONLY == every
    assert not rows & STEPS_SIMULATED_ONLY


def test_every_row_has_its_faults():
    assert len(cells()) == len(set(cells())) > 4 * len(ROWS)
