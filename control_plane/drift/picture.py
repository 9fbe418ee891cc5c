"""A finding as a picture: shapes on a sheet, and the same as an SVG or as lines of a terminal.

Above, how the foremost feature's evidence went, with the threshold and the budget that it follows
from. Below, per feature, what share of the rows is in each slot: of the device or cohort, and of
what it is compared with.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from math import log10
from typing import Any, Final, Literal

from control_plane.drift import explaining
from control_plane.drift.measuring import Point, Shown
from control_plane.drift.verdicts import LEAST_PSI
from protocol.histogram import Counts
from protocol.members import Feature, Profile
from protocol.wording import count

WIDTH: Final = 760
_LEFT: Final = 20
_RIGHT: Final = WIDTH - _LEFT
_COURSE: Final = 110
_PANEL: Final = 346
_BARS: Final = 84
_ROW: Final = 172
_LINE: Final = 16
_AXIS: Final = 44
"""Room for the numbers of the course's axis."""
_WRAP: Final = 108
_LABELLED: Final = 20
"""Features of so many slots have each of those at the ends named."""
_TINY: Final = 1e-30
"""Where the axis of p ends."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII: Final = " .:-=+*#@"

Style = Literal["paper", "ink", "head", "faint", "one", "other", "axis", "bar", "course", "tick"]


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    style: Style


@dataclass(frozen=True, slots=True)
class Line:
    x: float
    y: float
    to_x: float
    to_y: float
    style: Style


@dataclass(frozen=True, slots=True)
class Text:
    """`x`, `y`: of its base line; of its right end if `right`."""

    x: float
    y: float
    text: str
    style: Style = "ink"
    right: bool = False


Shape = Rect | Line | Text


@dataclass(frozen=True, slots=True)
class Compared:
    """Counts of one feature on both sides. `slots`: their names; few of them are written."""

    name: str
    counts: Counts
    against: Counts
    what: str
    slots: tuple[str, ...]


def compared(shown: Sequence[Shown], profile: Profile) -> tuple[Compared, ...]:
    return tuple(
        Compared(
            each.name,
            each.counts,
            each.against,
            each.what,
            names_of_slots(profile.stream(each.index)),
        )
        for each in shown
    )


def names_of_slots(feature: Feature) -> tuple[str, ...]:
    if feature.kind == "words":
        return (*feature.words, "other", "missing")
    edges = feature.edges
    inner = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)]
    return (f"< {edges[0]:.4g}", *inner, f"from {edges[-1]:.4g}", "inf", "NaN")


def shapes(
    record: Mapping[str, Any], said: str, course: Sequence[Point], sides: Sequence[Compared]
) -> tuple[Shape, ...]:
    """`said`: what became of the replay. The first shape is the sheet itself."""
    found: list[Shape] = []
    y = 26.0
    title = f"{record['alarm']}  {record['model']}/{record['version']}".strip()
    found.append(Text(_LEFT, y, title, "head"))
    budget = f"{explaining.budget(record)}. Threshold: {explaining.threshold(record)}."
    y += 4
    told: tuple[tuple[str, Style], ...] = (
        (str(record["sentence"]), "ink"),
        (budget, "faint"),
        (f"{said}.", "faint"),
    )
    for text, style in told:
        for line in textwrap.wrap(text, _WRAP):
            y += _LINE
            found.append(Text(_LEFT, y, line, style))
    if course:
        found.extend(_course(record, sides[0].name if sides else "", course, y + 24))
        y += 24 + 20 + _COURSE + 24
    for number, each in enumerate(sides):
        x = _LEFT if number % 2 == 0 else _RIGHT - _PANEL
        found.extend(_panel(_who(record), each, x, y + 26 + _ROW * (number // 2)))
    y += 26 + _ROW * ((len(sides) + 1) // 2)
    return (Rect(0, 0, WIDTH, y, "paper"), *found)


def svg(shapes: Sequence[Shape], title: str) -> str:
    """A document of its own; its colours follow the reader's."""
    sheet = shapes[0]
    height = sheet.height if isinstance(sheet, Rect) else 0.0
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'width="{WIDTH}" height="{height:g}" role="img" class="drift">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            *map(_element, shapes),
            "</svg>",
        ]
    )


def lines(
    record: Mapping[str, Any],
    course: Sequence[Point],
    sides: Sequence[Compared],
    width: int = 80,
    *,
    ascii: bool = False,
) -> list[str]:
    """The same for a terminal, no line longer than `width`."""
    blocks = _ASCII if ascii else _BLOCKS
    unit = explaining.course(record)
    found = []
    if course:
        values, limit = _scaled(course, unit, _threshold(record))
        room = max(8, width - 12)
        drawn = _levels(_last(values, room), max([*values, limit]), blocks)
        found.append(f"{unit:<4} {drawn}  {_number(course[-1].value, unit)}")
    for each in sides:
        # Both on one scale: what is higher is more.
        mine, theirs = _shares(each.counts), _shares(each.against)
        most = max([*mine, *theirs, 0.01])
        found.append(f"{each.name}: {count(sum(each.counts))} rows, {each.what}")
        found.append(f"  here  {_levels(mine, most, blocks)}")
        found.append(f"  there {_levels(theirs, most, blocks)}")
    return [line[:width].rstrip() for line in found]


# --- the course ----------------------------------------------------------------------------------


def _course(
    record: Mapping[str, Any], name: str, course: Sequence[Point], top: float
) -> Iterator[Shape]:
    unit, threshold = explaining.course(record), _threshold(record)
    values, limit = _scaled(course, unit, threshold)
    low, high = min(0.0, *values), max([*values, limit, 0.01]) * 1.05
    base, left = top + 20 + _COURSE, _LEFT + _AXIS

    def at(value: float) -> float:
        return base - (value - low) / (high - low) * _COURSE

    yield Text(_LEFT, top + 8, f"{name}: {_TITLES[unit]}")
    yield Line(left, base, _RIGHT, base, "axis")
    yield Line(left, top + 20, left, base, "axis")
    peak = max(range(len(values)), key=lambda n: values[n])
    step = (_RIGHT - left) / max(len(values) - 1, 1)
    points = [(left + n * step, at(value)) for n, value in enumerate(values)]
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        yield Line(x, y, to_x, to_y, "course")
    if len(points) <= 24:
        for x, y in points:
            yield Rect(x - 2.5, y - 2.5, 5, 5, "ink")
    yield Line(left, at(limit), _RIGHT, at(limit), "bar")
    marks = [
        (at(limit), _number(threshold, unit)),
        (at(values[peak]), _number(course[peak].value, unit)),
        (base - 4, _number(1.0 if unit == "p" else low, unit)),
    ]
    for number, (y, text) in enumerate(marks):
        # One that would lie on another is left out.
        if all(abs(y - other) > 12 for other, _ in marks[:number]):
            yield Text(left - 4, y + 4, text, "tick", right=True)
    yield Text(left, base + 14, _moment(course[0].at_ms), "tick")
    if len(course) > 1:
        yield Text(_RIGHT, base + 14, _moment(course[-1].at_ms), "tick", right=True)


def _threshold(record: Mapping[str, Any]) -> float:
    """Of the course: that of a cohort is of effect sizes, which have a limit of their own."""
    if record["threshold"]["unit"] == "q":
        return LEAST_PSI
    return float(record["threshold"]["value"])


def _scaled(course: Sequence[Point], unit: str, threshold: float) -> tuple[list[float], float]:
    """Heights: a p by its order of magnitude, the smaller the higher."""
    if unit != "p":
        return [each.value for each in course], threshold
    return [-log10(max(each.value, _TINY)) for each in course], -log10(max(threshold, _TINY))


# --- slots ---------------------------------------------------------------------------------------


def _who(record: Mapping[str, Any]) -> str:
    subject = _shortened(str(record["subject"]), 24)
    return f"half of {subject}" if record["kind"] == "part" else subject


def _panel(who: str, each: Compared, x: float, top: float) -> Iterator[Shape]:
    mine, theirs = _shares(each.counts), _shares(each.against)
    most = max([*mine, *theirs, 0.01])
    base = top + 46 + _BARS
    yield Text(x, top, each.name)
    yield Rect(x, top + 9, 9, 9, "one")
    yield Text(x + 14, top + 18, f"{who}, {count(sum(each.counts))} rows", "faint")
    yield Rect(x, top + 25, 9, 9, "other")
    yield Text(x + 14, top + 34, f"{each.what}, {count(sum(each.against))} rows", "faint")
    slot = _PANEL / max(len(mine), 1)
    sides: tuple[tuple[Style, Sequence[float], float], ...] = (
        ("one", mine, 0.08),
        ("other", theirs, 0.5),
    )
    for style, shares, shift in sides:
        for number, share in enumerate(shares):
            if share:
                # What is there at all is seen.
                high = max(1.0, share / most * _BARS)
                left = x + (number + shift) * slot
                yield Rect(left, base - high, slot * 0.42, high, style)
    yield Line(x, base, x + _PANEL, base, "axis")
    yield Text(x + _PANEL, top + 34, f"{most:.0%}", "tick", right=True)
    yield from _slot_names(each.slots, x, slot, base + 13)


def _slot_names(slots: Sequence[str], x: float, slot: float, y: float) -> Iterator[Shape]:
    if not slots:
        return
    yield Text(x, y, _shortened(slots[0], 14), "tick")
    if slots[-1] != "NaN":
        yield Text(x + _PANEL, y, _shortened(", ".join(slots[-2:]), 24), "tick", right=True)
    elif len(slots) <= _LABELLED:
        for back, name in enumerate(reversed(slots[-3:])):
            shift = 2 if back < 2 else 6
            yield Text(x + _PANEL - back * slot - shift, y, name, "tick", right=True)
    else:
        yield Text(x + _PANEL, y, ", ".join(slots[-3:]), "tick", right=True)


# --- how it is written ---------------------------------------------------------------------------


_TITLES: Final = {
    "ln e": "evidence of the detector, ln e, window by window",
    "p": "chance of so large a difference from its peers, p, slot by slot",
    "PSI": "PSI of the merged counts, slot by slot; dashed: least that matters",
}
_STYLE: Final = (
    # Said of this picture alone, so that a page may hold it as it is.
    ".drift{--ink:#1b1f24;--faint:#5b646d;--one:#b3541e;--other:#3b6ea5;--bar:#c62828;--paper:#fff}"
    "@media (prefers-color-scheme:dark){.drift{--ink:#e6e6e6;--faint:#9aa4ae;--one:#f2a65a;"
    "--other:#7fb2e5;--bar:#ff7b72;--paper:#15181c}}"
    ".drift text{font:12px system-ui,sans-serif;fill:var(--ink)}"
    ".drift .head{font-size:15px;font-weight:600}.drift .faint{fill:var(--faint)}"
    ".drift .tick{font-size:10px;fill:var(--faint)}.drift .right{text-anchor:end}"
    ".drift rect.ink{fill:var(--ink)}.drift .one{fill:var(--one)}.drift .other{fill:var(--other)}"
    ".drift .paper{fill:var(--paper)}.drift .axis{stroke:var(--faint)}"
    ".drift .bar{stroke:var(--bar);stroke-dasharray:5 3}"
    ".drift .course{stroke:var(--ink);stroke-width:1.6;stroke-linecap:round}"
)


def _element(shape: Shape) -> str:
    match shape:
        case Rect(x, y, width, height, style):
            return (
                f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{height:.1f}"/>'
            )
        case Line(x, y, to_x, to_y, style):
            return (
                f'<line class="{style}" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'
            )
        case Text(x, y, text, style, right):
            classes = f"{style} right" if right else style
            return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _number(value: float, unit: str) -> str:
    if unit == "p":
        return "1" if value >= 1 else f"{value:.0e}" if value > 0 else "0"
    return f"{value:.2f}" if unit == "PSI" else f"{value:.1f}"


def _moment(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at.day} {at:%b} {at:%H:%M} UTC"


def _shortened(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts)
    return [each / whole if whole else 0.0 for each in counts]


def _levels(values: Sequence[float], top: float, blocks: str) -> str:
    """One character per value, full at `top`; whatever is above nothing is seen."""
    full = len(blocks) - 1

    def level(value: float) -> int:
        if value <= 0 or top <= 0:
            return 0
        return max(1, min(full, round(value / top * full)))

    return "".join(blocks[level(value)] for value in values)


def _last(values: Sequence[float], room: int) -> Sequence[float]:
    """The last of each of at most `room` equal spans."""
    if len(values) <= room:
        return values
    return [values[(n + 1) * len(values) // room - 1] for n in range(room)]
