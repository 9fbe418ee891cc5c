"""`outrider`: what operators and approvers type."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from control_plane.cli import (
    alarms,
    audit,
    auth,
    broker,
    device_records,
    drifts,
    explaining,
    export,
    failing,
    keys,
    profiles,
    releases,
    rollouts,
    screen,
    setting_up,
    trust,
    webhooks,
)
from control_plane.cli.commands import command
from protocol.errors import OutriderError

INTERRUPTED = 130

app = typer.Typer(
    name="outrider",
    help="Ships models to fleets of edge devices and keeps them right there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for each in (setting_up.init, setting_up.up, setting_up.serve, setting_up.demo):
    command(app)(each)
app.add_typer(releases.app, name="model")
app.add_typer(rollouts.app, name="rollout")
app.add_typer(device_records.app, name="device")
app.add_typer(profiles.app, name="profile")
app.add_typer(drifts.app, name="drift")
app.add_typer(alarms.app, name="alarm")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(export.app, name="export")
app.add_typer(auth.app, name="auth")
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="keys")
app.add_typer(trust.app, name="trust")
app.add_typer(broker.app, name="broker")
command(app)(explaining.explain)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code. Results go to stdout, everything else to stderr."""
    as_json = "--json" in arguments
    screen.want(screen.Wanted())
    try:
        return int(app(arguments, prog_name="outrider", standalone_mode=False) or 0)
    except OutriderError as error:
        return failing.fail(error, as_json=as_json)
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return failing.misused(error, as_json=as_json)
    except OSError as error:
        return failing.fail(failing.unreadable(error), as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last place: said in our words, -v says where
        return failing.fail(failing.fault(error), as_json=as_json)
