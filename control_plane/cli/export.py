"""`outrider export usb`: everything that devices without a link need, as plain files on a stick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import screen, showing
from control_plane.cli.bar import Bar
from control_plane.cli.commands import AsJson, Home, command, connect, group
from control_plane.stick_folder import StickFolder, Written
from protocol.wording import size, size_of

app = group("Bring models to devices without a link.")


@command(app)
def usb(
    to: Annotated[Path, typer.Option("--to", help="Folder of the stick.")],
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="DEVICE...", help="Names of devices.")
    ] = None,
    selector: Annotated[
        str | None, typer.Option(help="Instead of names, for instance: site = leeds")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write what these devices should run to a stick; what lies there already is not sent again."""
    with connect(home) as client:
        folder = StickFolder(to, client.access.fleet)
        folder.require_usable()
        asked = {"devices": devices or [], "selector": selector}
        export = client.post("exports", asked)
        sizes = {each["payload"]: each["size_bytes"] for each in export["payloads"]}
        with Bar("export", size_of) as told:
            written = folder.write(export["note"], export["files"], sizes, client.blocks, told)
    if as_json:
        showing.document(
            {
                "to": str(to),
                "note": export["note"],
                "versions": export["versions"],
                "size_bytes": written.total_bytes,
                "written_bytes": written.written_bytes,
            }
        )
        return
    count = len(export["note"]["devices"])
    chosen = f": {export['note'].get('chosen', '')}" if selector else ""
    showing.line("stick", f"{showing.plural(count, 'device')}{chosen}")
    versions = ", ".join(f"{each['model']}/{each['version']}" for each in export["versions"])
    showing.line("versions", versions or "none: the plan leads these devices to nothing")
    showing.line("wrote", f"{to}: {_sizes(written)}")
    screen.hint(f"next: on each device: sudo outrider-agent install --from {to}")


def _sizes(written: Written) -> str:
    there = written.total_bytes - written.written_bytes
    return size(written.total_bytes) + (f", {size(there)} of it was there" if there else "")
