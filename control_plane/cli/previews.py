"""What a rollout would do, as lines. Pure: the API's preview in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from control_plane.cli import showing
from control_plane.cli.showing import plural
from protocol.wording import date, duration, size

MOST_SITES: Final = 3
"""So many values of the label are named per wave."""
_SITE: Final = "site"
_EXCLUDED: Final = {
    "pinned": ("is pinned", "are pinned"),
    "already there": ("runs it already", "run it already"),
    "too little RAM": ("has too little RAM", "have too little RAM"),
    "old onnxruntime": ("has an old onnxruntime", "have an old onnxruntime"),
    "old agent": ("has an old agent", "have an old agent"),
    "other hardware": ("is other hardware", "are other hardware"),
    "agent without maintenance windows": (
        "has an agent without maintenance windows",
        "have agents without maintenance windows",
    ),
    "agent without shadow mode": (
        "has an agent without shadow mode",
        "have agents without shadow mode",
    ),
}

Shown = Mapping[str, Any]


def head(preview: Shown) -> str:
    reference = f"{preview['model']}/{preview['version']}"
    return f"Preview of {reference} to {preview['to']}. Nothing has changed."


def facts(preview: Shown) -> Iterator[tuple[str, str]]:
    """Labels and texts: devices, links, bytes, ways back, what stands in the way."""
    yield "devices", devices(preview)
    if preview["held"]:
        yield "control", f"{plural(preview['held'], 'device')} held back until it completes"
    linked = preview["linked"]
    lately = f"{linked['now']:,} now, {linked['within_30_days']:,} within 30 days"
    yield "linked", f"{lately}, {linked['not']:,} not"
    yield "bytes", _bytes(preview)
    returns = preview["returns"]
    if returns["on_disk"] or returns["download"]:
        yield "back", _back(returns)
    for other in preview["in_the_way"]:
        shared = plural(other["devices"], "device")
        yield (
            "conflict",
            f"{other['rollout']} has {shared} of these: abort it, or --supersede "
            f"{other['rollout']}",
        )


def devices(preview: Shown) -> str:
    """ "312 match, 307 targeted: 4 are pinned, 1 has too little RAM"."""
    counted = f"{preview['matched']:,} match, {preview['targeted']:,} targeted"
    left_out = ", ".join(
        f"{n:,} {_EXCLUDED.get(why, (why, why))[n > 1]}"
        for why, n in sorted(preview["excluded"].items())
    )
    return f"{counted}: {left_out}" if left_out else counted


def columns(preview: Shown) -> list[str]:
    where = preview["by"]
    sites = [] if where is None else ["SITES" if where == _SITE else where.upper()]
    return ["WAVE", ">DEVICES", *sites, "SOAK", "EARLIEST"]


def rows(preview: Shown, now_ms: int) -> Iterator[Sequence[str]]:
    waves, before = preview["waves"], ""
    for wave in waves:
        more = f"{wave['more']:,}" if wave["wave"] == 1 else f"+{wave['more']:,}"
        last = wave["wave"] == len(waves) > 1
        sites = [] if preview["by"] is None else ["all" if last else _sites(wave["sites"])]
        soak = duration(wave["soak_seconds"]) if wave["soak_seconds"] else "-"
        yield [str(wave["wave"]), more, *sites, soak, _earliest(wave, before, now_ms)]
        before = wave["earliest"]


def unlinked(preview: Shown) -> str:
    """What the first wave has to do without; empty where it is whole."""
    first = preview["waves"][0]
    away = first["more"] - first["linked"]
    if not away:
        return ""
    verb = "is" if away == 1 else "are"
    return f"{away:,} of the {plural(first['more'], 'device')} of wave 1 {verb} not linked."


def _bytes(preview: Shown) -> str:
    if preview["published_bytes"] is None:
        return f"unknown; the bundle is {size(preview['bundle_size_bytes'])}"
    most = "at most " if preview.get("estimated") else ""
    said = f"published once {most}{size(preview['published_bytes'])}; "
    if not preview["received_bytes"]:
        return f"{said}devices have everything already"
    said += f"devices receive {most}{size(preview['received_bytes'])} together"
    each = ", ".join(
        f"{group['devices']:,} x {size(group['bytes_each'])} "
        + (f"from {preview['model']}/{group['base']}" if group["base"] else "first install")
        for group in preview["received"]
    )
    return f"{said}: {each}"


def _back(returns: Mapping[str, int]) -> str:
    named = (
        ("on_disk", "from their own disk"),
        ("download", "with a download"),
        ("nothing", "to nothing"),
    )
    return "if it fails: " + ", ".join(
        f"{returns[name]:,} {words}" for name, words in named if returns[name]
    )


def _sites(sites: Mapping[str, int]) -> str:
    """ "leeds 39 york 26 and 12 more"; devices without the label are "-"."""
    largest = sorted(sites.items(), key=lambda each: (-each[1], each[0]))
    named = [f"{value or '-'} {n:,}" for value, n in largest[:MOST_SITES]]
    more = len(largest) - len(named)
    return " ".join(named) + (f" and {more:,} more" if more else "")


def _earliest(wave: Shown, before: str, now_ms: int) -> str:
    asked = ", asks first" if wave["approve"] else ""
    if wave["wave"] == 1:
        return f"now{asked}"
    if wave["earliest"] == before:
        return f"after wave {wave['wave'] - 1}{asked}"
    at_ms = showing.moment_ms(wave["earliest"])
    return (date(at_ms, now_ms) if at_ms else "") + asked
