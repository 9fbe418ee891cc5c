"""`outrider webhook`: programs that are told of alarms over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Cursor, Home, command, connect, group
from control_plane.client import segment
from protocol.wording import date

app = group("Programs that are told of alarms over HTTP, each notice signed.")

Hook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Like webhook-3f9c21ab.")]


@command(app)
def add(
    url: Annotated[str, typer.Argument(help="https://…, at a public address.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Tell this address of alarms from now on; prints the secret that signs notices, once."""
    with connect(home) as client:
        made = client.post("webhooks", {"url": url, "topics": ["alarms"]})
    if as_json:
        showing.document(made)
        return
    screen.result(made["secret"])
    hook = made["webhook"]["id"]
    screen.hint(f"{hook} is told of alarms; its secret is not shown again")
    screen.hint(f"try it: outrider webhook test {hook}")


@command(app, "list")
def list_hooks(home: Home = None, as_json: AsJson = False) -> None:
    """Webhooks, and whether they still take notices."""
    with connect(home) as client:
        found = client.get("webhooks")
    if as_json:
        showing.document(found)
        return
    if not found["items"]:
        screen.result("no webhooks")
        return
    now_ms = showing.now_ms()
    rows = [
        [each["id"], _state(each), each["by"], _at(each["created"], now_ms), each["url"]]
        for each in found["items"]
    ]
    showing.table(["WEBHOOK", "STATE", "ADDED BY", "SINCE", "URL"], rows)


@command(app)
def remove(hook: Hook, home: Home = None, as_json: AsJson = False) -> None:
    """Tell it of nothing any more; what waits for it is not sent."""
    with connect(home) as client:
        found = client.delete(f"webhooks/{segment(hook)}")
    if as_json:
        showing.document(found)
        return
    screen.result(f"removed  {found['id']}, {found['url']}")


@command(app, "test")
def try_hook(hook: Hook, home: Home = None, as_json: AsJson = False) -> None:
    """Send it a notice that tells of nothing, now."""
    with connect(home) as client:
        found = client.post(f"webhooks/{segment(hook)}/test")
    if as_json:
        showing.document(found)
        return
    screen.result(f"taken    {found['id']} took the notice")


@command(app)
def dead(hook: Hook, cursor: Cursor = None, home: Home = None, as_json: AsJson = False) -> None:
    """Notices that it did not take and that are not tried again."""
    with connect(home) as client:
        path = f"webhooks/{segment(hook)}/deliveries"
        page = client.get(path, state="dead", limit=showing.MOST_ROWS, cursor=cursor)
    if as_json:
        showing.document(page)
        return
    now_ms = showing.now_ms()
    rows = [
        [str(each["event"]), str(each["attempts"]), _at(each["done"], now_ms), each["why"]]
        for each in page["items"]
    ]
    if rows:
        showing.table([">EVENT", ">TRIES", "GIVEN UP", "WHY"], rows)
    showing.listed(page, "dead notice", f"outrider webhook dead {hook}")


@command(app)
def retry(hook: Hook, home: Home = None, as_json: AsJson = False) -> None:
    """Send its dead notices again, also if it had said that it is gone."""
    with connect(home) as client:
        found = client.post(f"webhooks/{segment(hook)}/retry")
    if as_json:
        showing.document(found)
        return
    screen.result(f"due      {showing.plural(found['deliveries'], 'notice')}")


def _state(hook: dict[str, Any]) -> str:
    return "stopped" if hook["stopped"] else "on"


def _at(text: str | None, now_ms: int) -> str:
    return date(showing.moment_ms(text) or 0, now_ms)
