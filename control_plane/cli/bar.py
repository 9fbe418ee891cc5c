"""A bar on a terminal's stderr while something takes time; elsewhere nothing.

upload   ██████████████░░░░░░  0.88 of 1.26 MB  2 s left
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from control_plane.cli import screen
from protocol.wording import duration, share

CELLS: Final = 20
_CLEAR: Final = "\r\x1b[K"


class Bar:
    """Called with `(done, total)`; gone when it is done."""

    def __init__(self, label: str, text: Callable[[int, int], str] = share) -> None:
        self._label = label
        self._text = text
        self._draws = screen.redraws(sys.stderr) and not screen.wanted().quiet
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._draws:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def __call__(self, done: int, total: int) -> None:
        if self._draws:
            text = drawn(self._label, done, total, time.monotonic() - self._since, self._text)
            sys.stderr.write(_CLEAR + screen.readable(text, sys.stderr))
            sys.stderr.flush()


def drawn(
    label: str, done: int, total: int, seconds: float, text: Callable[[int, int], str] = share
) -> str:
    """The line, after so many seconds; what is left is said once there is something to go by."""
    full = CELLS * done // total if total else 0
    line = f"{label:<9}{'█' * full}{'░' * (CELLS - full)}  {text(done, total)}"
    if seconds >= 1 and 0 < done < total:
        line += f"  {duration(seconds * (total - done) / done + 1)} left"
    return line
