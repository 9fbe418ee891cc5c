"""The table of operations is sound in itself, and its page is of it."""

from __future__ import annotations

from collections import Counter

from edge_agent import steps
from tests.faults.page import PAGE, page, read
from tests.faults.table import ROWS, STEPS_SIMULATED_ONLY, cells


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


def test_the_page_is_of_this_table_and_no_cell_of_it_failed():
    text = PAGE.read_text(encoding="utf-8")
    played, pairs = read(text)
    assert text == page(played, pairs), "run make crash-matrix"
    assert [f"{fault} before {row.name}" for (row, fault), ok in played.items() if not ok] == []


def test_what_a_page_says_of_its_cells_is_read_again():
    failed, unplayed, *passed = cells()
    played = {failed: False, **dict.fromkeys(passed, True)}
    assert read(page(played, 7)) == (played, 7)
    assert f"{len(passed)} passed, 1 failed; 1 had not" in page(played, 7)
    assert unplayed not in played


def test_a_page_of_other_rows_is_noticed():
    text = page({}, 0)
    other = text.replace("| Drain: step |", "| Drain: a step of the past |")
    assert page(*read(text)) == text
    assert page(*read(other)) != other
