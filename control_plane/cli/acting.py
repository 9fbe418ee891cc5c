"""`outrider rollout promote`, `approve`, `pause`, `resume`, `abort` and `retry`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from control_plane.cli import asking, looking, showing
from control_plane.cli.asked import fleet_of
from control_plane.cli.commands import AsJson, Home, Why, Yes, connect
from control_plane.cli.looking import Name
from control_plane.cli.showing import plural
from control_plane.client import Client, segment

ENDED: Final = ("completed", "aborted")
"""Nobody is asked about what will be refused."""


def pause(rollout: Name = None, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """No further wave; devices go on with what they have begun."""
    with connect(home) as client:
        _act(client, "pause", rollout or looking.newest(client), {"why": why}, as_json)


def resume(rollout: Name = None, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """Go on after a pause; where nothing was proven, go on all the same."""
    with connect(home) as client:
        _act(client, "resume", rollout or looking.newest(client), {"why": why}, as_json)


def promote(
    rollout: Name = None,
    why: Why = "",
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The next wave now, whatever was measured, but not after a failure; the last one completes."""
    _onwards("promote", rollout, why, yes, home, as_json)


def approve(
    rollout: Name = None,
    why: Why = "",
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a wave begin that waits for a person."""
    _onwards("approve", rollout, why, yes, home, as_json)


def abort(
    rollout: Name = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Devices that run it keep it; no other gets it.")
    ] = False,
    why: Why = "",
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Every device goes back to what was stable, from its own disk."""
    with connect(home) as client:
        name = rollout or looking.newest(client)
        shown = client.get(f"rollouts/{segment(name)}")
        activated = shown["counts"]["activated"]
        if not keep:
            asking.confirm(
                f"{plural(activated, 'device')} that activated it will go back.",
                activated,
                whole_fleet=activated >= fleet_of(client),
                yes=yes,
                verb="Abort",
            )
        _act(client, "abort", name, {"why": why, "keep": keep}, as_json)


def retry(
    rollout: Name = None,
    why: Why = "",
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Devices that gave the version up try it again, as another attempt."""
    with connect(home) as client:
        name = rollout or looking.newest(client)
        shown = client.get(f"rollouts/{segment(name)}")
        counts = shown["counts"]
        gave_up = 0 if shown["status"] in ENDED else counts["failed"] + counts["rolled_back"]
        asking.confirm(
            f"{plural(gave_up, 'device')} that gave it up will try it again.",
            gave_up,
            whole_fleet=gave_up >= fleet_of(client),
            yes=yes,
            verb="Retry",
        )
        _act(client, "retry", name, {"why": why}, as_json)


def _onwards(verb: str, rollout: str | None, why: str, yes: bool, home: Any, as_json: bool) -> None:
    with connect(home) as client:
        name = rollout or looking.newest(client)
        shown = client.get(f"rollouts/{segment(name)}")
        refused = shown["status"] in ENDED or (verb == "approve" and not shown["waits_for"])
        what, devices = ("", 0) if refused else next_of(shown)
        asking.confirm(
            what,
            devices,
            whole_fleet=devices >= fleet_of(client),
            yes=yes,
            verb=verb.capitalize(),
        )
        _act(client, verb, name, {"why": why}, as_json)


def next_of(shown: dict[str, Any]) -> tuple[str, int]:
    """What going on means for a rollout, and for how many devices."""
    waves, wave = shown["waves"], shown["wave"]
    if (shown["shadow"] or {}).get("active") and shown["waits_for"]:
        devices = shown["shadow"]["devices"]
        return f"{plural(devices, 'device')} of wave {wave} may activate it then.", devices
    if wave >= len(waves):
        held = shown["held"]
        return f"It completes, also for {plural(held, 'device')} that are held back.", held
    before = waves[wave - 1]["devices"] if wave else 0
    more = waves[wave]["devices"] - before
    return f"Wave {wave + 1} touches {plural(more, 'more device')} now.", more


def _act(client: Client, verb: str, name: str, body: dict[str, Any], as_json: bool) -> None:
    shown = client.post(f"rollouts/{segment(name)}/{verb}", body)
    if as_json:
        showing.document(shown)
        return
    looking.draw(shown)
