"""An evidence record as a picture: an SVG for a page, lines of blocks for a terminal.

Per series, what share of the new and of the old devices is in each slot, and how the evidence
that new ones are worse went, hour by hour, against the threshold at which it would be a fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import Any, Final

from control_plane.rollout import record as records
from control_plane.rollout.figures import ScoreFigures, course
from control_plane.rollout.sentences import series
from protocol.wording import count

MOST_SERIES: Final = 24
"""More are named, not drawn: a mix of ten classes alone has twenty series per exposure."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII: Final = " .:-=+*#@"

_WIDTH: Final = 760
_ROW: Final = 112
_HEAD: Final = 74
_BARS_X: Final = 20
_BARS_WIDTH: Final = 300
_LINE_X: Final = 380
_LINE_WIDTH: Final = 360
_HEIGHT: Final = 62
_STYLE: Final = (
    # Said of this picture alone, so that a page may hold it as it is.
    ".gate{--ink:#1b1f24;--faint:#5b646d;--new:#b3541e;--old:#3b6ea5;--bar:#c62828;--paper:#fff}"
    "@media (prefers-color-scheme:dark){.gate{--ink:#e6e6e6;--faint:#9aa4ae;--new:#f2a65a;"
    "--old:#7fb2e5;--bar:#ff7b72;--paper:#15181c}}"
    ".gate text{font:12px system-ui,sans-serif;fill:var(--ink)}.gate .faint{fill:var(--faint)}"
    ".gate .head{font-size:15px;font-weight:600}.gate .new{fill:var(--new)}"
    ".gate .old{fill:var(--old)}.gate .paper{fill:var(--paper)}.gate .axis{stroke:var(--faint)}"
    ".gate .bar{stroke:var(--bar);stroke-dasharray:5 3}"
    ".gate .course{fill:none;stroke:var(--ink);stroke-width:1.6}"
)


@dataclass(frozen=True, slots=True)
class _Drawn:
    score: ScoreFigures
    course: tuple[float, ...]
    """ln M, hour by hour."""

    @property
    def words(self) -> str:
        """What the evidence comes to, with numbers."""
        role, state = self.score.role, self.score.state
        if not self.course:
            return f"{role}, {state}"
        return (
            f"{role}, {state}: ln M {self.course[-1]:.1f}, fails from {self.score.threshold:.1f}; "
            f"ln E within {self.score.ln_pass:.1f}"
        )


def svg(record: Mapping[str, Any]) -> str:
    """A document of its own; colours follow the reader's. Raises `PeerError` for no record."""
    drawn, left_out = _drawn(record)
    sentence = _wrapped(str(record.get("sentence", "")), 112)
    top = _HEAD + 15 * max(0, len(sentence) - 2)
    height = top + _ROW * len(drawn) + (24 if left_out else 8)
    head = f"{record.get('verdict', '')}: wave {record.get('wave', '')}"
    rollout = record.get("rollout")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" class="gate">',
        f"<title>{escape(str(record.get('sentence', '')))}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
        _text(20, 24, f"{rollout}  {head}" if rollout else head, "head"),
        *(_text(20, 42 + 15 * n, part) for n, part in enumerate(sentence)),
    ]
    for row, each in enumerate(drawn):
        parts += _row(each, top + row * _ROW)
    if left_out:
        parts.append(_text(20, height - 8, f"and {left_out} more series", "faint"))
    return "".join([*parts, "</svg>"])


def lines(record: Mapping[str, Any], width: int = 80, *, ascii: bool = False) -> list[str]:
    """The same for a terminal, no line longer than `width`. Raises `PeerError` for no record."""
    drawn, left_out = _drawn(record)
    blocks = _ASCII if ascii else _BLOCKS
    found: list[str] = []
    for each in drawn:
        n, m = each.score.judged
        found.append(series(each.score.watched))
        if n or m:
            found.append(f"  new {_bars(each.score.a, blocks)} {count(n)} devices, better to worse")
            found.append(f"  old {_bars(each.score.b, blocks)} {count(m)}")
        if each.course:
            room = max(8, width - 8)
            top = max(each.score.threshold, *each.course) if _bounded(each) else max(each.course)
            found.append(f"  ln M {_levels(_last(each.course, room), top, blocks)}")
        found.append(f"  {each.words}")
    if left_out:
        found.append(f"and {left_out} more series")
    return [line[:width].rstrip() for line in found]


def _drawn(record: Mapping[str, Any]) -> tuple[list[_Drawn], int]:
    """What is worth seeing first: what fails, then guards, then what is nearest to failing."""
    judgement = records.replay(record)
    evidence = records.evidence_of(record)
    scores = judgement.figures.scores if judgement.figures is not None else ()
    order = sorted(
        scores,
        key=lambda each: (each.state != "worse", each.role != "guard", each.threshold - each.ln_m),
    )
    wave = judgement.asked.wave if judgement.asked is not None else 0
    drawn = [
        _Drawn(
            each,
            tuple(ln_m for number, _, ln_m in course(evidence, each.watched) if number <= wave),
        )
        for each in order[:MOST_SERIES]
    ]
    return drawn, len(order) - len(drawn)


def _row(each: _Drawn, top: int) -> Iterable[str]:
    n, m = each.score.judged
    base = top + 34 + _HEIGHT
    yield _text(_BARS_X, top + 14, series(each.score.watched))
    yield _text(_BARS_X, top + 28, f"{count(n)} new", "new")
    yield _text(_BARS_X + 90, top + 28, f"{count(m)} old", "old")
    yield _text(_LINE_X, top + 14, each.words, "faint")
    slot = _BARS_WIDTH / len(each.score.a)
    most = max([*_shares(each.score.a), *_shares(each.score.b), 0.01])
    for side, counts, shift in (("new", each.score.a, 2.0), ("old", each.score.b, slot / 2)):
        for number, part in enumerate(_shares(counts)):
            if part:
                high = part / most * _HEIGHT
                yield (
                    f'<rect class="{side}" x="{_BARS_X + number * slot + shift:.1f}" '
                    f'y="{base - high:.1f}" width="{slot / 2 - 2:.1f}" height="{high:.1f}"/>'
                )
    yield _line(_BARS_X, base, _BARS_X + _BARS_WIDTH, base, "axis")
    yield _line(_LINE_X, base, _LINE_X + _LINE_WIDTH, base, "axis")
    if not each.course:
        return
    ceiling = [each.score.threshold] if _bounded(each) else []
    low = min(0.0, *each.course)
    high = max(1.0, *each.course, *ceiling)

    def at(value: float) -> float:
        return base - (value - low) / (high - low) * _HEIGHT

    step = _LINE_WIDTH / max(len(each.course) - 1, 1)
    points = " ".join(f"{_LINE_X + n * step:.1f},{at(v):.1f}" for n, v in enumerate(each.course))
    yield f'<polyline class="course" points="{points}"/>'
    for limit in ceiling:
        yield _line(_LINE_X, at(limit), _LINE_X + _LINE_WIDTH, at(limit), "bar")


def _bounded(each: _Drawn) -> bool:
    return isfinite(each.score.threshold)


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts)
    return [each / whole if whole else 0.0 for each in counts]


def _bars(counts: Sequence[int], blocks: str) -> str:
    return _levels(counts, max(counts, default=0), blocks)


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


def _wrapped(text: str, width: int) -> list[str]:
    found = [""]
    for word in text.split():
        if found[-1] and len(found[-1]) + 1 + len(word) > width:
            found.append(word)
        else:
            found[-1] = f"{found[-1]} {word}".strip()
    return found


def _text(x: float, y: float, text: str, style: str = "") -> str:
    chosen = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}"{chosen}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, style: str) -> str:
    return f'<line class="{style}" x1="{x:g}" y1="{y:.1f}" x2="{to_x:g}" y2="{to_y:.1f}"/>'
