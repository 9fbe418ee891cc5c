"""The agent's last log records, in memory: where no journal keeps them, a technician reads these.

Bounded in number and in length, so that nothing that repeats fills anything.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

from edge_agent.journald import EVENTS

MOST: Final = 2000
MAX_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Said:
    """One record. `n` counts from 1 on since the agent started."""

    n: int
    at_ms: int
    """By the wall clock of the device."""
    level: int
    """As in `logging`: 30 is a warning."""
    source: str
    """`outrider` for what happened in words, else a module."""
    text: str

    @property
    def in_words(self) -> bool:
        """Whether it is for everybody: what happened, and what went wrong."""
        return self.source == EVENTS or self.level >= logging.WARNING


class Recent(logging.Handler):
    """Attach it to the root logger; any thread may read."""

    def __init__(self, most: int = MOST, *, journal: bool = False) -> None:
        """`journal`: whether the system's journal keeps the same."""
        super().__init__()
        self._kept: deque[Said] = deque(maxlen=most)
        self._n = 0
        self.journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        # Only ever called with the handler's lock held.
        self._n += 1
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text} ({type(record.exc_info[1]).__name__})"
        at_ms = int(record.created * 1000)
        self._kept.append(Said(self._n, at_ms, record.levelno, record.name, text[:MAX_TEXT]))

    def read(
        self, *, after: int = 0, since_ms: int = 0, everything: bool = False, most: int = MOST
    ) -> list[Said]:
        """The last `most` records behind number `after`, oldest first."""
        self.acquire()
        try:
            kept = list(self._kept)
        finally:
            self.release()
        found = [
            each
            for each in kept
            if each.n > after and each.at_ms >= since_ms and (everything or each.in_words)
        ]
        return found[-most:] if most else []
