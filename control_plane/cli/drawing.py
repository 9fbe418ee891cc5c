"""Shapes of a picture as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from control_plane.drift.picture import WIDTH, Line, Rect, Shape, Style, Text
from protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from PIL import ImageDraw

_SCALE: Final = 2
"""Pixels per unit: screens of today have as many."""
_COLOURS: Final[dict[Style, str]] = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "head": "#1b1f24",
    "faint": "#5b646d",
    "one": "#b3541e",
    "other": "#3b6ea5",
    "axis": "#5b646d",
    "bar": "#c62828",
    "course": "#1b1f24",
    "tick": "#5b646d",
}
_SIZES: Final[dict[Style, int]] = {"head": 15, "tick": 10}
_SIZE: Final = 12
_DASH: Final = (5.0, 3.0)


def write_png(shapes: Sequence[Shape], path: Path) -> None:
    """Raises `InvalidRequest` OUT-S120 where Pillow is not installed; `OSError`."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise InvalidRequest(
            "OUT-S120",
            "a PNG needs Pillow, which is not installed",
            do=f"write {path.with_suffix('.svg')}, or: pip install 'outrider[plots]'",
        ) from error
    sheet = shapes[0]
    height = sheet.height if isinstance(sheet, Rect) else 1.0
    image = Image.new("RGB", (WIDTH * _SCALE, round(height * _SCALE)), _COLOURS["paper"])
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        _put(draw, shape)
    image.save(path, format="PNG")


def _put(draw: ImageDraw.ImageDraw, shape: Shape) -> None:
    match shape:
        case Rect(x, y, width, height, style):
            corners = [x * _SCALE, y * _SCALE, (x + width) * _SCALE, (y + height) * _SCALE]
            draw.rectangle(corners, fill=_COLOURS[style])
        case Line(x, y, to_x, to_y, style):
            thick = round(1.6 * _SCALE) if style == "course" else _SCALE
            for part in _dashed(shape) if style == "bar" else [(x, y, to_x, to_y)]:
                draw.line([each * _SCALE for each in part], fill=_COLOURS[style], width=thick)
        case Text(x, y, text, style, right):
            anchor = "rs" if right else "ls"
            place = (x * _SCALE, y * _SCALE)
            draw.text(place, text, _COLOURS[style], font=_font(style), anchor=anchor)


def _font(style: Style) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(_SIZES.get(style, _SIZE) * _SCALE)


def _dashed(line: Line) -> list[tuple[float, float, float, float]]:
    """A level line in pieces."""
    on, off = _DASH
    found = []
    x = line.x
    while x < line.to_x:
        found.append((x, line.y, min(x + on, line.to_x), line.y))
        x += on + off
    return found
