"""Questions before many devices change."""

from __future__ import annotations

import sys
from typing import Final

from control_plane.cli import screen
from protocol.errors import InvalidRequest

MANY: Final = 100
"""From so many devices on, their number is typed."""


def confirm(
    what: str, devices: int, *, whole_fleet: bool, yes: bool, verb: str, do: str = ""
) -> None:
    """One device needs no question; a hundred, or the whole fleet, need their number typed.

    `do`: how somebody says yes who is not there to be asked, where it is not just `--yes`.
    Raises `InvalidRequest` OUT-S152 unless the answer is yes, also when nobody is there to ask.
    """
    if yes or devices <= 1:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest("OUT-S152", what, do=do)
    if devices >= MANY or whole_fleet:
        agreed = answer(f"{what} Type {devices}: ").replace(",", "") == str(devices)
    else:
        agreed = said_yes(f"{what} {verb}? [y/N] ")
    if not agreed:
        raise InvalidRequest("OUT-S152", "the answer was another", do="start again when ready")


def said_yes(question: str) -> bool:
    return answer(question).lower() in ("y", "yes")


def answer(question: str) -> str:
    """What a person types; nothing at the end of the input. The question goes to stderr."""
    sys.stderr.write(screen.readable(question, sys.stderr))
    sys.stderr.flush()
    return sys.stdin.readline().strip()
