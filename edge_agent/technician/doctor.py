"""`outrider-agent doctor`: asks the running agent, looks at the rest, and says what to do."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

from edge_agent.settings import Settings
from edge_agent.technician import door, probes
from edge_agent.technician.checks import Findings, Golden, Report, examine, lines
from protocol.codec import convert, to_wire
from protocol.errors import InvalidRequest, Unavailable


def doctor(settings: Settings, *, as_json: bool) -> int:
    """Print what was found; the exit code: 1 if a check failed, 8 if one only warns."""
    report = examine(look(settings))
    if as_json:
        sys.stdout.write(json.dumps(document(report)) + "\n")
    else:
        for line in lines(report):
            sys.stdout.write(line + "\n")
    return report.exit


def document(report: Report) -> dict[str, Any]:
    return {
        "checks": [to_wire(check) for check in report.checks],
        "failed": report.failed,
        "warnings": report.warnings,
    }


def look(settings: Settings) -> Findings:
    """All that can be found out here and now."""
    home = settings.paths.home
    folder, wrong = probes.folder(home)
    found = Findings(
        0,
        free_bytes=probes.free_bytes(home),
        folder=folder,
        folder_wrong=wrong,
        port=settings.port,
        unit=probes.unit(),
    )
    try:
        return _of_agent(settings, found)
    except Unavailable:
        return _of_disk(settings, found)


def _of_agent(settings: Settings, found: Findings) -> Findings:
    """Raises `Unavailable` OUT-D401 when no agent answers."""
    socket = settings.paths.socket
    status = door.ask(socket)
    golden, intact = [], None
    for line in door.command(socket, "doctor", {}):
        if line.what == "golden":
            golden.append(convert(line.data, Golden))
        elif line.what == "trust":
            intact = bool(line.data["marks_intact"])
    return replace(
        found,
        now_ms=status.now_ms,
        status=status,
        certificate_until_ms=status.certificate_until_ms or None,
        golden=tuple(golden),
        trust=status.state.trust,
        marks_intact=intact,
        clock=status.state.clock,
        clock_unset=status.clock_unset,
    )


def _of_disk(settings: Settings, found: Findings) -> Findings:
    from edge_agent.clock import Clock
    from edge_agent.identity import certificate_until_ms, load

    paths = settings.paths
    found = replace(
        found,
        port_used_by=probes.port_used_by(settings.port, paths.run),
        kept=probes.kept(paths.home),
        outbox=probes.outbox(paths.outbox),
    )
    try:
        identity = load(paths.home)
        until_ms = certificate_until_ms(identity.folder)
    except InvalidRequest as error:
        clock = Clock(paths.home / "clock.json")
        return replace(found, enrolled=error.why, now_ms=clock.now_ms(), clock=clock.basis)
    except (OSError, ValueError) as error:
        return replace(found, enrolled=str(error))
    clock = Clock(paths.home / "clock.json", trust_wall=identity.dev)
    trust, trust_why, intact = probes.trust(identity)
    return replace(
        found,
        now_ms=clock.now_ms(),
        certificate_until_ms=until_ms,
        trust=trust,
        trust_why=trust_why,
        marks_intact=intact,
        clock=clock.basis,
        clock_unset=clock.unset,
    )
