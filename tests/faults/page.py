"""docs/reference/crash-matrix.md, made of the table and of which cells failed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
}
_WORDS: Final[dict[Fault, str]] = {
    "kill": "kill",
    "cut": "power cut",
    "half": "cut, half written",
    "zeros": "cut, zeros",
    "full": "disk full",
    "runner": "runner killed",
}


def page(failed: Collection[tuple[Row, Fault]], pairs: int) -> str:
    return "\n".join(_lines(failed, pairs)) + "\n"


def _lines(failed: Collection[tuple[Row, Fault]], pairs: int) -> Iterator[str]:
    yield "# Crash matrix"
    yield ""
    yield "<!-- Made by `make crash-matrix`: change tests/faults, then run it. -->"
    yield ""
    yield (
        f"Every operation of an update, {len(ROWS)} of them, was interrupted in every way that"
        f" applies: {len(cells())} cases with a real agent, real runners, a real broker and a real"
        f" control plane. {pairs} more cases strike twice: the second crash comes in the process"
        " that was started after the first."
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
        "✓: all four hold. ✗: they do not. A blank means that the fault does not apply."
        " What a power cut leaves is computed from what was synced (`tests/faults/durable.py` says"
        " what that can and cannot show); `tests/simulation` draws more ways, in memory."
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
                yield _line(row, failed)


def _line(row: Row, failed: Collection[tuple[Row, Fault]]) -> str:
    marks = []
    for fault in FAULTS:
        applies = fault in faults_of(row)
        marks.append(("✗" if (row, fault) in failed else "✓") if applies else " ")
    return f"| {row.name} | `{row.module}` | {' | '.join(marks)} | {row.before} |"
