"""docs/reference/crash-matrix.md, made of the table and of what became of its cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.faults.interpose import Fault
from tests.faults.table import FAULTS, MEANING, ROWS, Row, cells, faults_of
from tests.faults.world import JOURNEYS, Journey

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "crash-matrix.md"

_TITLES: Final[dict[Journey, str]] = {
    "update": "An update from A to B",
    "bad": "B answers with errors, and is given up",
    "unfit": "B fails its golden vectors",
    "rollback": "A is damaged: back to the version before, then on",
    "first": "The first version of a new device",
    "delta": "An update by a delta from what runs",
}
_WORDS: Final[dict[Fault, str]] = {
    "kill": "kill",
    "cut": "power cut",
    "half": "cut, half written",
    "zeros": "cut, zeros",
    "full": "disk full",
    "runner": "runner killed",
}


_MARKS: Final = {True: "✓", False: "✗", None: "·"}
_MEANT: Final = {mark: passed for passed, mark in _MARKS.items()}

Played = Mapping[tuple[Row, Fault], bool]
"""Whether a cell passed; those that were not played are not in it."""


def read(text: str) -> tuple[Played, int]:
    """What a page says: of cells that the table has, and of how many pairs."""
    journeys = {f"## {title}": journey for journey, title in _TITLES.items()}
    journey, lines = "", {}
    for line in text.splitlines():
        journey = journeys.get(line, journey)
        lines[journey, line.partition(" | ")[0].removeprefix("| ")] = line
    played = {}
    for row in ROWS:
        marks = lines.get((row.journey, row.name), "").split(" | ")[2:]
        for fault, mark in zip(FAULTS, marks, strict=False):
            if fault in faults_of(row) and (passed := _MEANT.get(mark)) is not None:
                played[row, fault] = passed
    twice = re.search(r"(\d+) more that strike twice", text)
    return played, int(twice[1]) if twice else 0


def page(played: Played, pairs: int) -> str:
    """`pairs`: cases with two crashes that passed."""
    return "\n".join(_lines(played, pairs)) + "\n"


def _lines(played: Played, pairs: int) -> Iterator[str]:
    yield "# Crash matrix"
    yield ""
    yield "<!-- Made by `make crash-matrix`: change tests/faults, then run it. -->"
    yield ""
    yield (
        f"Every operation of an update, {len(ROWS)} of them, is interrupted in every way that"
        f" applies: {len(cells())} cases with a real agent, real runners, a real broker and a real"
        f" control plane. When this page was made, {_count(played)}. And {pairs} more that strike"
        " twice passed: their second crash comes in the process that was started after the first."
    )
    yield ""
    yield "After each case:"
    yield ""
    yield "1. A working model answers. After a kill, or on a full disk, no request failed at all."
    yield "2. Trust has not gone back: no version is older than what the agent had written down."
    yield "3. No record is lost, and none is counted twice, at the control plane."
    yield (
        "4. The update goes on. Or it was given up, the version before runs, and the control plane"
        " knows the reason."
    )
    yield ""
    yield "| Column | What happens just before the operation |"
    yield "|---|---|"
    for fault in FAULTS:
        yield f"| {_WORDS[fault]} | {MEANING[fault]} |"
    yield ""
    yield (
        "✓: all four hold. ✗: they do not. ·: not played. A blank means that the fault does not"
        " apply. What a power cut leaves is computed from what was synced"
        " (`tests/faults/durable.py` says what that can and cannot show); `tests/simulation` draws"
        " more ways, in memory."
    )
    yield ""
    yield "```console"
    yield "$ make crash-matrix"
    yield '$ make crash-matrix ARGS="--only Probe --pairs 0"'
    yield "```"
    for journey in JOURNEYS:
        yield ""
        yield f"## {_TITLES[journey]}"
        yield ""
        words = " | ".join(_WORDS[fault] for fault in FAULTS)
        yield f"| Operation | Module | {words} | If it never happens |"
        yield f"|---|---|{'---|' * len(FAULTS)}---|"
        for row in ROWS:
            if row.journey == journey:
                yield _line(row, played)


def _count(played: Played) -> str:
    passed, left = sum(played.values()), len(cells()) - len(played)
    if passed == len(cells()):
        return "all of them had been played, and passed"
    failed = len(played) - passed
    said = f"{len(played)} of them had been played: {passed} passed, {failed} failed"
    return f"{said}; {left} had not" if left else said


def _line(row: Row, played: Played) -> str:
    marks = [
        _MARKS[played.get((row, fault))] if fault in faults_of(row) else " " for fault in FAULTS
    ]
    return f"| {row.name} | `{row.module}` | {' | '.join(marks)} | {row.before} |"
