"""Commands that only look: `outrider-agent status`, `doctor`, `logs`."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from edge_agent import settings as settings_of
from edge_agent.cli.commands import AsJson, Home, write
from protocol.codec import encode
from protocol.errors import InvalidRequest


def status(home: Home = None, as_json: AsJson = False) -> None:
    """What runs here, why, and what to do next. Exit 0 normal, 8 look, 1 no model, 7 no agent."""
    from edge_agent.technician.door import ask
    from edge_agent.technician.page import page

    answer = ask(settings_of.read(os.environ, home).paths.socket)
    shown = page(answer)
    if as_json:
        write(encode(answer))
    else:
        for line in shown.lines:
            typer.echo(line)
    raise typer.Exit(shown.exit)


def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Check what can go wrong here, without a network. Exit 0 well, 8 warns, 1 failed."""
    from edge_agent.technician.doctor import doctor as examine

    raise typer.Exit(examine(settings_of.read(os.environ, home), as_json=as_json))


def logs(
    most: Annotated[
        int, typer.Option("-n", "--lines", min=1, max=2000, help="The last so many.")
    ] = 50,
    since: Annotated[str, typer.Option(help="30min, 6h, 2d or 2026-12-01 (UTC).")] = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Also internals.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What happened here, in words; times are UTC, by the device's clock."""
    from edge_agent.technician.logs import Wanted, show
    from protocol.moments import ago

    try:
        since_ms = ago(since, time.time_ns() // 1_000_000) if since else 0
    except ValueError as error:
        raise InvalidRequest(
            "OUT-S120", f"--since {since}: no such moment", do="30min, 6h, 2d or 2026-12-01"
        ) from error
    paths = settings_of.read(os.environ, home).paths
    wanted = Wanted(most, since_ms, verbose, follow, as_json)
    raise typer.Exit(show(paths.run, paths.socket, wanted))
