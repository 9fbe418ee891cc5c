"""`outrider rollout`: start, status, pause, resume, abort."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane.cli import asking, screen, showing
from control_plane.cli.commands import AsJson, Home, Why, Yes, command, connect, group
from control_plane.cli.frames import frame
from control_plane.cli.showing import plural
from control_plane.cli.written import Written
from control_plane.client import Answered, Client, segment
from protocol.errors import InvalidRequest
from protocol.wording import duration

app = group("A version on its way through the fleet.")

LOOK_S: Final = 0.5
EXITS: Final = {"completed": 0, "aborted": 1, "paused": 8}
CHANGES: Final = 8
"""Exit code of `--dry-run`: it works, and something would change."""

_EXCLUDED: Final = {
    "pinned": {True: "is pinned", False: "are pinned"},
    "already there": {True: "runs it already", False: "run it already"},
    "unfit": {True: "cannot run it", False: "cannot run it"},
}

Name = Annotated[str | None, typer.Argument(help="For instance digits-7; the newest without it.")]


@command(app)
def start(
    reference: Annotated[str | None, typer.Argument(help="model/version")] = None,
    to: Annotated[str | None, typer.Option(help="all, or a selector: site = leeds")] = None,
    waves: Annotated[
        str | None, typer.Option(help='Cumulative sizes: "1,3,100%"; all at once without it.')
    ] = None,
    soak: Annotated[str | None, typer.Option(help="Between waves: 24h.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="A rollout in YAML.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring an approved version to devices, wave by wave."""
    written = Written(file) if file is not None else None
    spec = _spec(written, version=reference, to=to, waves=waves, soak=soak)
    with connect(home) as client:
        try:
            preview = client.post("rollouts", spec, dry_run=True)
        except Answered as error:
            raise (written.located(error, spec) if written else error) from error
        if dry_run:
            _preview(preview, as_json)
            raise typer.Exit(CHANGES)
        first, targeted = preview["waves"][0]["devices"], preview["targeted"]
        asking.confirm(
            f"Wave 1 touches {plural(first, 'device')} now, all waves up to {targeted:,}.",
            targeted,
            whole_fleet=preview["matched"] >= client.get("devices", limit=1)["count"],
            yes=yes,
            verb="Start",
        )
        started = client.post("rollouts", spec)
    if as_json:
        showing.document(started)
        return
    name = started["id"]
    screen.result(f"started {name}. Watch: outrider rollout status {name} --watch")


@command(app)
def status(
    rollout: Name = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Until it ends; exits with its outcome.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Where a rollout stands: exit 0, or 1 aborted, 8 paused. Ctrl-C only ends the watching."""
    with connect(home) as client:
        name = rollout or _newest(client)
        shown: dict[str, Any] = {}
        height = 0
        for shown in _looks(client, name, watch):
            if as_json:
                showing.document(shown)
            else:
                height = _draw(list(frame(shown, showing.now_ms())), height)
    raise typer.Exit(EXITS.get(shown["status"], 0))


@command(app)
def pause(rollout: Name = None, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """No further wave; devices go on with what they have begun."""
    _act("pause", rollout, {"why": why}, home, as_json)


@command(app)
def resume(rollout: Name = None, home: Home = None, as_json: AsJson = False) -> None:
    """Go on after a pause."""
    _act("resume", rollout, {}, home, as_json)


@command(app)
def abort(
    rollout: Name = None,
    why: Why = "",
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Every device goes back to what was stable, from its own disk."""
    with connect(home) as client:
        name = rollout or _newest(client)
        activated = client.get(f"rollouts/{segment(name)}")["counts"]["activated"]
        fleet = client.get("devices", limit=1)["count"]
    asking.confirm(
        f"{plural(activated, 'device')} that activated it will go back.",
        activated,
        whole_fleet=activated >= fleet,
        yes=yes,
        verb="Abort",
    )
    _act("abort", name, {"why": why}, home, as_json)


def _looks(client: Client, name: str, watch: bool) -> Iterator[dict[str, Any]]:
    """The rollout now; when watching, each change until it ends or is paused."""
    before: dict[str, Any] = {}
    while True:
        shown: dict[str, Any] = client.get(f"rollouts/{segment(name)}")
        if shown != before:
            yield shown
        before = shown
        if not watch or shown["status"] in EXITS:
            return
        time.sleep(LOOK_S)


def _draw(lines: list[str], above: int) -> int:
    """In place of the `above` lines drawn before on a terminal, else below them."""
    if above and screen.redraws(sys.stdout):
        sys.stdout.write(f"\x1b[{above}A\x1b[J")
    text = "\n".join(lines)
    screen.result(text)
    return text.count("\n") + 1


def _act(
    verb: str, rollout: str | None, body: dict[str, str], home: Path | None, as_json: bool
) -> None:
    with connect(home) as client:
        name = rollout or _newest(client)
        shown = client.post(f"rollouts/{segment(name)}/{verb}", body)
    if as_json:
        showing.document(shown)
        return
    _draw(list(frame(shown, showing.now_ms())), 0)


def _newest(client: Client) -> str:
    items = client.get("rollouts", limit=1)["items"]
    if not items:
        raise InvalidRequest("OUT-S110", "there is no rollout yet", do="outrider rollout start")
    name: str = items[0]["id"]
    return name


def _spec(written: Written | None, **given: str | None) -> dict[str, Any]:
    """The body of a rollout: fields of a file, and options that win over them."""
    spec = dict(written.fields) if written is not None else {}
    spec |= {name: value for name, value in given.items() if value is not None}
    if isinstance(spec.get("waves"), str):
        spec["waves"] = [each.strip() for each in spec["waves"].split(",")]
    if "version" not in spec:
        raise InvalidRequest("OUT-S120", "no version", do="outrider rollout start model/version")
    return spec


def _preview(preview: dict[str, Any], as_json: bool) -> None:
    if as_json:
        showing.document(preview)
        return
    reference = f"{preview['model']}/{preview['version']}"
    screen.result(f"Preview of {reference} to {preview['to']}. Nothing has changed.")
    left_out = ", ".join(
        f"{n:,} {_EXCLUDED.get(why, {}).get(n == 1, why)}"
        for why, n in sorted(preview["excluded"].items())
    )
    counted = f"{preview['matched']:,} match, {preview['targeted']:,} targeted"
    showing.line("devices", f"{counted}: {left_out}" if left_out else counted)
    screen.result("")
    before, rows = 0, []
    for wave in preview["waves"]:
        more = f"+{wave['devices'] - before:,}" if before else f"{wave['devices']:,}"
        soak = duration(wave["soak_seconds"]) if wave["soak_seconds"] else "-"
        rows.append([str(wave["wave"]), more, soak])
        before = wave["devices"]
    showing.table(["WAVE", ">DEVICES", "SOAK"], rows)
