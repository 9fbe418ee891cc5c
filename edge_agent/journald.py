"""Log lines for the system's journal: it knows the time, and takes the priority from `<4>`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Final

EVENTS: Final = "outrider"
"""Logger of what happened, in a technician's words; all others log internals."""

_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
_DEBUG: Final = 7


def is_stderr(environment: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether what is written there goes straight to the journal (systemd.exec(5))."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def priority(level: int) -> int:
    """Of syslog, for a level of `logging`."""
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG)


def text_of(record: logging.LogRecord) -> str:
    """What a record says; internals have their module's name in front."""
    said = record.getMessage()
    return said if record.name == EVENTS else f"[{record.name}] {said}"


class Prefixed(logging.Formatter):
    """Each line of a record with its priority in front: the journal takes them one by one."""

    def format(self, record: logging.LogRecord) -> str:
        lines = text_of(record).splitlines()
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        return "\n".join(f"<{priority(record.levelno)}>{line}" for line in lines)
