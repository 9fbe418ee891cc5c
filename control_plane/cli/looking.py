"""`outrider rollout status`: where a rollout stands, once or until it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home, connect
from control_plane.cli.frames import frame
from control_plane.client import Client, segment
from protocol.errors import InvalidRequest

LOOK_S: Final = 0.5
EXITS: Final = {"completed": 0, "aborted": 1, "paused": 8}

Name = Annotated[str | None, typer.Argument(help="For instance digits-7; the newest without it.")]


def status(
    rollout: Name = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Until it ends; exits with its outcome.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Where a rollout stands: exit 0, or 1 aborted, 8 paused. Ctrl-C only ends the watching."""
    with connect(home) as client:
        name = rollout or newest(client)
        shown: dict[str, Any] = {}
        height = 0
        # Where a look is drawn over the one before, that time passes is worth another.
        over = screen.redraws(sys.stdout) and not as_json
        for shown in _looks(client, name, watch, timeless=not over):
            if as_json:
                showing.document(shown)
            else:
                height = draw(shown, height)
    raise typer.Exit(EXITS.get(shown["status"], 0))


def newest(client: Client) -> str:
    """Raises `InvalidRequest` OUT-S110 while there is none."""
    items = client.get("rollouts", limit=1)["items"]
    if not items:
        raise InvalidRequest("OUT-S110", "there is no rollout yet", do="outrider rollout start")
    name: str = items[0]["id"]
    return name


def draw(shown: dict[str, Any], above: int = 0) -> int:
    """In place of the `above` lines drawn before on a terminal, else below them."""
    if above and screen.redraws(sys.stdout):
        sys.stdout.write(f"\x1b[{above}A\x1b[J")
    text = "\n".join(frame(shown, showing.now_ms()))
    screen.result(text)
    return text.count("\n") + 1


def _looks(client: Client, name: str, watch: bool, *, timeless: bool) -> Iterator[dict[str, Any]]:
    """The rollout now; when watching, each change until it ends or is paused."""
    before: dict[str, Any] = {}
    while True:
        shown: dict[str, Any] = client.get(f"rollouts/{segment(name)}")
        seen = without_time(shown) if timeless else shown
        if seen != before:
            yield shown
        before = seen
        if not watch or shown["status"] in EXITS:
            return
        time.sleep(LOOK_S)


def without_time(shown: dict[str, Any]) -> dict[str, Any]:
    """The body without what changes only because time passes."""
    away = shown["not_reached"]
    names = [each["device"] for each in away["newest"]]
    soak = {**shown["soak"], "left_seconds": None} if shown["soak"] else None
    return {**shown, "soak": soak, "not_reached": {**away, "newest": names}}
