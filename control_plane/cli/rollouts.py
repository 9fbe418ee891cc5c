"""`outrider rollout`: start, status, pause, resume, abort."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from control_plane.cli import showing
from control_plane.client import Client, segment
from protocol.errors import InvalidRequest
from protocol.wording import clock, count, duration, share

app = typer.Typer(no_args_is_help=True, help="A version on its way through the fleet.")

LOOK_S: Final = 0.5
EXITS: Final = {"completed": 0, "aborted": 1, "paused": 8}

Name = Annotated[str | None, typer.Argument(help="For instance digits-7; the newest without it.")]
Why = Annotated[str, typer.Option(help="For the record.")]


@app.command()
def start(
    reference: Annotated[str | None, typer.Argument(help="model/version")] = None,
    to: Annotated[str | None, typer.Option(help="all, or a selector: site = leeds")] = None,
    waves: Annotated[
        str | None, typer.Option(help='Cumulative sizes: "1,3,100%"; all at once without it.')
    ] = None,
    soak: Annotated[str | None, typer.Option(help="Between waves: 24h.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="A rollout in YAML.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what it would do.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Bring an approved version to devices, wave by wave."""
    spec = _spec(file, version=reference, to=to, waves=waves, soak=soak)
    with showing.connect(home) as client:
        preview = client.post("rollouts", spec, dry_run=True)
        if dry_run:
            _preview(preview, as_json)
            raise typer.Exit(8)
        first = preview["waves"][0]["devices"]
        whole = preview["targeted"] == preview["matched"] and preview["to"] == "all"
        showing.confirm(
            f"Wave 1 touches {first:,} devices now, all waves up to {preview['targeted']:,}.",
            preview["targeted"],
            whole,
            yes or as_json,
        )
        started = client.post("rollouts", spec)
    if as_json:
        showing.document(started)
        return
    typer.echo(f"started {started['id']}. Watch: outrider rollout status {started['id']} --watch")


@app.command()
def status(
    rollout: Name = None,
    watch: Annotated[bool, typer.Option(help="Until it ends; exits with its outcome.")] = False,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Where a rollout stands. --watch exits 0 completed, 1 aborted, 8 paused."""
    with showing.connect(home) as client:
        name = rollout or _newest(client)
        shown: dict[str, Any] = {}
        for shown in _frames(client, name, watch):
            if as_json:
                showing.document(shown)
            else:
                for text in frame(shown):
                    typer.echo(text)
    if watch or shown["status"] in ("aborted", "paused"):
        raise typer.Exit(EXITS.get(shown["status"], 0))


@app.command()
def pause(
    rollout: Name = None, why: Why = "", home: showing.Home = None, as_json: showing.AsJson = False
) -> None:
    """No further wave; devices go on with what they have begun."""
    _act("pause", rollout, why, home, as_json)


@app.command()
def resume(
    rollout: Name = None, home: showing.Home = None, as_json: showing.AsJson = False
) -> None:
    """Go on after a pause."""
    _act("resume", rollout, None, home, as_json)


@app.command()
def abort(
    rollout: Name = None,
    why: Why = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Every device goes back to what was stable, from its own disk."""
    with showing.connect(home) as client:
        name = rollout or _newest(client)
        activated = client.get(f"rollouts/{segment(name)}")["counts"].get("activated", 0)
    question = f"{activated:,} devices that activated it go back."
    showing.confirm(question, activated, False, yes or as_json)
    _act("abort", name, why, home, as_json)


def frame(shown: dict[str, Any]) -> Iterator[str]:
    """One look at a rollout: a line, the verdict, and a tree of waves."""
    over = f" over {shown['model']}/{shown['over']}" if shown["over"] else ""
    candidate = f"{shown['model']}/{shown['version']}"
    head = f"{shown['id']}  {candidate}"
    counts = shown["counts"]
    if shown["status"] == "completed":
        yield f"{head}  completed  {share(counts['healthy'], shown['targeted'])} healthy"
        return
    if shown["status"] == "aborted":
        returning = shown.get("returning") or {"confirmed": 0, "of": 0}
        back = share(returning["confirmed"], returning["of"])
        yield f"{head}  aborted  {back} back on what ran before"
        if shown["why"]:
            yield f"why        {shown['why']}"
        return
    at = clock(showing.now_ms(), showing.now_ms())
    yield f"{head}{over}   wave {shown['wave']} of {len(shown['waves'])}, {shown['status']}   {at}"
    if shown["sentence"]:
        yield f"verdict    {shown['verdict']}: {shown['sentence']}"
    last = len(shown["waves"]) - 1
    for number, wave in enumerate(shown["waves"]):
        branch = "└─" if number == last else "├─"
        soak = f", soak {duration(wave['soak_seconds'])}" if wave["soak_seconds"] else ""
        if wave["state"] == "waiting":
            yield f"{branch} wave {wave['wave']}  waiting, up to {wave['devices']:,} devices{soak}"
            continue
        parts = [f"{name.replace('_', ' ')} {value:,}" for name, value in wave["counts"].items()]
        yield f"{branch} wave {wave['wave']}  " + "  ".join(parts[:5])
        if parts[5:]:
            yield f"{'│ ' if number != last else '  '}         " + "  ".join(parts[5:])
    for code, devices in sorted(shown["reasons"].items()):
        yield f"reason     {code} on {devices:,} devices"


def _frames(client: Client, name: str, watch: bool) -> Iterator[dict[str, Any]]:
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


def _act(verb: str, rollout: str | None, why: str | None, home: Path | None, as_json: bool) -> None:
    with showing.connect(home) as client:
        name = rollout or _newest(client)
        body = {} if why is None else {"why": why}
        shown = client.post(f"rollouts/{segment(name)}/{verb}", body)
    if as_json:
        showing.document(shown)
        return
    for text in frame(shown):
        typer.echo(text)


def _newest(client: Client) -> str:
    items = client.get("rollouts", limit=1)["items"]
    if not items:
        raise InvalidRequest("OUT-S110", "there is no rollout yet", do="outrider rollout start")
    name: str = items[0]["id"]
    return name


def _spec(file: Path | None, **given: str | None) -> dict[str, Any]:
    """The body of a rollout: a YAML file, and flags that win over it."""
    spec: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidRequest("OUT-S120", f"{file}: {error}") from error
        if not isinstance(loaded, dict):
            raise InvalidRequest("OUT-S120", f"{file}: a rollout is a list of fields")
        spec = loaded
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
    typer.echo(
        f"Preview of {preview['model']}/{preview['version']} to {preview['to']}."
        " Nothing has changed."
    )
    left_out = ", ".join(f"{n} {why}" for why, n in sorted(preview["excluded"].items()))
    showing.line(
        "devices",
        f"{count(preview['matched'])} match, {count(preview['targeted'])} targeted"
        + (f": {left_out}" if left_out else ""),
    )
    rows = [
        [str(wave["wave"]), str(wave["devices"]), duration(wave["soak_seconds"])]
        for wave in preview["waves"]
    ]
    showing.table(["WAVE", ">DEVICES", "SOAK"], rows)
