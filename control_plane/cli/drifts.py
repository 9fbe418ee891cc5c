"""`outrider drift`: what cohorts see, alarms with their numbers, and the budget of false alarms."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from control_plane.cli import drift_explaining, drift_showing, screen, showing
from control_plane.cli.commands import AsJson, Home, command, connect, group

app = group("Whether devices see other inputs than their models were built on.")

NONE: Final = "none"
_LABEL: Final = 11


def budget(
    per_year: Annotated[
        float | None, typer.Option(help="Expected false alarms in a year, .01 to 1000.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help=f"Label whose values make cohorts; {NONE}: all are one.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The budget of false alarms and the thresholds that follow; with options, set it."""
    with connect(home) as client:
        found = client.get("drift/budget")
        if per_year is not None or by is not None:
            asked = {
                "per_year": found["per_year"] if per_year is None else per_year,
                "by": found["by"] if by is None else (None if by == NONE else by),
            }
            found = client.put("drift/budget", asked)
    if as_json:
        showing.document(found)
        return
    label = f"by {found['by']}" if found["by"] else "all devices are one"
    amount = f"{found['per_year']:g} false alarm{'' if found['per_year'] == 1 else 's'} a year"
    showing.line("budget", f"{amount} expected at most", width=_LABEL)
    showing.line("cohorts", label, width=_LABEL)
    rows = [
        [
            each["part"],
            f"{each['share'] * found['per_year']:g}",
            f"{each['streams']:,}",
            _threshold(each["threshold"]),
        ]
        for each in found["parts"]
    ]
    showing.table(["PART", ">A YEAR", ">STREAMS", "THRESHOLD"], rows)
    if screen.wanted().verbose:
        for each in found["parts"]:
            showing.line(each["part"], f"assumes: {each['assumes']}", width=_LABEL)


def _threshold(of: dict[str, Any]) -> str:
    if of["unit"] == "ln e":
        return f"ln e from {of['value']:.1f}"
    return f"{of['unit']} below {of['value']:.2g}"


for each in (drift_showing.show, drift_explaining.explain, budget):
    command(app)(each)
