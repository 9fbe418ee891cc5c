"""What a rollout is asked to be: a file, the few options that people type, and both together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli import asking
from control_plane.cli.written import Written
from control_plane.client import Answered, Client
from protocol.errors import InvalidRequest

Reference = Annotated[str | None, typer.Argument(help="model/version")]
File = Annotated[Path | None, typer.Option("-f", "--file", help="A rollout in YAML.")]
To = Annotated[str | None, typer.Option(help="all, or a selector: site = leeds")]
Waves = Annotated[
    str | None,
    typer.Option(help='Cumulative sizes: "1,3,100%"; by the size of the fleet without it.'),
]
Soak = Annotated[str | None, typer.Option(help="How long each wave is watched: 24h.")]
Gates = Annotated[
    str | None, typer.Option(help='"off": compare no scores, judge only failures and silence.')
]
Shadow = Annotated[
    bool, typer.Option("--shadow", help="First beside the current version, without answering.")
]
Holdback = Annotated[
    str | None, typer.Option(help='Devices to compare with until it completes: "5 %", or 20.')
]
Unproven = Annotated[
    str | None, typer.Option(help="Neither harm nor safety is shown: ask (as usual), or proceed.")
]
OnFailure = Annotated[str | None, typer.Option(help="abort rollback, abort keep, or pause.")]
Supersede = Annotated[
    str | None, typer.Option(help="End this rollout, digits-7, as the new one starts.")
]
ExpectDevices = Annotated[
    int | None,
    typer.Option("--expect-devices", help="With --yes: so many devices, else nothing happens."),
]


class Asked:
    """The body of a rollout: fields of `file`, and options that win over them.

    Raises `InvalidRequest` OUT-S120 for a file that is none, or without a version; `OSError`.
    """

    def __init__(self, file: Path | None, **given: str | bool | None) -> None:
        self._written = Written(file) if file is not None else None
        self._file = file
        self.body: dict[str, Any] = dict(self._written.fields) if self._written else {}
        for name, value in given.items():
            if value is not None and value is not False:
                self.body[name] = "on" if value is True else value
        waves = self.body.get("waves")
        if isinstance(waves, str):
            self.body["waves"] = [each.strip() for each in waves.split(",")]
        held = self.body.get("holdback")
        if isinstance(held, str) and held.strip().isdecimal():
            self.body["holdback"] = int(held)
        if "version" not in self.body:
            raise InvalidRequest(
                "OUT-S120", "no version", do="outrider rollout start model/version"
            )

    @property
    def look_again(self) -> str:
        """The command that shows what it would do now."""
        given = f"-f {self._file}" if self._file else str(self.body["version"])
        return f"outrider rollout plan {given}"

    def preview(self, client: Client) -> dict[str, Any]:
        """Raises what the API says, with the file's line where it is about a field in it."""
        try:
            shown: dict[str, Any] = client.post("rollouts", self.body, dry_run=True)
        except Answered as error:
            raise (self._written.located(error, self.body) if self._written else error) from error
        return shown


def agree(
    what: str,
    devices: int,
    *,
    whole_fleet: bool,
    yes: bool,
    expected: int | None,
    look_again: str,
    verb: str = "Start",
) -> None:
    """A person's yes, or `--yes` with the number of devices that a script expects.

    Raises `InvalidRequest`: OUT-S152 without either, OUT-R206 for another number.
    """
    if expected is not None and expected != devices:
        raise InvalidRequest(
            "OUT-R206", f"{devices:,} devices match now, not {expected:,}", do=look_again
        )
    do = f"look at what it would do, then: --yes --expect-devices {devices}"
    if yes and expected is None and devices > 1:
        raise InvalidRequest("OUT-S152", f"{what} --yes alone would mean any number", do=do)
    asking.confirm(what, devices, whole_fleet=whole_fleet, yes=yes, verb=verb, do=do)


def fleet_of(client: Client) -> int:
    """How many devices there are."""
    return int(client.get("devices", limit=1)["count"])
