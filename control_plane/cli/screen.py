"""What this terminal can show, and how much of it is wanted."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final, TextIO

import typer

WIDTH: Final = 80

_ASCII: Final = str.maketrans(
    {"├": "|", "└": "`", "│": "|", "─": "-", "…": "~", "█": "#", "░": ".", "–": "-", "×": "x"}
)
_RESET: Final = "\x1b[0m"
_TINTS: Final = {
    "\x1b[32m": ("healthy", "approved", "completed", "pass"),
    "\x1b[33m": ("on probation", "paused", "draft", "unexercised", "insufficient"),
    "\x1b[31m": ("rolled back", "failed", "aborted", "revoked", "no model", "fail", "error"),
}
_TINT_OF: Final = {word: tint for tint, words in _TINTS.items() for word in words}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of the options that every command has."""

    quiet: bool = False
    verbose: int = 0
    colour: bool = True


class _Current:
    """One command per process."""

    wanted = Wanted()


def want(wanted: Wanted) -> None:
    _Current.wanted = wanted


def wanted() -> Wanted:
    return _Current.wanted


def result(text: str) -> None:
    """A line of what was asked for: to stdout."""
    typer.echo(readable(text, sys.stdout))


def hint(text: str) -> None:
    """Advice and progress, never part of a result: to stderr, unless `-q`."""
    if not wanted().quiet:
        complaint(text)


def complaint(text: str) -> None:
    """An error or a question: to stderr, also with `-q`."""
    typer.echo(readable(text, sys.stderr), err=True)


def readable(text: str, stream: TextIO) -> str:
    """The text as `stream` can show it: in ASCII where it does not speak UTF-8."""
    if speaks_utf8(stream):
        return text
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def tinted(text: str, stream: TextIO) -> str:
    """In the colour of the word that it begins with, if it has one. Colour only repeats words."""
    bare = text.strip()
    tint = _TINT_OF.get(bare) or _TINT_OF.get(bare.split(" ", 1)[0].partition("[")[0])
    return f"{tint}{text}{_RESET}" if tint and coloured(stream) else text


def coloured(stream: TextIO) -> bool:
    return wanted().colour and "NO_COLOR" not in os.environ and redraws(stream)


def redraws(stream: TextIO) -> bool:
    """Whether a line can be drawn again in place."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def speaks_utf8(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
