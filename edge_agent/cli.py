"""`outrider-agent`: what runs on a device, and what its technician types."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edge_agent import settings as settings_of
from protocol.codec import encode
from protocol.errors import OutriderError

app = typer.Typer(
    name="outrider-agent",
    help="Runs approved models on this device and keeps them right.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Home = Annotated[
    Path | None,
    typer.Option(help="State folder.", envvar=settings_of.HOME_VARIABLE, show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def enrol(
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token; without it, the token is asked for.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="This device's name in the fleet.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make this device's key and join a fleet with a one-time token."""
    from edge_agent.enrol import enrol as join

    if token_file is not None:
        token = token_file.read_text()
    else:
        token = typer.prompt("Token (or the text of its QR code)", hide_input=True, err=True)
    paths = settings_of.read(os.environ, home).paths
    identity = join(token.strip(), paths.home, name=name)
    if as_json:
        _write(encode(identity.public))
        return
    labels = "".join(f", {key}={value}" for key, value in sorted(identity.labels.items()))
    typer.echo(f"enrolled {identity.local} in fleet {identity.fleet}{labels}")


@app.command()
def run(
    home: Home = None,
    port: Annotated[int | None, typer.Option(help="Inference port on loopback.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="HOST:PORT of a broker at the site, instead of the fleet's.")
    ] = None,
    verbose: Annotated[int, typer.Option("-v", count=True, help="More detail in the log.")] = 0,
) -> None:
    """Run the agent until it is told to stop."""
    from edge_agent.wiring import run_agent

    level = [logging.INFO, logging.DEBUG][min(verbose, 1)]
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    run_agent(settings_of.read(os.environ, home, port, broker))


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """What runs here, why, and what to do next. Exit 0 normal, 8 look, 1 no model, 7 no agent."""
    from edge_agent.technician.door import ask
    from edge_agent.technician.status import page

    answer = ask(settings_of.read(os.environ, home).paths.socket)
    shown = page(answer)
    if as_json:
        _write(encode(answer))
    else:
        for line in shown.lines:
            typer.echo(line)
    raise typer.Exit(shown.exit)


def main() -> None:
    """Run a command; what people are meant to read goes to stderr in the catalogue's form."""
    _guarded(app, "--json" in sys.argv)


def _guarded(command: Callable[[], None], as_json: bool) -> None:
    try:
        command()
    except OutriderError as error:
        _fail(error, as_json)
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error


def _fail(error: OutriderError, as_json: bool) -> NoReturn:
    if as_json:
        body = {
            "type": error.problem.uri,
            "code": error.code,
            "status": error.problem.status,
            "title": error.problem.title,
            "detail": error.why,
            "help": error.do,
        }
        sys.stderr.write(encode(body).decode() + "\n")
    else:
        sys.stderr.write(f"error[{error.code}]: {error.problem.title}\n")
        if error.why:
            sys.stderr.write(f"  why: {error.why}\n")
        sys.stderr.write(f"  do:  {error.do}\n")
    raise SystemExit(error.problem.exit)


def _write(document: bytes) -> None:
    sys.stdout.write(document.decode() + "\n")
