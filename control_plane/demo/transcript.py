"""What the demo prints: scenes, lines, lines that change, and the table of checks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TextIO

_TITLE_WIDTH: Final = 67
_LABEL_WIDTH: Final = 10


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and whether it was kept."""

    scene: int
    what: str
    expected: str
    seen: str
    ok: bool
    missing: str = ""
    """Who or what fell short, for the reader of a failure."""
    look_at: str = ""


class Transcript:
    """Writes to one stream. On a terminal, lines that change are redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._redraw = stream.isatty()
        self._started = time.monotonic()
        self._live: tuple[str, str] | None = None

    @property
    def elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes}:{seconds:02}"

    def plain(self, text: str = "") -> None:
        self._settle()
        self._write(text + "\n")

    def scene(self, number: int, title: str) -> None:
        self.plain()
        self.plain(f"{number} {title:<{_TITLE_WIDTH - 2}}{self.elapsed:>5}")

    def line(self, label: str, text: str) -> None:
        self._settle()
        self._write(f"  {label:<{_LABEL_WIDTH}}{text}\n")

    def live(self, label: str, text: str) -> None:
        """A line that changes: one per change in a log, redrawn in place on a terminal."""
        if self._live == (label, text):
            return
        if self._live is not None and (not self._redraw or self._live[0] != label):
            self._settle()
        self._live = (label, text)
        if self._redraw:
            self._write(f"\r\033[K~ {label:<{_LABEL_WIDTH}}{text}")
        else:
            self._write(f"~ {label:<{_LABEL_WIDTH}}{text}\n")

    def table(self, checks: Sequence[Check]) -> None:
        self.plain()
        self.plain(f"{'check':<41}{'expected':<13}{'seen':<13}ok")
        for check in checks:
            verdict = "ok" if check.ok else "FAILED"
            self.plain(
                f"{check.scene} {check.what:<39}{check.expected:<13}{check.seen:<13}{verdict}"
            )
        for check in checks:
            if not check.ok:
                self._failure(check)
        passed = sum(check.ok for check in checks)
        self.plain(f"{passed} of {len(checks)} checks ok in {self.elapsed}")

    def _failure(self, check: Check) -> None:
        self.plain()
        self.plain(f"FAILED  {check.scene} {check.what}")
        if check.missing:
            self.plain(f"  missing  {check.missing}")
        if check.look_at:
            self.plain(f"  look at  {check.look_at}")
        self.plain("  go on    outrider demo --keep    then: outrider device list")
        self.plain()

    def _settle(self) -> None:
        if self._live is not None:
            if self._redraw:
                self._write("\n")
            self._live = None

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
