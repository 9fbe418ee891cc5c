"""`outrider-agent export`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import settings as settings_of
from edge_agent.cli.commands import AsJson, Home


def export(
    to: Annotated[Path, typer.Option("--to", help="Folder of the stick.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write this device's records to a stick, signed; they stay here until they are confirmed."""
    from edge_agent.technician.carrying import export as carry_out

    raise typer.Exit(
        carry_out(settings_of.read(os.environ, home).paths, to.resolve(), as_json=as_json)
    )
