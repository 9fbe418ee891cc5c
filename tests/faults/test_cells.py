"""Some cells of the crash matrix with real processes; `make crash-matrix` plays them all.

More of them are in tests/e2e/test_crash_cells.py.
"""

from __future__ import annotations

import random

import pytest

from tests.faults.page import PAGE, all_passed, page
from tests.faults.run import PAIRS, SEED, Cell, sample
from tests.faults.world import World

pytestmark = pytest.mark.timeout(400)

CELLS = 12

each_cell = pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=cell.name) for cell in sample(CELLS, random.Random(SEED))]
)


@each_cell
def test_the_device_comes_through(world: World, cell: Cell):
    assert cell.play(world) != ""


def test_the_page_is_of_this_table_and_no_cell_of_it_failed():
    assert PAGE.read_text(encoding="utf-8") == page(all_passed(), PAIRS), "run make crash-matrix"
