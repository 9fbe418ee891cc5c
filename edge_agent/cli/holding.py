"""Commands that hold a model at a version: `outrider-agent rollback`, `pin`, `unpin`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import settings as settings_of
from edge_agent.cli.commands import AsJson, Home
from protocol.moments import FORMS

Why = Annotated[str, typer.Option(help="For the record; operators read it.")]
Until = Annotated[str, typer.Option(help=f"{FORMS}; until somebody takes it back without it.")]


def rollback(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Needed where several run.")
    ] = None,
    why: Why = "",
    until: Until = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the version before, and stay there: rollouts wait until somebody unpins."""
    options = {"model": model or "", "why": why, "until": until}
    raise typer.Exit(_order("rollback", options, home, as_json))


def pin(
    version: Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="As digits/v1.")],
    why: Why = "",
    until: Until = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hold this device at one version, whatever operators order. It overrides no denial."""
    options = {"version": version, "why": why, "until": until}
    raise typer.Exit(_order("pin", options, home, as_json))


def unpin(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Needed where several are pinned.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let operators decide again."""
    raise typer.Exit(_order("unpin", {"model": model or ""}, home, as_json))


def _order(command: str, options: dict[str, str], home: Path | None, as_json: bool) -> int:
    from edge_agent.technician.door import WHO
    from edge_agent.technician.held import order

    # Who called sudo: the agent believes it from root only.
    options = {**options, WHO: os.environ.get("SUDO_USER", "")}
    socket = settings_of.read(os.environ, home).paths.socket
    now_ms = time.time_ns() // 1_000_000
    return order(socket, command, options, as_json=as_json, now_ms=now_ms)
