"""How a function becomes a command: what every command has besides its own options."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from control_plane.access import access
from control_plane.cli import screen
from control_plane.client import Access, Client
from control_plane.settings import HOME_VARIABLE, find_home

Home = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the control plane, or of your access to one; ./outrider without it.",
        envvar=HOME_VARIABLE,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The API's JSON, unchanged, on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Why = Annotated[str, typer.Option(help="For the record.")]
Cursor = Annotated[
    str | None, typer.Option(help="Go on behind a list that stopped: its next_cursor.")
]

PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="Read the passphrase from this file's first line instead of asking."),
]

_Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only results and errors.")]
_Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="Reasons; -vv: every request.")
]
_NoColour = Annotated[bool, typer.Option("--no-color", help="As NO_COLOR in the environment.")]
_EVERYWHERE: Final = (
    ("quiet", _Quiet, False),
    ("verbose", _Verbose, 0),
    ("no_color", _NoColour, False),
)
_WIRE: Final = 2

F = TypeVar("F", bound=Callable[..., Any])


def group(help: str) -> typer.Typer:
    """Commands below one word."""
    return typer.Typer(no_args_is_help=True, help=help, rich_markup_mode=None)


def command(app: typer.Typer, name: str | None = None) -> Callable[[F], F]:
    """Register a function as a command of `app`, with `-q`, `-v` and `--no-color` added."""

    def register(function: F) -> F:
        @functools.wraps(function)
        def run(*, quiet: bool, verbose: int, no_color: bool, **given: Any) -> Any:
            screen.want(screen.Wanted(quiet, verbose, not no_color))
            if verbose >= _WIRE:
                logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
            return function(**given)

        signature = inspect.signature(function, eval_str=True)
        added = [
            inspect.Parameter(
                each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for each, kind, default in _EVERYWHERE
        ]
        parameters = [*signature.parameters.values(), *added]
        # The interface is read from these two.
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(name)(run)
        return function

    return register


def connect(home: Path | None) -> Client:
    """A caller of the control plane whose home `home` is, or to which it has access.

    Raises `InvalidRequest` OUT-S150 without one.
    """
    return client_of(access(find_home(os.environ, home)))


def client_of(found: Access) -> Client:
    return Client(found)
