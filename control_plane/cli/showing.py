"""The forms of results: JSON unchanged, labelled lines, tables of 80 columns, lists with an end."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from control_plane.cli import screen

MOST_ROWS: Final = 50
LABEL: Final = 9
WIDE_LABEL: Final = 12
_LEAST: Final = 12
"""Columns are not shortened below this."""


def document(body: Any) -> None:
    """One JSON document on one line, as it came."""
    text = json.dumps(body, ensure_ascii=not screen.speaks_utf8(sys.stdout))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def line(label: str, text: str, *, width: int = LABEL) -> None:
    """A label, then text that goes on below itself where it is too long."""
    room = screen.WIDTH - width
    parts = [text]
    if len(text) > room:
        parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    for number, part in enumerate(parts):
        screen.result(f"{label if number == 0 else '':<{width}}{part}".rstrip())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be; one named with `>` in front is right-aligned.

    The widest column of a table that is too wide is shortened in the middle of its cells.
    """
    titles = [column.removeprefix(">") for column in columns]
    body = [list(row) for row in rows]
    widths = [max([len(title), *(len(row[n]) for row in body)]) for n, title in enumerate(titles)]
    while sum(widths) + 2 * (len(widths) - 1) > screen.WIDTH and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    for row in [titles, *body]:
        cells = []
        for column, cell, width in zip(columns, row, widths, strict=True):
            short = shortened(cell, width)
            cells.append(short.rjust(width) if column.startswith(">") else short.ljust(width))
        cells[-1] = cells[-1].rstrip()
        screen.result("  ".join(screen.tinted(cell, sys.stdout) for cell in cells).rstrip())


def listed(page: Mapping[str, Any], what: str, command: str) -> None:
    """Below a list: how many there are, and how to go on where it stops."""
    shown, count = len(page["items"]), page["count"]
    if page["next_cursor"] is None and shown == count:
        screen.result(plural(count, what))
        return
    screen.result(f"{shown:,} of {plural(count, what)}")
    if page["next_cursor"] is not None:
        screen.hint(f"go on: {command} --cursor {page['next_cursor']}")


def plural(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def shortened(text: str, width: int) -> str:
    """ "cam-…-0117": the ends tell more than the middle."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def moment_ms(text: str | None) -> int | None:
    """RFC 3339 to Unix milliseconds."""
    return int(datetime.fromisoformat(text).timestamp() * 1000) if text else None


def now_ms() -> int:
    return time.time_ns() // 1_000_000
