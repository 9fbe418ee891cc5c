"""`outrider-agent run`, and the service that runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import daemon
from edge_agent import settings as settings_of
from edge_agent.cli.commands import Home


def run(
    home: Home = None,
    port: Annotated[int | None, typer.Option(help="Inference port on loopback.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="HOST:PORT of a broker at the site, instead of the fleet's.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="ADDRESS:PORT for inference from other machines; callers show a token.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="With --listen: the token's file, instead of HOME/inference-token."),
    ] = None,
    verbose: Annotated[int, typer.Option("-v", count=True, help="More detail in the log.")] = 0,
) -> None:
    """Run the agent until it is told to stop."""
    settings = settings_of.read(os.environ, home, port, broker, listen, token_file)
    daemon.become(settings, verbose)
