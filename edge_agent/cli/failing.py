"""Errors go to stderr, in the catalogue's form or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Final

import typer

from protocol.errors import InvalidRequest, OutriderError
from protocol.telling import document, told

USAGE: Final = 2


def misused(error: typer.TyperException, as_json: bool) -> int:
    text = error.format_message().rstrip(".")
    if text.startswith("Usage:"):
        sys.stderr.write(text + "\n")
        return USAGE
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "outrider-agent"
    wrong = text[:1].lower() + text[1:]
    return fail(InvalidRequest("OUT-S120", wrong, do=f"{command} --help"), as_json)


def fail(error: OutriderError, as_json: bool) -> int:
    if as_json:
        sys.stderr.write(json.dumps(document(error)) + "\n")
    else:
        sys.stderr.write("\n".join(told(error)) + "\n")
    return error.problem.exit
