"""`outrider audit`: who changed what, whether that trail is whole, and all of it in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from control_plane import audit as trail
from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Cursor, Home, command, connect, group
from control_plane.cli.own_trust import own_approvals
from control_plane.client import Client
from protocol.codec import to_wire
from protocol.errors import InvalidRequest, PeerError, TrustError
from protocol.wording import date

app = group("Who changed what: a trail that shows when somebody has touched it.")

_BROKEN = "OUT-S170"


@command(app, "list")
def list_records(
    who: Annotated[str | None, typer.Option(help="Only changes by this person.")] = None,
    about: Annotated[
        str | None, typer.Option(help="For instance rollouts/digits-7, devices or models/digits.")
    ] = None,
    cursor: Cursor = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Changes, newest first; -v also says why."""
    with connect(home) as client:
        page = client.get("audit", who=who, about=about, limit=showing.MOST_ROWS, cursor=cursor)
    if as_json:
        showing.document(page)
        return
    now_ms = showing.now_ms()
    rows = [
        [
            str(each["number"]),
            date(showing.moment_ms(each["time"]) or 0, now_ms).removesuffix(" UTC"),
            each["who"],
            each["what"],
            each["about"],
        ]
        for each in page["items"]
    ]
    showing.table([">NUMBER", "WHEN", "WHO", "WHAT", "ABOUT"], rows)
    if screen.wanted().verbose:
        for each in page["items"]:
            if each["why"]:
                showing.line(str(each["number"]), f"why: {each['why']}")
    given = "".join(f" --{k} {v}" for k, v in (("who", who), ("about", about)) if v)
    if page["next_cursor"]:
        screen.hint(f"go on: outrider audit list{given} --cursor {page['next_cursor']}")


@command(app)
def verify(
    file: Annotated[
        Path | None, typer.Option(help="An export, instead of what the control plane has now.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check the whole trail, and that it holds every head that approvers have signed.

    Exit 6: it was edited, shortened, or records are missing or in another order.
    """
    with connect(home) as client:
        anchors = trail.anchors_of(own_approvals(client, home, _now()))
        found = trail.verify(_from_file(file) if file else _from_server(client), anchors)
    if as_json:
        showing.document(to_wire(found))
    if found.problems:
        raise TrustError(_BROKEN, "; ".join(found.problems))
    if as_json:
        return
    signed = f"approvers signed for it up to record {found.anchored:,}"
    if not found.anchored:
        signed = "approvers have signed for none of it yet"
    screen.result(f"whole    {showing.plural(found.records, 'record')}; {signed}")
    if found.head:
        screen.result(f"head     {found.head[:80]}")


@command(app)
def export(
    to: Annotated[Path | None, typer.Option(help="A file; stdout without it.")] = None,
    home: Home = None,
) -> None:
    """The whole trail as JSON lines. Keep exports where the control plane cannot write."""
    with connect(home) as client:
        data = client.bytes("audit/export")
    if to is None:
        typer.echo(data.decode(), nl=False)
        return
    to.write_bytes(data)
    screen.result(f"wrote    {to}: {showing.plural(len(data.splitlines()), 'record')}")


def _from_server(client: Client) -> Iterator[trail.Line]:
    return _lines(client.bytes("audit/export").splitlines())


def _from_file(file: Path) -> Iterator[trail.Line]:
    try:
        with file.open("rb") as lines:
            yield from _lines(line.rstrip(b"\n") for line in lines)
    except FileNotFoundError as error:
        raise InvalidRequest("OUT-S110", f"no file named {file}") from error


def _lines(lines: Iterable[bytes]) -> Iterator[trail.Line]:
    """What is no line of a trail counts as one that was edited."""
    for line in lines:
        try:
            yield trail.imported(line)
        except PeerError:
            yield trail.Line(line[:200].decode(errors="replace"), "")


def _now() -> datetime:
    return datetime.fromtimestamp(showing.now_ms() / 1000, UTC)
