"""`outrider device retire`, `replace` and `sign-request`: who belongs to the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home, Why, command, connect
from control_plane.cli.devices import Name, app, pair
from control_plane.client import segment
from control_plane.signing.durable import replace as write
from protocol.codec import decode, encode
from protocol.enrolment import ANSWER_FILE, MAX_REQUEST, OfflineRequest
from protocol.errors import InvalidRequest, PeerError

__all__ = ["app"]


@command(app)
def retire(
    name: Name,
    why: Annotated[str, typer.Option(help="Lost, stolen, scrapped: for the record.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take a device out for good: refused by the broker, ignored if it still talks."""
    with connect(home) as client:
        answer = client.post(f"devices/{segment(name)}/retire", {"why": why})
    if as_json:
        showing.document(answer)
        return
    screen.result(f"retired {answer['name']}: its certificates are revoked, its records stay")


@command(app)
def replace(
    old: Name,
    name: Annotated[
        str | None, typer.Option(help="Of the new device; the old one's and a number without it.")
    ] = None,
    why: Why = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Retire a device, and make a token for another one with its labels and pins."""
    with connect(home) as client:
        body = {"name": name, "why": why}
        answer = client.post(f"devices/{segment(old)}/replace", body)
    if as_json:
        showing.document(answer)
        return
    screen.result(answer["token"])
    carried = [f"{key}={value}" for key, value in sorted(answer["labels"].items())]
    if answer["pins"]:
        carried.append(f"{len(answer['pins'])} pinned")
    words = f" with {', '.join(carried)}" if carried else ""
    screen.hint(f"retired {answer['replaces']}; this enrols {answer['name']}{words} within 24 h:")
    screen.hint("outrider-agent enrol --token-file FILE")


@command(app, "sign-request")
def sign_request(
    file: Annotated[Path, typer.Argument(help="NAME.request.json, as the device wrote it.")],
    to: Annotated[Path, typer.Option(help="Folder for NAME.answer.json: the stick.")],
    label: Annotated[
        list[str] | None, typer.Option(help="key=value of a new device; may be repeated.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Answer a device without network: its first certificate, or its next one."""
    request = _read(file)
    if not to.is_dir():
        raise InvalidRequest("OUT-S120", f"{to} is not a folder")
    labels = dict(pair(each) for each in label or [])
    with connect(home) as client:
        body = {"request": _fields(request), "labels": labels}
        answer = client.post("enrolments", body)
    path = to / f"{answer['name']}{ANSWER_FILE}"
    write(path, encode(answer["enrolment"] or answer["renewal"]) + b"\n")
    if as_json:
        showing.document({**answer, "file": str(path)})
        return
    if answer["enrolment"]:
        said = "".join(f", {key}={value}" for key, value in sorted(labels.items()))
        showing.line("enrolled", f"{answer['name']} in fleet {answer['enrolment']['fleet']}{said}")
        showing.line("wrote", str(path))
        showing.line("digest", answer["root_digest"])
        screen.hint("Tell the digest to the technician by another way than the file:")
        screen.hint(f"outrider-agent enrol --answer {path.name} --root-digest DIGEST")
        return
    showing.line("renewed", answer["name"])
    showing.line("wrote", str(path))
    screen.hint(f"on the device: outrider-agent enrol --renew --answer {path.name}")


def _fields(request: OfflineRequest) -> dict[str, Any]:
    """The fields that a request has."""
    named = {
        "csr": request.csr,
        "name": request.name,
        "device": request.device,
        "proof": request.proof,
    }
    return {key: value for key, value in named.items() if value is not None}


def _read(file: Path) -> OfflineRequest:
    """Raises `InvalidRequest` OUT-A210; `OSError`."""
    with file.open("rb") as opened:
        data = opened.read(MAX_REQUEST + 1)
    try:
        return decode(data, OfflineRequest, limit=MAX_REQUEST)
    except PeerError as error:
        raise InvalidRequest("OUT-A210", f"{file}: {error.why}") from error
