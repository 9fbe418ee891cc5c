"""`outrider-agent install-service`: the agent as a service of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from edge_agent.cli.commands import AsJson, write
from edge_agent.settings import DEFAULT_HOME

_LABEL: Final = 8
LOOK: Final = 8
"""Exit code of a dry run that would change something."""


def install_service(
    home: Annotated[Path, typer.Option(help="State folder of the service.")] = DEFAULT_HOME,
    user: Annotated[str, typer.Option(help="Its user; made if there is none.")] = "outrider",
    port: Annotated[int | None, typer.Option(help="Inference port on loopback.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="HOST:PORT of a broker at the site, instead of the fleet's.")
    ] = None,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start it now, if this device is enrolled.")
    ] = True,
    only_print: Annotated[bool, typer.Option("--print", help="Only show the unit.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(help="Prepare an image: files go below DIR, commands are only shown."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the agent as a service: a user, a folder, a unit of systemd. May be repeated."""
    from edge_agent import unit
    from edge_agent.technician import enabling

    terms = unit.Terms(
        PurePosixPath(_program()), PurePosixPath(home.absolute()), user, port, broker
    )
    if only_print:
        sys.stdout.write(unit.text(terms))
        return
    told: list[Sequence[str]] = []
    machine = enabling.this_machine() if root is None else enabling.on_paper(root, told)
    if not dry_run:
        enabling.require_possible(machine)
    todo = enabling.steps(machine, terms, start=start)
    done = []
    for step in todo:
        if not dry_run:
            step.act()
        done.append({"step": step.what, "detail": step.detail})
        if not as_json:
            typer.echo(f"{step.what:<{_LABEL}}{step.detail}")
    left = enabling.next_of(machine, terms, start=start)
    commands = [" ".join(command) for command in told]
    if as_json:
        said = {"dry_run": dry_run, "steps": done, "commands": commands, "next": left}
        write(json.dumps(said).encode())
    else:
        for command in commands:
            typer.echo(f"{'run':<{_LABEL}}{command}")
        typer.echo(f"{'next':<{_LABEL}}{left}")
    raise typer.Exit(LOOK if dry_run else 0)


def _program() -> Path:
    """This very installation. Links stay: an environment's interpreter is one."""
    beside = Path(sys.executable).parent / "outrider-agent"
    return beside if beside.exists() else Path(sys.argv[0]).absolute()
