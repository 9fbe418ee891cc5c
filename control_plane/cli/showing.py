"""How the command line shows things: tables of 80 columns, coded errors, JSON unchanged."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from control_plane.client import Answered, Client
from control_plane.settings import HOME_VARIABLE, read
from control_plane.web import problems
from control_plane.wiring import access
from protocol.errors import OutriderError

Home = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the control plane; ./outrider without it.",
        envvar=HOME_VARIABLE,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The API's JSON, unchanged, on stdout.")]

WIDTH: Final = 80
MOST_ROWS: Final = 50

errors = Console(stderr=True, highlight=False)


def connect(home: Path | None) -> Client:
    """A caller of the control plane at `home`. Raises `InvalidRequest` OUT-S150 without one."""
    return Client(access(read(os.environ, home).home))


def document(body: Any) -> None:
    sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def line(label: str, text: str) -> None:
    typer.echo(f"{label:<9}{text}")


def hint(text: str) -> None:
    """Advice and progress: for eyes, never part of a result."""
    typer.echo(text, err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be; one named with `>` in front is right-aligned.

    The longest cell of a row that is too wide is shortened in its middle.
    """
    titles = [column.removeprefix(">") for column in columns]
    body = [list(row) for row in rows]
    widths = [max([len(title), *(len(row[n]) for row in body)]) for n, title in enumerate(titles)]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > 12:
        widest = widths.index(max(widths))
        widths[widest] -= 1
    for row in [titles, *body]:
        cells = []
        for column, cell, width in zip(columns, row, widths, strict=True):
            short = shortened(cell, width)
            cells.append(short.rjust(width) if column.startswith(">") else short.ljust(width))
        typer.echo("  ".join(cells).rstrip())


def shortened(text: str, width: int) -> str:
    """ "cam-…-0117": the ends tell more than the middle."""
    if len(text) <= width:
        return text
    dots = "…" if (sys.stdout.encoding or "").lower().startswith("utf") else "."
    head = (width - 1) // 2
    return text[:head] + dots + text[len(text) - (width - 1 - head) :]


def progress(what: str) -> Progress:
    """A bar on stderr for anything longer than a second; gone when it is done."""
    return Progress(
        TextColumn(f"{what:<8}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(compact=True),
        console=errors,
        transient=True,
    )


def fail(error: OutriderError, *, as_json: bool) -> NoReturn:
    """Print an error in the catalogue's form and leave with its exit code."""
    if as_json:
        body = error.document if isinstance(error, Answered) else problems.body(error)
        sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"error[{error.code}]: {error.problem.title}\n")
        if error.why:
            why = error.why.splitlines()
            sys.stderr.write(f"  why: {why[0]}\n")
            for more in why[1:]:
                sys.stderr.write(f"  {more}\n")
        if error.do:
            sys.stderr.write(f"  do:  {error.do}\n")
    raise SystemExit(error.problem.exit)


def confirm(question: str, devices: int, whole_fleet: bool, yes: bool) -> None:
    """Ask before many devices change: one needs no question, a hundred need their number typed.

    Raises `typer.Exit` (2) when there is nobody to ask and nobody said yes.
    """
    if yes or devices <= 1:
        return
    if not sys.stdin.isatty():
        hint(f"{question} Say --yes: there is nobody to ask here.")
        raise typer.Exit(2)
    if devices >= 100 or whole_fleet:
        typed = typer.prompt(f"{question} Type {devices}", err=True)
        if typed.strip() != str(devices):
            hint("nothing changed")
            raise typer.Exit(2)
    elif not typer.confirm(question, err=True):
        hint("nothing changed")
        raise typer.Exit(2)


def moment_ms(text: str | None) -> int | None:
    """RFC 3339 to Unix milliseconds."""
    from datetime import datetime

    return int(datetime.fromisoformat(text).timestamp() * 1000) if text else None


def now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
