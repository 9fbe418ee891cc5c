"""What `outrider-agent install` shows of the running agent's answer: for people, or as JSON."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent.technician import door
from edge_agent.technician.door import Line
from protocol.wording import duration, size, size_of

_LABEL: Final = 11
_WIDTH: Final = 72
_CLEAR: Final = "\r\x1b[K"
_TRUST: Final = "{0} of {0} signatures, {1}; freshness not checked: a person carried it"


def install(socket: Path, folder: Path, *, as_json: bool) -> int:
    """Have the running agent install from `folder`; the exit code. Raises `OutriderError`."""
    # As this user sees it: the agent has another working folder, and may not look through links.
    said = door.command(socket, "install", {"from": str(folder.resolve())})
    return _as_document(said) if as_json else _for_people(said)


def _for_people(said: Iterable[Line]) -> int:
    code = 0
    sizes: dict[str, int] = {}
    try:
        for line in said:
            passing = progress(line)
            if passing is not None:
                _redraw(passing)
                continue
            _redraw("")
            for text in lines(line, sizes):
                sys.stdout.write(text + "\n")
            sys.stdout.flush()
            code = int(line.data.get("exit", 0))
    finally:
        _redraw("")
    return code


def _as_document(said: Iterable[Line]) -> int:
    found: dict[str, Any] = {"models": {}}
    for line in said:
        if line.what == "model":
            name = str(line.data["name"])
            found["models"][name] = {**found["models"].get(name, {}), **line.data}
        elif line.what in ("stick", "trust", "end"):
            found[line.what] = line.data
    found["models"] = list(found["models"].values())
    sys.stdout.write(json.dumps(found) + "\n")
    return int(found.get("end", {}).get("exit", 0))


def progress(line: Line) -> str | None:
    """What is shown until the next line comes; None for a line that stays."""
    if line.what == "copying":
        done, total = int(line.data["done_bytes"]), int(line.data["total_bytes"])
        return f"{'copying':<{_LABEL}}{size_of(done, total)}"
    if line.what == "trying":
        return f"{'trying':<{_LABEL}}{line.data['phase']}"
    return None


def lines(line: Line, sizes: dict[str, int]) -> Iterator[str]:
    """What stays on the screen. `sizes` remembers what was copied, by name of the version."""
    said = line.data
    if line.what == "stick":
        yield from _row("stick", str(said["made"]))
    elif line.what == "trust":
        versions = "versions newer than here" if said["newer"] else "versions as here"
        yield from _row("trust", _TRUST.format(said["needed"], versions))
    elif line.what == "model":
        if said["how"] == "here":
            sizes[str(said["name"])] = int(said["size_bytes"])
        else:
            yield from _model(said, sizes)


def _model(said: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[str]:
    name = str(said["name"])
    copied = sizes.get(name)
    facts = []
    if copied is not None:
        facts = [size(copied) if copied else "here before", "digest matches"]
    if said.get("golden") and copied is not None:
        facts.append(f"{said['golden']} of {said['golden']} golden vectors")
    if facts:
        yield from _row(name, ", ".join(facts))
        name = ""
    yield from _row(name, _end(said))


def _end(said: Mapping[str, Any]) -> str:
    why = f"{said.get('code', '')} {said.get('detail', '')}".strip()
    match said["how"]:
        case "activated":
            return f"activated, on probation for {duration(said.get('probation_seconds'))}"
        case "runs":
            return "runs here already"
        case "failed":
            return f"failed here: {why}"
        case "refused":
            return f"refused: {why}"
        case "replaced":
            return why
        case _:
            return f"waits: {why}" if why else "starts by itself; look: outrider-agent status"


def _row(label: str, text: str) -> Iterator[str]:
    head = f"{label:<{_LABEL - 1}} "
    yield from textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _redraw(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(_CLEAR + text)
        sys.stderr.flush()
