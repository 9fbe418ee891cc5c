"""`outrider rollout explain`: a verdict, computed again from its record, with its numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane.cli import scores, screen, showing
from control_plane.cli.commands import AsJson, Home, connect
from control_plane.cli.looking import Name, newest
from control_plane.client import Client, segment
from protocol.errors import InvalidRequest
from protocol.wording import date

DIFFERS: Final = 1
"""Exit code where the record does not give the verdict that it carries."""
MOST_DRAWN: Final = 6
"""So many series are drawn in a terminal, those that matter most; the SVG has more."""

_COUNTED: Final = ("activated", "healthy", "failed", "rolled_back", "silent", "refused")
_SHORT: Final = len("sha256-") + 8


def explain(
    rollout: Name = None,
    wave: Annotated[int | None, typer.Option(min=1, help="The last verdict on this wave.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also write the picture: FILE.svg.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """A verdict with its numbers, computed again from its record; exit 1 when it differs."""
    with connect(home) as client:
        name = rollout or newest(client)
        place = f"rollouts/{segment(name)}"
        digest = _last_of(client, name, wave) if wave is not None else None
        explained = client.get(f"{place}/explanation", evidence=digest)
        count = client.get(f"{place}/evidence", limit=1)["count"]
        if plot is not None:
            picture = client.bytes(f"{place}/evidence/{explained['record']['digest']}/picture.svg")
            plot.write_bytes(picture)
            screen.hint(f"wrote {plot}")
    if as_json:
        showing.document(explained)
    else:
        _show(name, explained, count)
    raise typer.Exit(0 if explained["replayed"]["same"] else DIFFERS)


def _last_of(client: Client, name: str, wave: int) -> str:
    """Digest of the newest record of a wave. Raises `InvalidRequest` OUT-S110 without one."""
    found = None
    for each in client.items(f"rollouts/{segment(name)}/evidence"):
        if each["wave"] == wave:
            found = str(each["digest"])
    if found is None:
        raise InvalidRequest(
            "OUT-S110",
            f"{name} has no verdict on wave {wave}",
            do=f"outrider rollout status {name}",
        )
    return found


def _show(name: str, explained: Mapping[str, Any], count: int) -> None:
    record, replayed, counts = explained["record"], explained["replayed"], explained["counts"]
    at_ms = showing.moment_ms(record["at"]) or 0
    showing.line(
        "verdict",
        f"{record['verdict']} at {date(at_ms, showing.now_ms())}, {name} wave {record['wave']}, "
        f"by {record['id']}",
    )
    showing.line("why", record["sentence"])
    showing.line(
        "inputs", ", ".join(f"{each.replace('_', ' ')} {counts[each]:,}" for each in _COUNTED)
    )
    for number, line in enumerate(scores.lines(explained["gates"])):
        showing.line("scores" if number == 0 else "", line)
    _plot(explained)
    rules = f"rules {replayed['recorded_rules']}"
    place = f"{record['number']} of {count}"
    showing.line("record", f"{place}   {rules}   {record['digest'][:_SHORT]}")
    showing.line("replay", replayed["said"])
    if not replayed["same"]:
        showing.line("", f"now {replayed['verdict']} by {replayed['id']}: {replayed['sentence']}")


def _plot(explained: Mapping[str, Any]) -> None:
    """How devices are spread and how evidence grew, for each score that is compared."""
    if not any(row["state"] in scores.COMPARED for row in explained["gates"]):
        return
    from control_plane.rollout import picture  # numpy only for the command that needs it

    record = {"inputs": explained["inputs"], **explained["record"]}
    room = screen.WIDTH - showing.LABEL
    drawn = picture.lines(record, room, ascii=not screen.speaks_utf8(sys.stdout))
    starts = [number for number, line in enumerate(drawn) if not line.startswith(" ")]
    if len(starts) > MOST_DRAWN:
        drawn = [*drawn[: starts[MOST_DRAWN]], "and more: --plot FILE.svg"]
    for number, line in enumerate(drawn):
        # As it is: the columns of a drawing are not words.
        screen.result(f"{'plot' if number == 0 else '':<{showing.LABEL}}{line}".rstrip())
