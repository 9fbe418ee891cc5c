"""`outrider drift explain`: an alarm, computed again from stored windows, with its numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home, connect
from control_plane.client import segment
from protocol.errors import InvalidRequest
from protocol.wording import date

DIFFERS: Final = 1
"""Exit code where stored windows do not give what the record says."""
LABEL: Final = 10
MOST_DRAWN: Final = 3
"""So many features are drawn in a terminal; the picture has more."""
_SHORT: Final = len("sha256-") + 8


def explain(
    alarm: Annotated[str, typer.Argument(help="Like alarm-17.")],
    evidence: Annotated[
        str | None, typer.Option(help="Digest of an earlier record; the newest without it.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also write a picture: FILE.svg or FILE.png.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """An alarm with its numbers, computed again from stored windows; exit 1 when it differs."""
    if plot is not None and plot.suffix.lower() not in (".svg", ".png"):
        raise InvalidRequest("OUT-S120", f"{plot} is no picture", do="write FILE.svg or FILE.png")
    with connect(home) as client:
        explained = client.get(f"alarms/{segment(alarm)}/explanation", evidence=evidence)
    if plot is not None:
        _write(explained, plot)
        screen.hint(f"wrote {plot}")
    if as_json:
        showing.document(explained)
    else:
        _show(explained)
    raise typer.Exit(0 if explained["replayed"]["same"] else DIFFERS)


def _show(explained: Mapping[str, Any]) -> None:
    # numpy only for the command that needs it.
    from control_plane.drift import explaining, picture

    record, replayed = explained["record"], explained["replayed"]

    def line(label: str, text: str) -> None:
        showing.line(label, text, width=LABEL)

    line("verdict", f"{record['sentence']}, {date(record['at_ms'], showing.now_ms())}")
    amounts = replayed["windows"], replayed["devices"], replayed["rows"]
    line("inputs", explaining.inputs(record, *amounts))
    for number, text in enumerate(explaining.statistic(record)):
        line("statistic" if number == 0 else "", text)
    line("threshold", explaining.threshold(record))
    line("budget", explaining.budget(record))
    course, sides = _drawn(explained)
    room = screen.WIDTH - LABEL
    plain = not screen.speaks_utf8(sys.stdout)
    drawn = picture.lines(record, course, sides[:MOST_DRAWN], room, ascii=plain)
    for number, text in enumerate(drawn):
        # As it is: the columns of a drawing are not words.
        screen.result(f"{'plot' if number == 0 else '':<{LABEL}}{text}".rstrip())
    line("record", f"{record['alarm']}   rules {record['rules']}   {explained['digest'][:_SHORT]}")
    line("replay", replayed["said"])
    if not replayed["same"]:
        for text in explaining.statistic({**record, "statistic": replayed["statistic"]}):
            line("", f"now {text}")


def _drawn(explained: Mapping[str, Any]) -> tuple[Any, Any]:
    """The course and the slots, as a picture takes them."""
    from control_plane.drift.measuring import Point
    from control_plane.drift.picture import Compared

    course = [
        Point(showing.moment_ms(each["at"]) or 0, each["value"]) for each in explained["course"]
    ]
    sides = [
        Compared(
            each["name"],
            tuple(each["counts"]),
            tuple(each["against"]),
            each["what"],
            tuple(each["slots"]),
        )
        for each in explained["compared"]
    ]
    return course, sides


def _write(explained: Mapping[str, Any], path: Path) -> None:
    """What was just explained: the API would draw the newest record of that moment."""
    from control_plane.cli.drawing import write_png
    from control_plane.drift import picture

    record, said = explained["record"], explained["replayed"]["said"]
    shapes = picture.shapes(record, said, *_drawn(explained))
    if path.suffix.lower() == ".png":
        write_png(shapes, path)
    else:
        path.write_text(picture.svg(shapes, record["sentence"]), encoding="utf-8")
