"""`outrider broker`: the configuration of a broker in production."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from control_plane.broker_files import CONFIGURATION, DATA, USER, write_production
from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home, command, group
from control_plane.mosquitto import MAX_CONNECTIONS
from control_plane.settings import FILE, find_home, read

app = group("The MQTT broker of one fleet or of several.")


@app.callback()
def broker() -> None:
    """The MQTT broker of one fleet or of several."""


@command(app)
def config(
    to: Annotated[Path, typer.Option(help="Folder that the broker reads.")],
    fleet_home: Annotated[
        list[Path] | None,
        typer.Option(help="Home of a further fleet on the same broker; may be repeated."),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="Address of the broker's machine; all of them without it.")
    ] = "",
    data: Annotated[Path, typer.Option(help="Folder in which the broker saves.")] = DATA,
    user: Annotated[str, typer.Option(help="Whom the broker becomes if root starts it.")] = USER,
    max_connections: Annotated[
        int, typer.Option(help="Of each fleet.", min=1, max=1_000_000)
    ] = MAX_CONNECTIONS,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the configuration of a Mosquitto: one listener, authority and ACL for each fleet."""
    fleets = [read({}, find_home(os.environ, home))]
    fleets += [read({}, each) for each in fleet_home or []]
    place = to.absolute()
    listeners = write_production(
        fleets, place, listen=listen, data=data, user=user, max_connections=max_connections
    )
    if as_json:
        showing.document(
            {
                "configuration": str(place / CONFIGURATION),
                "listeners": [
                    {"fleet": each.fleet, "port": each.port, "files": str(place / each.fleet)}
                    for each in listeners
                ],
            }
        )
        return
    showing.line("wrote", str(place / CONFIGURATION))
    for each in listeners:
        showing.line(each.fleet, f"{listen}:{each.port}, mutual TLS; files in {place / each.fleet}")
    for settings in fleets:
        files = str(place / settings.fleet)
        if settings.broker_files != files:
            screen.hint(f"So that revocations reach it, in {settings.home / FILE}:")
            screen.hint(f"broker_files: {files}")
            screen.hint("broker_reload: [systemctl, reload, mosquitto]")
