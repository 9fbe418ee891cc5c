"""What the commands share: options that several have, and how results are written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.settings import HOME_VARIABLE

Home = Annotated[
    Path | None,
    typer.Option(help="State folder.", envvar=HOME_VARIABLE, show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def write(data: bytes) -> None:
    """JSON is UTF-8, whatever the terminal speaks."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()
