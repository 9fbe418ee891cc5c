"""`outrider device`: tokens, lists, one device, pins, and lifting what a device denied."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from control_plane.cli import device_pages, device_settings, screen, showing
from control_plane.cli.commands import AsJson, Cursor, Home, Why, command, connect, group
from control_plane.client import Client, segment
from protocol.errors import InvalidRequest
from protocol.identifiers import model_version
from protocol.moments import FORMS, ahead
from protocol.wording import day

app = group("Devices of the fleet.")

Name = Annotated[str, typer.Argument(help="Name of a device.")]
Reference = Annotated[str, typer.Argument(help="model/version")]


@command(app, "enrol-token")
def enrol_token(
    label: Annotated[
        list[str] | None, typer.Option(help="key=value; bound to the token, may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The device's name; chosen without it.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """A one-time token with which one device joins the fleet within 24 hours."""
    labels = dict(pair(each) for each in label or [])
    with connect(home) as client:
        answer = client.post("tokens", {"labels": labels, "name": name})
    if as_json:
        showing.document(answer)
        return
    screen.result(answer["token"])
    screen.hint("enrols one device within 24 h: outrider-agent enrol --token-file FILE")


@command(app, "list")
def list_devices(
    selector: Annotated[
        str | None, typer.Argument(help="For instance: site = leeds and not line")
    ] = None,
    cursor: Cursor = None,
    retired: Annotated[
        bool, typer.Option("--retired", help="Those that have left the fleet.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Devices, what they run and how they are."""
    asked = {"retired": True} if retired else {}
    with connect(home) as client:
        page = client.get(
            "devices", selector=selector, limit=showing.MOST_ROWS, cursor=cursor, **asked
        )
    if as_json:
        showing.document(page)
        return
    now_ms = showing.now_ms()
    rows = [row for device in page["items"] for row in device_pages.rows(device, now_ms)]
    if rows:
        showing.table(device_pages.COLUMNS, rows)
    quoted = " '" + selector.replace("'", "'\\''") + "'" if selector else ""
    showing.listed(page, "device", f"outrider device list{' --retired' if retired else ''}{quoted}")


@command(app)
def show(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """One device: what it runs, what it should run, what it waits for."""
    with connect(home) as client:
        found = client.get(_path(name))
        if as_json:
            showing.document(found)
            return
        records = client.get(f"{_path(name)}/records")
    for label, text in device_pages.page(found, records, showing.now_ms()):
        showing.line(label, text, width=showing.WIDE_LABEL)


@command(app)
def pin(
    name: Name,
    reference: Reference,
    why: Why = "",
    until: Annotated[str | None, typer.Option(help=f"{FORMS}; for ever without it.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hold a device at one version, whatever rollouts say."""
    model, version = _reference(reference)
    now_ms = showing.now_ms()
    end = _moment(until, now_ms) if until is not None else None
    body = {"version": version, "why": why, "until": end.isoformat() if end else None}
    with connect(home) as client:
        answer = client.put(f"{_path(name)}/pins/{segment(model)}", body)
        if as_json:
            showing.document(answer)
            return
        document = _document(client, name)
    ends = f" until {day(int(end.timestamp() * 1000), now_ms)}" if end else ""
    screen.result(f"pinned 1 device (document {document}); wins over rollouts{ends}")


@command(app)
def unpin(
    name: Name,
    model: Annotated[str | None, typer.Argument(help="Only needed if several are pinned.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let the plan decide again."""
    with connect(home) as client:
        pinned = model or _pinned(client, name)
        answer = client.delete(f"{_path(name)}/pins/{segment(pinned)}")
        if as_json:
            showing.document(answer)
            return
        document = _document(client, name)
    screen.result(f"unpinned 1 device (document {document}); it runs what the plan says")


@command(app)
def allow(
    name: Name, reference: Reference, why: Why = "", home: Home = None, as_json: AsJson = False
) -> None:
    """Let a device try a version again that it gave up by itself."""
    model, version = _reference(reference)
    with connect(home) as client:
        body = {"model": model, "version": version, "why": why}
        answer = client.post(f"{_path(name)}/allow", body)
        if as_json:
            showing.document(answer)
            return
        document = _document(client, name)
    screen.result(f"allowed {reference} on 1 device (document {document}); it may try again")


@command(app, "set")
def set_(
    name: Name,
    bytes_per_day: Annotated[
        str | None, typer.Option(help="What may travel in a day: 2MB, 500kB, or any.")
    ] = None,
    transfer: Annotated[
        list[str] | None,
        typer.Option(help="Hours for downloads, local time: 01:00-05:00, or any; repeatable."),
    ] = None,
    buffer: Annotated[str | None, typer.Option(help="Room for records: 32MB, or any.")] = None,
    state_interval: Annotated[
        str | None, typer.Option(help="Between two reports without news: 10min, 2h, or any.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Set what a device may send and keep; what is not named stays as it is."""
    with connect(home) as client:
        path = f"{_path(name)}/settings"
        before = client.get(_path(name))["document"]["settings"]
        after = device_settings.changed(
            before,
            bytes_per_day=bytes_per_day,
            transfer=transfer or (),
            buffer=buffer,
            state_interval=state_interval,
        )
        answer = client.put(path, after)
        if as_json:
            showing.document(answer)
            return
        document = _document(client, name)
    said = ", ".join(device_settings.words(after)) or "as the device is configured"
    screen.result(f"set 1 device (document {document}): {said}")


def _path(name: str) -> str:
    return f"devices/{segment(name)}"


def _document(client: Client, name: str) -> int:
    found: dict[str, Any] = client.get(_path(name))
    return int(found["document"]["version"])


def _pinned(client: Client, name: str) -> str:
    """The one model that is pinned. Raises `InvalidRequest` when it must be said which."""
    models = [pin["model"] for pin in client.get(_path(name))["device"]["pins"]]
    if len(models) == 1:
        return str(models[0])
    if not models:
        raise InvalidRequest("OUT-S110", f"nothing is pinned on {name}", do="outrider device list")
    commands = " or ".join(f"outrider device unpin {name} {model}" for model in models)
    raise InvalidRequest("OUT-S120", f"{len(models)} models are pinned on {name}", do=commands)


def _moment(text: str, now_ms: int) -> datetime:
    """The end of a pin. Raises `InvalidRequest` OUT-S120."""
    try:
        return datetime.fromtimestamp(ahead(text, now_ms) / 1000, UTC)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"--until {text}: no such moment", do=FORMS) from error


def pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        do = "for instance --label site=leeds"
        raise InvalidRequest("OUT-S120", f"--label {text}: it is key=value", do=do)
    return key, value


def _reference(text: str) -> tuple[str, str]:
    try:
        return model_version(text)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error
