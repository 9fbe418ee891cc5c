"""How a command that fails says so: in the catalogue's form, or as problem JSON; its exit code."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from typing import Final

import typer

from control_plane.cli import screen
from control_plane.client import Answered
from protocol.errors import Failed, InvalidRequest, OutriderError
from protocol.telling import document, told

USAGE: Final = 2


def fail(error: OutriderError, *, as_json: bool) -> int:
    """Say it on stderr; the exit code."""
    if as_json:
        body = error.document if isinstance(error, Answered) else document(error)
        sys.stderr.write(json.dumps(body) + "\n")
        return error.problem.exit
    for number, line in enumerate(told(error)):
        text = screen.readable(line, sys.stderr)
        sys.stderr.write((text if number else screen.tinted(text, sys.stderr)) + "\n")
    if screen.wanted().verbose:
        for reason in _reasons(error):
            screen.complaint(f"  {reason}")
        if error.code == "OUT-S160" and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
    return error.problem.exit


def misused(error: typer.TyperException, *, as_json: bool) -> int:
    """A command line that cannot be read: which part of it, and where the help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "outrider"
    text = error.format_message().rstrip(".")
    if text.startswith("Usage:"):
        screen.complaint(text)
        return USAGE
    wrong = text[:1].lower() + text[1:]
    return fail(InvalidRequest("OUT-S120", wrong, do=f"{command} --help"), as_json=as_json)


def unreadable(error: OSError) -> OutriderError:
    """A file that was named, or the machine's own fault."""
    name = str(error.filename or "")
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) and name:
        return InvalidRequest("OUT-S110", f"no file named {name}", do="check the path")
    why = f"{name}: {error.strerror}" if name else str(error.strerror or error)
    if isinstance(error, PermissionError):
        return InvalidRequest("OUT-S120", why, do="check who may read and write it")
    return Failed("OUT-S161", why)


def fault(error: Exception) -> OutriderError:
    """A fault of ours."""
    ours = Failed("OUT-S160", f"{type(error).__name__}: {error}", do="please report it, with -v")
    ours.__cause__ = error
    return ours


def _reasons(error: OutriderError) -> Iterator[str]:
    """What `-v` adds: the request, and what went wrong below."""
    if isinstance(error, Answered) and "request_id" in error.document:
        yield f"request  {error.document['request_id']}"
    cause = error.__cause__
    while cause is not None:
        yield f"because  {type(cause).__name__}: {cause}"
        cause = cause.__cause__
