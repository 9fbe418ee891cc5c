"""What `rollback`, `pin` and `unpin` show of the running agent's answer: for people, or as JSON."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent.technician import door
from edge_agent.technician.door import Line
from protocol.wording import date

_LABEL: Final = 12
_WIDTH: Final = 80


def order(
    socket: Path, command: str, options: Mapping[str, str], *, as_json: bool, now_ms: int
) -> int:
    """Have the running agent carry out an order; the exit code. Raises `OutriderError`."""
    said = door.command(socket, command, options)
    return _as_document(said) if as_json else _for_people(said, now_ms)


def _for_people(said: Iterable[Line], now_ms: int) -> int:
    code = 0
    model = ""
    for line in said:
        model = str(line.data.get("model", model))
        for text in lines(line, model, now_ms):
            sys.stdout.write(text + "\n")
        sys.stdout.flush()
        code = int(line.data.get("exit", 0))
    return code


def _as_document(said: Iterable[Line]) -> int:
    found: dict[str, Any] = {}
    for line in said:
        found |= {line.what: line.data} if line.what == "end" else line.data
    code = int(found.pop("end", {}).get("exit", 0))
    sys.stdout.write(json.dumps(found) + "\n")
    return code


def lines(line: Line, model: str, now_ms: int) -> Iterator[str]:
    """`now_ms` only decides whether a year is said."""
    said = line.data
    if line.what == "pinned":
        until = said.get("until_ms")
        ends = f"until {date(until, now_ms)}" if until else "until somebody takes it back"
        by = f", by {said['who']}" if said.get("who") else ""
        why = f": {said['why']}" if said.get("why") else ""
        yield _row("pinned", f"{said['name']} {ends}{by}{why}")
    elif line.what == "now":
        yield _row(*_now(said))
        yield _row("reported", _reported(linked=bool(said["linked"])))
        yield _row("undo", f"outrider-agent unpin {model}")
    elif line.what == "unpinned":
        yield _row("unpinned", f"{said['name']}: what operators order decides again")
        yield _row("reported", _reported(linked=bool(said["linked"])))


def _now(said: Mapping[str, Any]) -> tuple[str, str]:
    name = said["name"]
    if said["runs"]:
        trial = f", on probation; {said['returns_to']} if it fails" if "returns_to" in said else ""
        return "runs", f"{name}{trial}"
    goes_on = f"; {said['serving']} goes on" if said.get("serving") else ""
    if said["waiting"]:
        why = f"{said['waiting']} {said['title']}: {said['detail']}".rstrip(": ")
        return "waits", f"{why}{goes_on}"
    if not said["here"]:
        return "comes", f"{name} is fetched, then tried{goes_on}; look: outrider-agent status"
    return "comes", f"{name} is loaded and checked{goes_on}; look: outrider-agent status"


def _reported(*, linked: bool) -> str:
    return "operators see it" if linked else "operators see it once there is a link"


def _row(title: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"{title:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
