"""`outrider rollout`: its commands."""

from __future__ import annotations

from control_plane.cli import acting, looking, replaying, starting
from control_plane.cli.commands import command, group

app = group("A version on its way through the fleet.")

command(app)(starting.plan)
command(app)(starting.start)
command(app)(looking.status)
command(app)(replaying.explain)
for each in (acting.promote, acting.approve, acting.pause, acting.resume, acting.abort):
    command(app)(each)
command(app)(acting.retry)
command(app, "return")(starting.return_to)
