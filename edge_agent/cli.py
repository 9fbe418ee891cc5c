"""`outrider-agent`: what runs on a device, and what its technician types."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge_agent import daemon
from edge_agent import settings as settings_of
from protocol.codec import encode
from protocol.errors import InvalidRequest, OutriderError
from protocol.telling import document, told

if TYPE_CHECKING:
    from edge_agent.identity import Identity

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
    renew: Annotated[
        bool, typer.Option("--renew", help="The next certificate of a device that is enrolled.")
    ] = False,
    csr_to: Annotated[
        Path | None, typer.Option(help="Without network: write a request file into this folder.")
    ] = None,
    answer: Annotated[
        Path | None, typer.Option(help="Without network: the operator's answer file.")
    ] = None,
    root_digest: Annotated[
        str | None, typer.Option(help="With --answer: the digest that the operator was shown.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make this device's key and join a fleet with a one-time token, or renew its certificate."""
    from edge_agent import offline
    from edge_agent.enrol import enrol as join

    place = settings_of.read(os.environ, home).paths.home
    _require_fitting(token_file, name, renew, csr_to, answer, root_digest)
    if csr_to is not None:
        file = (
            offline.write_renewal(place, csr_to)
            if renew
            else offline.write_request(place, csr_to, name)
        )
        _tell_request(file, as_json)
        return
    if renew:
        from edge_agent.identity import load
        from edge_agent.renew import renew as ask

        identity = (
            offline.take_renewal(place, answer)
            if answer is not None
            else ask(place, offline.trusted_ms(load(place)))
        )
        if as_json:
            _write(encode(identity.public))
        else:
            typer.echo(f"renewed    {identity.local}; cert until {_until(identity)}")
        return
    if answer is not None and root_digest is not None:
        identity = offline.take_answer(place, answer, root_digest)
    else:
        identity = join(_token(token_file), place, name=name)
    if as_json:
        _write(encode(identity.public))
        return
    labels = "".join(f", {key}={value}" for key, value in sorted(identity.labels.items()))
    told = f"{identity.local} in fleet {identity.fleet}{labels}"
    if token_file is not None:
        typer.echo(f"enrolled {told}")
        return
    typer.echo("key        made on this device, stays here", err=True)
    typer.echo(f"root.json  matches the {'token' if answer is None else 'digest'}", err=True)
    typer.echo(f"enrolled   {told}; cert until {_until(identity)}")


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


@app.command()
def install(
    folder: Annotated[Path, typer.Option("--from", help="Folder of the stick.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Install what a stick brings: signatures count as ever, only freshness is not asked for."""
    from edge_agent.technician.installing import install as carry_out

    socket = settings_of.read(os.environ, home).paths.socket
    raise typer.Exit(carry_out(socket, folder, as_json=as_json))


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


def _require_fitting(
    token_file: Path | None,
    name: str | None,
    renew: bool,
    csr_to: Path | None,
    answer: Path | None,
    root_digest: str | None,
) -> None:
    """Raise `InvalidRequest` OUT-S120 for options of `enrol` that say two things at once."""
    enrols_with_file = answer is not None and not renew
    wrong = {
        "either --csr-to or --answer: first the one, later the other": csr_to and answer,
        "with files there is no token": token_file and (renew or csr_to or answer),
        "the name goes into the request: --csr-to": name and (renew or answer),
        "--root-digest goes with --answer": root_digest and not enrols_with_file,
        "--root-digest is missing: the operator's command showed it": (
            enrols_with_file and not root_digest
        ),
    }
    for why, said in wrong.items():
        if said:
            raise InvalidRequest("OUT-S120", why, do="outrider-agent enrol --help")


def _tell_request(file: Path, as_json: bool) -> None:
    if as_json:
        _write(json.dumps({"request": str(file)}).encode())
        return
    typer.echo("key        stays on this device", err=True)
    typer.echo(f"wrote      {file}")
    typer.echo(
        f"next       an operator runs: outrider device sign-request {file.name} --to .", err=True
    )


def _until(identity: Identity) -> str:
    from edge_agent.identity import certificate_until_ms

    until = datetime.fromtimestamp(certificate_until_ms(identity.folder) / 1000, UTC)
    return f"{until.day} {until:%b %Y}"


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
