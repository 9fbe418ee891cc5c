"""`outrider device import-records`: what devices without a link have sent on a stick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home, command, connect
from control_plane.cli.device_identity import app
from protocol.errors import InvalidRequest, OutriderError
from protocol.records_file import MAX_FILE, SUFFIX

__all__ = ["app"]


@command(app, "import-records")
def import_records(
    place: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="The stick, or one file of it.")
    ],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Store records from a stick; those that are here already change nothing."""
    found = _files(place)
    taken: list[dict[str, Any]] = []
    failures: list[OutriderError] = []
    with connect(home) as client:
        for file in found:
            try:
                taken.append(client.upload("records", file, kind="application/octet-stream"))
            except OutriderError as error:
                # One bad file must not keep the others from coming in.
                failures.append(error)
                screen.hint(f"{file.name}: {error}")
    if as_json:
        showing.document({"files": taken})
    else:
        for name in sorted({str(each["name"]) for each in taken}):
            of = [each for each in taken if each["name"] == name]
            showing.line(name, _told(of))
    if failures:
        raise failures[0]


def _files(place: Path) -> list[Path]:
    """Raises `InvalidRequest` OUT-D505."""
    if place.is_dir():
        found = sorted(place.glob(f"*{SUFFIX}"), key=lambda path: (len(path.name), path.name))
        if not found:
            raise InvalidRequest("OUT-D505", f"no *{SUFFIX} in {place}")
    else:
        found = [place]
    for file in found:
        if not file.is_file() or file.stat().st_size > MAX_FILE:
            raise InvalidRequest("OUT-D505", f"{file} is no file of records")
    return found


def _told(files: list[dict[str, Any]]) -> str:
    records, stored = (sum(int(each[key]) for each in files) for key in ("records", "stored"))
    parts = [f"{showing.plural(records, 'record')}, {stored:,} of them new"]
    for key, words in (("conflicts", "with two contents"), ("late", "too late: removed before")):
        count = sum(int(each[key]) for each in files)
        if count:
            parts.append(f"{count:,} {words}")
    return "; ".join(parts)
