"""`outrider device`: tokens, lists, one device, pins, and lifting what a device denied."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from control_plane.cli import showing
from control_plane.client import segment
from protocol.errors import InvalidRequest
from protocol.identifiers import model_version, short
from protocol.wording import moment

app = typer.Typer(no_args_is_help=True, help="Devices of the fleet.")

Name = Annotated[str, typer.Argument(help="Name of a device.")]


@app.command("enrol-token")
def enrol_token(
    label: Annotated[
        list[str] | None, typer.Option(help="key=value; bound to the token, may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The device's name; chosen without it.")] = None,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """A one-time token with which one device joins the fleet within 24 hours."""
    labels = dict(_pair(each) for each in label or [])
    with showing.connect(home) as client:
        answer = client.post("tokens", {"labels": labels, "name": name})
    if as_json:
        showing.document(answer)
        return
    typer.echo(answer["token"])
    showing.hint("enrols one device within 24 h: outrider-agent enrol --token-file FILE")


@app.command("list")
def list_devices(
    selector: Annotated[
        str | None, typer.Option("--to", help="For instance: site = leeds and not line")
    ] = None,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Devices, what they run and how they are."""
    with showing.connect(home) as client:
        page = client.get("devices", selector=selector, limit=showing.MOST_ROWS)
    if as_json:
        showing.document(page)
        return
    now = showing.now_ms()
    rows = []
    for device in page["items"]:
        labels = " ".join(f"{k}={v}" for k, v in sorted(device["labels"].items()))
        contact = moment(showing.moment_ms(device["last_contact"]), now)
        for model in device["models"] or [None]:
            runs = (model["runs"] or "nothing") if model else "nothing"
            state = model["state"] if model else "no model"
            rows.append([device["name"], runs, state, labels, contact])
    showing.table(["DEVICE", "RUNS", "STATE", "LABELS", "LAST CONTACT"], rows)
    if page["next_cursor"]:
        showing.hint(f"first {len(page['items'])} of {page['count']:,}; --to narrows it down")


@app.command()
def show(name: Name, home: showing.Home = None, as_json: showing.AsJson = False) -> None:
    """One device: what operators said of it, and what it says of itself."""
    with showing.connect(home) as client:
        found = client.get(f"devices/{segment(name)}")
    if as_json:
        showing.document(found)
        return
    now = showing.now_ms()
    device, document = found["device"], found["document"]
    labels = " ".join(f"{k}={v}" for k, v in sorted(device["labels"].items())) or "none"
    contact = moment(showing.moment_ms(device["last_contact"]), now)
    _row("device", f"{device['name']}     labels {labels}")
    _row("contact", f"{contact}     enrolled {moment(showing.moment_ms(device['enrolled']), now)}")
    read = "read" if document["read"] >= document["published"] else f"{document['read']} read"
    _row("document", f"version {document['version']}, {read}")
    for model in device["models"]:
        since = moment(showing.moment_ms(model["since"]), now)
        _row(model["model"], f"{model['runs'] or 'nothing'}, {model['state']}, since {since}")
        if model["heads_for"] and model["heads_for"] != model["runs"]:
            _row("", f"heads for {model['heads_for']} ({model['origin']})")
        if model["why"]:
            _row("", f"{model['why']} {model['detail']}".rstrip())
    for pin in device["pins"]:
        version = pin["version"] or short(pin["digest"])
        until = f" until {pin['until']}" if pin["until"] else ""
        _row("pinned", f"{pin['model']}/{version}{until}")
    _reported(found["reported"])


@app.command()
def pin(
    name: Name,
    reference: Annotated[str, typer.Argument(help="model/version")],
    why: Annotated[str, typer.Option(help="For the record.")] = "",
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Hold a device at one version, whatever rollouts say."""
    model, version = _reference(reference)
    with showing.connect(home) as client:
        path = f"devices/{segment(name)}/pins/{segment(model)}"
        answer = client.put(path, {"version": version, "why": why})
    _done(answer, as_json, f"pinned {name} to {reference}")


@app.command()
def unpin(
    name: Name,
    model: Annotated[str, typer.Argument(help="The model.")],
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Let the plan decide again."""
    with showing.connect(home) as client:
        answer = client.delete(f"devices/{segment(name)}/pins/{segment(model)}")
    _done(answer, as_json, f"unpinned {model} on {name}")


@app.command()
def allow(
    name: Name,
    reference: Annotated[str, typer.Argument(help="model/version")],
    why: Annotated[str, typer.Option(help="For the record.")] = "",
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Let a device try a version again that it gave up by itself."""
    model, version = _reference(reference)
    with showing.connect(home) as client:
        body = {"model": model, "version": version, "why": why}
        answer = client.post(f"devices/{segment(name)}/allow", body)
    _done(answer, as_json, f"{name} may try {reference} again")


def _done(answer: Any, as_json: bool, text: str) -> None:
    if as_json:
        showing.document(answer)
    else:
        typer.echo(text)


def _reported(state: dict[str, Any] | None) -> None:
    if state is None:
        _row("reported", "nothing yet")
        return
    facts = state.get("facts", {})
    _row(
        "facts",
        f"agent {state['agent']}, {facts.get('arch', 'unknown')},"
        f" onnxruntime {facts.get('onnxruntime', 'unknown')}",
    )
    for refused in state.get("refused", []):
        _row("refused", f"{refused['what']}: {refused['code']} {refused.get('detail', '')}")
    for model, reported in sorted(state.get("models", {}).items()):
        for digest, note in sorted(reported.get("notes", {}).items()):
            if note.get("reason"):
                _row("note", f"{model} {short(digest)}: {note['reason']} {note.get('detail', '')}")


def _row(label: str, text: str) -> None:
    typer.echo(f"{label:<12}{text}".rstrip())


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest("OUT-S120", f"--label {text}: key=value")
    return key, value


def _reference(text: str) -> tuple[str, str]:
    try:
        return model_version(text)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error
