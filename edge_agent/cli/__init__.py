"""`outrider-agent`: what runs on a device, and what its technician types."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Final

import typer

from edge_agent import daemon
from edge_agent.cli import (
    carrying,
    changing,
    enabling,
    enrolling,
    failing,
    holding,
    looking,
    running,
)
from protocol.errors import OutriderError

INTERRUPTED: Final = 130

app = typer.Typer(
    name="outrider-agent",
    help="Runs approved models on this device and keeps them right.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for each in (
    enrolling.enrol,
    running.run,
    looking.status,
    looking.doctor,
    looking.logs,
    changing.install,
    carrying.export,
    holding.rollback,
    holding.pin,
    holding.unpin,
):
    app.command()(each)
app.command("install-service")(enabling.install_service)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show is no failure
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """One command; its exit code. Errors go to stderr, in the catalogue's form or as JSON."""
    as_json = "--json" in arguments
    try:
        return int(app(arguments, prog_name="outrider-agent", standalone_mode=False) or 0)
    except OutriderError as error:
        return failing.fail(error, as_json)
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return failing.misused(error, as_json)
    except OSError as error:
        return failing.fail(daemon.of_the_machine(error), as_json)
