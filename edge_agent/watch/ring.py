"""Rows wait here until enough of them are worth one fold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from edge_agent.watch.fold import Rows

MAX_ROWS: Final = 256
MAX_VALUES: Final = 256 * 1024
"""One MiB of float32 at most, however wide the rows are."""


class Ring:
    """Collects rows [n, columns] and hands them to `fold` in blocks.

    `fold` gets a view that is overwritten by the next rows: it must not keep it.
    """

    def __init__(self, columns: int, fold: Callable[[Rows], None]) -> None:
        self._rows = np.empty((max(1, min(MAX_ROWS, MAX_VALUES // columns)), columns), np.float32)
        self._filled = 0
        self._fold = fold

    def push(self, rows: Rows) -> None:
        start = 0
        while start < len(rows):
            taken = min(len(rows) - start, len(self._rows) - self._filled)
            self._rows[self._filled : self._filled + taken] = rows[start : start + taken]
            self._filled += taken
            start += taken
            if self._filled == len(self._rows):
                self.flush()

    def flush(self) -> None:
        if self._filled:
            self._fold(self._rows[: self._filled])
            self._filled = 0
