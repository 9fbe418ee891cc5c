"""`outrider rollout plan` and `start`: look at what would happen, then let it happen."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from control_plane.cli import asked, previews, screen, showing
from control_plane.cli.asked import Asked
from control_plane.cli.commands import AsJson, Home, Why, Yes, connect
from control_plane.cli.showing import plural
from control_plane.client import segment
from protocol.errors import InvalidRequest

CHANGES: Final = 8
"""Exit code of a preview: it works, and something would change."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")]


def plan(
    reference: asked.Reference = None,
    file: asked.File = None,
    to: asked.To = None,
    waves: asked.Waves = None,
    soak: asked.Soak = None,
    gates: asked.Gates = None,
    shadow: asked.Shadow = False,
    holdback: asked.Holdback = None,
    unproven: asked.Unproven = None,
    on_failure: asked.OnFailure = None,
    supersede: asked.Supersede = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What a rollout would do, and what it can and cannot find out. Changes nothing."""
    spec = Asked(
        file, version=reference, to=to, waves=waves, soak=soak, gates=gates, shadow=shadow,
        holdback=holdback, unproven=unproven, on_failure=on_failure, supersedes=supersede,
    )  # fmt: skip
    with connect(home) as client:
        preview = spec.preview(client)
    _show(preview, as_json)
    raise typer.Exit(CHANGES)


def start(
    reference: asked.Reference = None,
    file: asked.File = None,
    to: asked.To = None,
    waves: asked.Waves = None,
    soak: asked.Soak = None,
    gates: asked.Gates = None,
    shadow: asked.Shadow = False,
    holdback: asked.Holdback = None,
    unproven: asked.Unproven = None,
    on_failure: asked.OnFailure = None,
    supersede: asked.Supersede = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    expect_devices: asked.ExpectDevices = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring an approved version to devices, wave by wave."""
    spec = Asked(
        file, version=reference, to=to, waves=waves, soak=soak, gates=gates, shadow=shadow,
        holdback=holdback, unproven=unproven, on_failure=on_failure, supersedes=supersede,
    )  # fmt: skip
    with connect(home) as client:
        preview = spec.preview(client)
        if dry_run:
            _show(preview, as_json)
            raise typer.Exit(CHANGES)
        _refuse_conflict(preview)
        first, targeted = preview["waves"][0]["more"], preview["targeted"]
        ends = f" It ends {spec.body['supersedes']}." if "supersedes" in spec.body else ""
        asked.agree(
            f"Wave 1 touches {plural(first, 'device')} now, all waves up to {targeted:,}.{ends}",
            targeted,
            whole_fleet=preview["matched"] >= asked.fleet_of(client),
            yes=yes,
            expected=expect_devices,
            look_again=spec.look_again,
        )
        # What was agreed to is what starts: another number of devices by now is refused.
        started = client.post("rollouts", {**spec.body, "expect_devices": targeted})
    _started(started, as_json)


def return_to(
    reference: Annotated[str, typer.Argument(help="model/version, approved.")],
    to: asked.To = None,
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    expect_devices: asked.ExpectDevices = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Every device back to an approved version, now, from its own disk where it is there."""
    model, _, version = reference.partition("/")
    if not model or not version:
        raise InvalidRequest("OUT-S120", f"{reference} is not model/version", do="digits/v1")
    body = {"version": version, "to": to or "all", "why": why}
    path = f"models/{segment(model)}/return"
    with connect(home) as client:
        preview = client.post(path, body, dry_run=True)
        if dry_run:
            _show_return(preview, as_json)
            raise typer.Exit(CHANGES)
        targeted = preview["targeted"]
        what = f"{plural(targeted, 'device')} shall run {reference}"
        if sys.stdin.isatty() and not yes:
            # Above the question, which is one line.
            screen.hint(f"{_return(preview)}.")
        else:
            what += f": {_return(preview)}"
        asked.agree(
            f"{what}.",
            targeted,
            whole_fleet=preview["matched"] >= asked.fleet_of(client),
            yes=yes,
            expected=expect_devices,
            look_again=f"outrider rollout return {reference} --dry-run",
            verb="Return",
        )
        started = client.post(path, {**body, "expect_devices": targeted})
    _started(started, as_json)


# --- saying it ------------------------------------------------------------------------------------


def _show(preview: dict[str, Any], as_json: bool) -> None:
    if as_json:
        showing.document(preview)
        return
    screen.result(previews.head(preview))
    for label, text in previews.facts(preview):
        showing.line(label, text)
    screen.result("")
    showing.table(previews.columns(preview), previews.rows(preview, showing.now_ms()))
    screen.result("")
    if away := previews.unlinked(preview):
        screen.result(away)
    screen.result("What wave 1 can and cannot show:")
    for sentence in preview["sentences"]:
        showing.line("-", sentence, width=2)


def _show_return(preview: dict[str, Any], as_json: bool) -> None:
    if as_json:
        showing.document(preview)
        return
    reference = f"{preview['model']}/{preview['version']}"
    screen.result(f"Preview of a return to {reference} of {preview['to']}. Nothing has changed.")
    showing.line("devices", previews.devices(preview))
    showing.line("back", _return(preview))


def _return(preview: dict[str, Any]) -> str:
    """ "291 run another version, 12 need a download; ends digits-7"."""
    changing, downloading = preview["changing"], preview["downloading"]
    said = f"{changing:,} {'runs' if changing == 1 else 'run'} another version now"
    need = "needs" if downloading == 1 else "need"
    said += f", {downloading:,} {need} a download" if downloading else ", 0 bytes to download"
    return said + (f"; ends {', '.join(preview['supersedes'])}" if preview["supersedes"] else "")


def _started(started: dict[str, Any], as_json: bool) -> None:
    if as_json:
        showing.document(started)
        return
    name = started["id"]
    screen.result(f"started {name}. Watch: outrider rollout status {name} --watch")


def _refuse_conflict(preview: dict[str, Any]) -> None:
    """Nobody is asked about what is refused afterwards. Raises `InvalidRequest` OUT-R201."""
    for other in preview["in_the_way"]:
        name = other["rollout"]
        raise InvalidRequest(
            "OUT-R201",
            f"{other['devices']:,} of your {plural(preview['targeted'], 'device')} are in {name}",
            do=f"abort {name}, or supersede it: --supersede {name}",
        )
