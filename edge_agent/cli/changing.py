"""Commands that change what this device does: `outrider-agent install`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import settings as settings_of
from edge_agent.cli.commands import AsJson, Home


def install(
    folder: Annotated[Path, typer.Option("--from", help="Folder of the stick.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Install what a stick brings: signatures count as ever, only freshness is not asked for."""
    from edge_agent.technician.installing import install as carry_out

    socket = settings_of.read(os.environ, home).paths.socket
    raise typer.Exit(carry_out(socket, folder, as_json=as_json))
