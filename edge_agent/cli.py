"""`outrider-agent`: what runs on a device, and what its technician types."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from edge_agent import daemon
from edge_agent import settings as settings_of
from protocol.codec import encode
from protocol.errors import InvalidRequest, OutriderError
from protocol.telling import document, told

INTERRUPTED: Final = 130
USAGE: Final = 2

app = typer.Typer(
    name="outrider-agent",
    help="Runs approved models on this device and keeps them right.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
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
    from edge_agent.identity import certificate_until_ms

    paths = settings_of.read(os.environ, home).paths
    token = _token(token_file)
    identity = join(token, paths.home, name=name)
    if as_json:
        _write(encode(identity.public))
        return
    labels = "".join(f", {key}={value}" for key, value in sorted(identity.labels.items()))
    told = f"{identity.local} in fleet {identity.fleet}{labels}"
    if token_file is not None:
        typer.echo(f"enrolled {told}")
        return
    typer.echo("key        made on this device, stays here", err=True)
    typer.echo("root.json  matches the token", err=True)
    until = datetime.fromtimestamp(certificate_until_ms(identity.folder) / 1000, UTC)
    typer.echo(f"enrolled   {told}; cert until {until.day} {until:%b %Y}")


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
    daemon.become(settings_of.read(os.environ, home, port, broker), verbose)


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """What runs here, why, and what to do next. Exit 0 normal, 8 look, 1 no model, 7 no agent."""
    from edge_agent.technician.door import ask
    from edge_agent.technician.page import page

    answer = ask(settings_of.read(os.environ, home).paths.socket)
    shown = page(answer)
    if as_json:
        _write(encode(answer))
    else:
        for line in shown.lines:
            typer.echo(line)
    raise typer.Exit(shown.exit)


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
        return _fail(error, as_json)
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return _misused(error, as_json)
    except OSError as error:
        return _fail(daemon.of_the_machine(error), as_json)


def _token(file: Path | None) -> str:
    """Never from the command line: others on this machine can read that."""
    if file is None:
        if sys.stdin.isatty():
            text = str(
                typer.prompt("Token (or the text of its QR code)", hide_input=True, err=True)
            )
        else:
            text = sys.stdin.readline()
    else:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            do = "an operator runs: outrider device enrol-token > FILE"
            raise InvalidRequest("OUT-S110", f"no token in {file}", do=do) from error
    return text.strip()


def _misused(error: typer.TyperException, as_json: bool) -> int:
    text = error.format_message().rstrip(".")
    if text.startswith("Usage:"):
        sys.stderr.write(text + "\n")
        return USAGE
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "outrider-agent"
    wrong = text[:1].lower() + text[1:]
    return _fail(InvalidRequest("OUT-S120", wrong, do=f"{command} --help"), as_json)


def _fail(error: OutriderError, as_json: bool) -> int:
    if as_json:
        sys.stderr.write(json.dumps(document(error)) + "\n")
    else:
        sys.stderr.write("\n".join(told(error)) + "\n")
    return error.problem.exit


def _write(data: bytes) -> None:
    """JSON is UTF-8, whatever the terminal speaks."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()
