"""Cells of the crash matrix with real processes.

`make crash-matrix` plays all of them and writes docs/reference/crash-matrix.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from edge_agent.runner.fault import VARIABLE
from tests.fakes.whole_fleet import MODEL, short_folder
from tests.faults.cell import Case, Strike
from tests.faults.operations import Operation
from tests.faults.run import SEED, Cell, pairs, play, sample
from tests.faults.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

CELLS = sample(40, random.Random(SEED))
PAIRS = pairs(6, random.Random(SEED + 1))
JOBS = 2
TRIED = Operation("Probe", "step", "")


@pytest.fixture(scope="module")
def played() -> dict[Cell, str]:
    """What was wrong in each cell. They mostly wait, so some are played at once."""
    return play([*CELLS, *PAIRS], JOBS)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with short_folder() as folder, World(folder) as world:
        yield world


@pytest.mark.parametrize("cell", [pytest.param(each, id=each.name) for each in CELLS])
def test_the_device_comes_through(played: dict[Cell, str], cell: Cell):
    assert played[cell] == ""


@pytest.mark.parametrize("cell", [pytest.param(each, id=each.name) for each in PAIRS])
def test_the_device_comes_through_two_crashes(played: dict[Cell, str], cell: Cell):
    assert played[cell] == ""


@pytest.mark.parametrize(
    "doing, reason", [("load", "OUT-D311"), ("probe", "OUT-D311"), ("infer", "OUT-D311")]
)
def test_a_version_that_kills_its_runner_is_given_up_without_the_network(
    world: World, doing: str, reason: str
):
    environment = {VARIABLE: f"{MODEL}/v2:{doing}"}
    case = Case(world, "update", environment=environment, offline_from=TRIED)
    assert case.play() == f"given up, {reason}"


def test_a_version_that_takes_the_machine_down_is_given_up_without_the_network(world: World):
    poison = Strike(Operation("Probe", "ask", "load"), 1, "cut")
    case = Case(world, "update", (poison, poison, poison), offline_from=TRIED)
    assert case.play() == "given up, OUT-D312"
