"""`init`, `serve`, `up`, `demo`: a control plane on this machine."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home
from control_plane.settings import API_PORT, BROKER_PORT, find_home, read
from protocol.errors import InvalidRequest


def init(
    dev: Annotated[
        bool, typer.Option("--dev", help="All keys on this machine: to try it out.")
    ] = False,
    approvers: Annotated[
        str,
        typer.Option(help="With --dev: names, as ana,bo,cy. More than half of them must sign."),
    ] = "",
    fleet: Annotated[str, typer.Option(help="Name of the fleet.")] = "local",
    api_port: Annotated[int, typer.Option(help="0 chooses a free one.")] = API_PORT,
    broker_port: Annotated[int, typer.Option(help="0 chooses a free one.")] = BROKER_PORT,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or address to listen on, and by which devices find it; further ones are"
            " names that its certificates are valid for.",
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make keys, certificates and settings of a new control plane."""
    from control_plane.init import init as init_offline
    from control_plane.init import init_dev
    from control_plane.signing.quorum import dev_warning

    place = find_home(os.environ, home)
    first, *others = host or ["127.0.0.1"]
    if dev:
        names = approvers.split(",") if approvers else []
        settings = init_dev(
            place,
            fleet,
            api_port=api_port,
            broker_port=broker_port,
            host=first,
            hosts=others,
            approvers=names,
        )
    elif approvers:
        raise InvalidRequest("OUT-S120", "--approvers goes with --dev", do="outrider trust init")
    else:
        settings = init_offline(
            place, fleet, api_port=api_port, broker_port=broker_port, host=first, hosts=others
        )
    if as_json:
        showing.document(
            {
                "home": str(settings.home),
                "fleet": settings.fleet,
                "dev": settings.dev,
                "api": f"https://{settings.api_host}:{settings.api_port}",
                "broker": f"{settings.broker_host}:{settings.broker_port}",
            }
        )
        return
    if settings.dev:
        made = "config.yaml, store.sqlite, ca/, keys/, tuf/"
        showing.line("wrote", f"{_near(settings.home)}: {made}")
        showing.line("DEV KEYS", dev_warning(settings.tuf))
        screen.hint("Next: outrider up")
        return
    showing.line("wrote", f"{_near(settings.home)}: config.yaml, store.sqlite, ca/, keys/")
    showing.line("online", "keys for rollouts, snapshot, timestamp: keys/online.pub")
    showing.line("offline", "root and models keys are not made on a server.")
    screen.hint("         Next: outrider trust init")


def serve(home: Home = None) -> None:
    """Run API, ticker and ingest, with a broker that runs elsewhere."""
    from control_plane.serve import serve as run

    _log(screen.wanted().verbose)
    settings = read(os.environ, home)
    screen.hint("safe = have: there is no backup command yet, so records count as backed up")
    run(
        settings,
        ready=lambda _: screen.hint(f"ready    https://{settings.api_host}:{settings.api_port}"),
    )


def up(home: Home = None) -> None:
    """Run a broker and the control plane on this machine."""
    from control_plane.up import up as run

    _log(screen.wanted().verbose)
    screen.hint("safe = have: there is no backup command yet, so records count as backed up")
    run(read(os.environ, home), screen.result)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the checks to this file.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where everything is kept; made anew.")] = Path(
        "build/demo"
    ),
) -> None:
    """Eight devices, one bad model, one cut link, one power cut: about three minutes."""
    from control_plane.demo.play import play

    raise typer.Exit(play(folder.absolute(), sys.stdout, keep=keep, json_file=json_file))


def _near(home: Path) -> str:
    """As one would type it here."""
    here = Path.cwd()
    return f"./{home.relative_to(here)}" if home.is_relative_to(here) else str(home)


def _log(verbose: int) -> None:
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    logging.basicConfig(level=level, stream=sys.stderr, format=form, force=True)
    # It says of each missing signature of a quorum that it is missing, again and again.
    logging.getLogger("tuf").setLevel(max(level, logging.WARNING))
