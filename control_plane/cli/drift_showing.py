"""`outrider drift show`: which cohorts see other inputs than their model was built on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home, connect
from control_plane.client import segment
from control_plane.drift.verdicts import number
from protocol.errors import InvalidRequest
from protocol.moments import ago

COLUMNS: Final = ("COHORT", "VERDICT", ">DEVICES", ">ROWS", ">FEATURES", ">PSI", "ACCURACY")
_FORMS: Final = "24h, 7d or 2026-12-01"
_DRIFTED: Final = ("cohort drifted", "half of the cohort drifted")


def show(
    model: Annotated[str, typer.Argument(help="For instance digits.")],
    by: Annotated[
        str | None, typer.Option(help="Label whose values make the cohorts; without it one.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="For instance v2; what most devices run without it.")
    ] = None,
    since: Annotated[
        str, typer.Option(help=f"{_FORMS}: what the devices counted from then on.")
    ] = "24h",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Drift by cohort: exit 0 whatever it says."""
    start = _since(since, showing.now_ms())
    with connect(home) as client:
        found = client.get(
            f"models/{segment(model)}/drift", by=by, version=version, since=start.isoformat()
        )
    if as_json:
        showing.document(found)
        return
    if found["version"] is None:
        screen.result(f"no device runs {model}")
        return
    showing.table(COLUMNS, (row(item) for item in found["items"]))
    for text in notes(found["items"]):
        screen.result(text)


def row(item: Mapping[str, Any]) -> tuple[str, ...]:
    """One cohort, of the API's items."""
    judged = item["verdict"] != "not enough data"
    psi = item["psi"] if item["verdict"] in _DRIFTED else None
    return (
        item["cohort"],
        item["verdict"],
        f"{item['devices']:,}",
        f"{item['rows']:,}",
        f"{item['features_drifted']:,} of {item['features']:,}" if judged else "-",
        "-" if psi is None else number(psi),
        accuracy(item),
    )


def accuracy(item: Mapping[str, Any]) -> str:
    """ "about .93", ".91 of 1,203 labels", "not shown: inputs drifted", "-"."""
    known = item["accuracy"]
    if known is None:
        return "-"
    if known["measured"] is not None:
        return f"{number(known['measured'])} of {showing.plural(known['labelled'], 'label')}"
    if known["estimated"] is not None:
        return f"about {number(known['estimated'])}"
    if item["verdict"] in _DRIFTED:
        return "not shown: inputs drifted"
    return "not shown: alarm" if item["alarms"] else "-"


def notes(items: list[Mapping[str, Any]]) -> Iterator[str]:
    """What the table has no room for: broken sensors, halves, alarms, windows left out."""
    for item in items:
        for each in item["broken"]:
            yield f"sensor broken on device {each['device']}: {', '.join(each['features'][:3])}"
        if item["verdict"] == "half of the cohort drifted":
            yield item["sentence"]
        if item["unfit_windows"]:
            windows = showing.plural(item["unfit_windows"], "window")
            yield f"{item['cohort']}: {windows} of other bins left out"
    alarms = sorted({each for item in items for each in item["alarms"]}, key=_number)
    if alarms:
        yield f"alarms: {', '.join(alarms)}"


def _since(text: str, now_ms: int) -> datetime:
    """Raises `InvalidRequest` OUT-S120. "24h" is what `moments` calls it too."""
    try:
        return datetime.fromtimestamp(ago(text, now_ms) / 1000, UTC)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"--since {text}: no such moment", do=_FORMS) from error


def _number(alarm: str) -> int:
    return int(alarm.rpartition("-")[2])
