"""`outrider`: what operators and approvers type."""

from __future__ import annotations

import sys

import typer

from control_plane.cli import catalog, devices, explaining, rollouts, setting_up, showing
from protocol.errors import OutriderError

app = typer.Typer(
    name="outrider",
    help="Ships models to fleets of edge devices and keeps them right there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(catalog.app, name="model")
app.add_typer(rollouts.app, name="rollout")
app.add_typer(devices.app, name="device")
for command in (setting_up.init, setting_up.serve, setting_up.up, setting_up.demo):
    app.command()(command)
app.command()(explaining.explain)


def main() -> None:
    """Run a command. Results go to stdout, everything else to stderr; the exit code says how."""
    try:
        app()
    except OutriderError as error:
        showing.fail(error, as_json="--json" in sys.argv)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
