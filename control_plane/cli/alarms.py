"""`outrider alarm`: what was found in inputs, and looking after it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Cursor, Home, Why, command, connect, group
from control_plane.client import segment
from protocol import moments
from protocol.errors import InvalidRequest
from protocol.wording import date, moment

app = group("What was found in the inputs of devices, and who looks after it.")

Alarm = Annotated[str, typer.Argument(metavar="ALARM", help="Like alarm-17.")]

_EVERY = "open,acknowledged,snoozed,resolved"


@command(app, "list")
def list_alarms(
    every: Annotated[bool, typer.Option("--all", help="Also those that are resolved.")] = False,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    cursor: Cursor = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Alarms that are not resolved, newest first."""
    with connect(home) as client:
        page = client.get(
            "alarms",
            state=_EVERY if every else None,
            model=model,
            limit=showing.MOST_ROWS,
            cursor=cursor,
        )
    if as_json:
        showing.document(page)
        return
    if not page["items"]:
        screen.result("no alarms")
        return
    now_ms = showing.now_ms()
    for each in page["items"]:
        opened = moment(showing.moment_ms(each["opened"]), now_ms)
        screen.result(f"{each['id']:<11}{_state(each, now_ms)}, {each['model']}, opened {opened}")
        showing.line("", each["sentence"], width=11)
    showing.listed(page, "alarm", f"outrider alarm list{' --all' if every else ''}")


@command(app)
def show(alarm: Alarm, home: Home = None, as_json: AsJson = False) -> None:
    """One alarm, and the records that it rests on."""
    with connect(home) as client:
        found = client.get(f"alarms/{segment(alarm)}")
    if as_json:
        showing.document(found)
        return
    _show(found["alarm"])
    now_ms = showing.now_ms()
    for each in found["records"]:
        at = date(showing.moment_ms(each["at"]) or 0, now_ms)
        showing.line("record", f"{each['digest'][:15]} {at}: {each['verdict']}")
    screen.hint(f"its numbers: outrider drift explain {found['alarm']['id']}")


@command(app)
def acknowledge(alarm: Alarm, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """You look after it; it ends by itself when nothing is found any more."""
    _act(alarm, "acknowledge", {"why": why}, home, as_json)


@command(app)
def snooze(
    alarm: Alarm,
    until: Annotated[str, typer.Option(help=f"{moments.FORMS}: it opens again then.")],
    why: Why = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Tell nobody of it for a while."""
    try:
        end_ms = moments.ahead(until, showing.now_ms())
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"--until: {moments.FORMS}, got {until}") from error
    end = datetime.fromtimestamp(end_ms / 1000, UTC).isoformat()
    _act(alarm, "snooze", {"until": end, "why": why}, home, as_json)


@command(app)
def resolve(alarm: Alarm, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """It is over. If it is found again, a new one opens."""
    _act(alarm, "resolve", {"why": why}, home, as_json)


def _act(alarm: str, verb: str, body: dict[str, Any], home: Home, as_json: bool) -> None:
    with connect(home) as client:
        found = client.post(f"alarms/{segment(alarm)}/{verb}", body)
    if as_json:
        showing.document(found)
        return
    _show(found)


def _show(alarm: dict[str, Any]) -> None:
    now_ms = showing.now_ms()
    showing.line("alarm", f"{alarm['id']}: {_state(alarm, now_ms)}")
    showing.line("found", alarm["sentence"])
    version = f"/{alarm['version']}" if alarm["version"] else ""
    showing.line("in", f"{alarm['model']}{version}, {alarm['subject']}")
    seen = [f"{word} {_at(alarm[word], now_ms)}" for word in ("opened", "seen")]
    showing.line("when", ", ".join(seen))
    if alarm["why"]:
        showing.line("why", alarm["why"])


def _state(alarm: dict[str, Any], now_ms: int) -> str:
    if alarm["until"]:
        return f"snoozed until {_at(alarm['until'], now_ms)} by {alarm['by']}"
    return alarm["state"] if alarm["state"] == "open" else f"{alarm['state']} by {alarm['by']}"


def _at(text: str, now_ms: int) -> str:
    return date(showing.moment_ms(text) or 0, now_ms)
