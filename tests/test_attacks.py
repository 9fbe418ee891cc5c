"""The table of attacks: every row has a test, and every test of an attack has a row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.attacks.wider import GROUPS

TESTS = Path(__file__).parent
ROWS = [row for rows in GROUPS.values() for row in rows]
COMPLETE = ("e2e/test_attacks_broker.py", "control_plane/web/test_attacks.py")
"""Files in which every test is an attack."""
NO_ROW = {"test_what_anybody_may_send_is_small"}
"""What a limit is, rather than who tries it."""


def functions(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
    return {name for name in found if name.startswith("test_")}


def split(test: str) -> tuple[str, str]:
    file, _, name = test.partition("::")
    return file, name.partition("[")[0]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_names_a_test_that_there_is(row):
    file, name = split(row.test)
    assert name in functions(file)


def test_rows_are_told_apart_by_their_names():
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("file", COMPLETE)
def test_a_test_of_an_attack_has_a_row(file):
    named = {split(row.test)[1] for row in ROWS if split(row.test)[0] == file}
    assert functions(file) - named - NO_ROW == set()
