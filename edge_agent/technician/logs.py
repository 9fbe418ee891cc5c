"""`outrider-agent logs`: from the system's journal where the agent is its service, else from the
agent itself, which keeps its last records in memory.

Long-lived only with `follow`; it never needs a network.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edge_agent.technician import door
from protocol.codec import to_wire
from protocol.errors import Unavailable

UNIT: Final = "outrider-agent.service"
FOLLOW_S: Final = 0.5
"""How long the agent is left alone before it is asked for more."""
RUNNER_LOG: Final = "runner.log"
_TAIL_BYTES: Final = 16 * 1024
_WARNING: Final = logging.WARNING
_LEVELS: Final = ((2, logging.CRITICAL), (3, logging.ERROR), (4, logging.WARNING), (6, 20))


@dataclass(frozen=True, slots=True)
class Wanted:
    most: int = 50
    since_ms: int = 0
    everything: bool = False
    """Also internals."""
    follow: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log; `at_ms` is 0 where nobody wrote down when."""

    at_ms: int
    level: int
    text: str


Tell = Callable[[Entry], None]


def show(run: Path, socket: Path, wanted: Wanted) -> int:
    """Print what is wanted; the exit code. Raises `Unavailable` OUT-D401 where neither an agent
    runs nor a journal knows of one."""
    collected: list[Entry] = []
    tell: Tell = (
        _print if not wanted.as_json else _print_json if wanted.follow else collected.append
    )
    if wanted.everything and not wanted.follow:
        for entry in tail_of(run / RUNNER_LOG):
            tell(entry)
    if not _from_journal(socket, wanted, tell):
        _from_agent(socket, wanted, tell)
    if wanted.as_json and not wanted.follow:
        sys.stdout.write(json.dumps({"records": [_document(each) for each in collected]}) + "\n")
    return 0


# --- from the agent -----------------------------------------------------------------------------


def _from_agent(socket: Path, wanted: Wanted, tell: Tell) -> None:
    after = _ask(socket, wanted, 0, wanted.most, tell)
    while wanted.follow:
        _pause()
        after = _ask(socket, wanted, after, 0, tell)


def _pause() -> None:
    time.sleep(FOLLOW_S)


def _ask(socket: Path, wanted: Wanted, after: int, most: int, tell: Tell) -> int:
    """The number of the last record that was told."""
    options = {
        "after": str(after),
        "since_ms": str(wanted.since_ms),
        "everything": "1" if wanted.everything else "",
    }
    if most:
        options["most"] = str(most)
    for line in door.command(socket, "logs", options):
        if line.what == "record":
            after = int(line.data["n"])
            tell(Entry(int(line.data["at_ms"]), int(line.data["level"]), of_agent(line.data)))
    return after


def of_agent(data: dict[str, Any]) -> str:
    """The text of a record, with its module in front if it is about internals."""
    source, text = str(data["source"]), str(data["text"])
    return text if source == "outrider" else f"[{source}] {text}"


# --- from the journal ---------------------------------------------------------------------------


def _from_journal(socket: Path, wanted: Wanted, tell: Tell) -> bool:
    """Whether the journal is where this agent logs, and could be read."""
    if shutil.which("journalctl") is None or not _logs_there(socket):
        return False
    told = 0
    most = None if wanted.follow else wanted.most
    with subprocess.Popen(
        arguments(wanted), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            found = entries(process.stdout, everything=wanted.everything)
            for entry in found if most is None else deque(found, maxlen=most):
                told += 1
                tell(entry)
        finally:
            process.terminate()
    return told > 0


def _logs_there(socket: Path) -> bool:
    try:
        for line in door.command(socket, "logs", {"most": "0"}):
            if line.what == "source":
                return bool(line.data["journal"])
    except Unavailable:
        return True  # it does not run: the journal may still know why
    return False


def arguments(wanted: Wanted) -> list[str]:
    """Of journalctl. More lines than wanted: what is about internals is left out afterwards."""
    lines = wanted.most if wanted.everything else wanted.most * 20
    command = ["journalctl", "--unit", UNIT, "--output", "json", "--no-pager", "--quiet"]
    command += ["--lines", str(lines)]
    if wanted.since_ms:
        command += ["--since", f"@{wanted.since_ms / 1000:.3f}"]
    return command + (["--follow"] if wanted.follow else [])


def entries(lines: Iterable[str], *, everything: bool) -> Iterator[Entry]:
    """What journalctl wrote, one JSON object a line; what cannot be read is left out."""
    for line in lines:
        entry = of_journal(line)
        if entry is None:
            continue
        if everything or entry.level >= _WARNING or not entry.text.startswith("["):
            yield entry


def of_journal(line: str) -> Entry | None:
    try:
        found = json.loads(line)
        number = int(found.get("PRIORITY", 6))
        level = next((level for most, level in _LEVELS if number <= most), logging.DEBUG)
        text = found["MESSAGE"]
        if isinstance(text, list):  # bytes that are no text come as numbers
            text = bytes(text).decode(errors="replace")
        return Entry(int(found["__REALTIME_TIMESTAMP"]) // 1000, level, str(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


# --- showing ------------------------------------------------------------------------------------


def tail_of(path: Path) -> Iterator[Entry]:
    """The end of what runners wrote, where their supervisor writes into a pipe."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        yield Entry(0, logging.INFO, f"[{path.name}] {line}")


def shown(entry: Entry) -> str:
    """ "18 Nov 11:06:40 ! digits/v3 rolled back": UTC; `!` marks what went wrong."""
    at = datetime.fromtimestamp(entry.at_ms / 1000, UTC)
    when = f"{at.day:>2} {at:%b %H:%M:%S}" if entry.at_ms else ""
    mark = "!" if entry.level >= _WARNING else " "
    text = "".join(each if each.isprintable() else " " for each in entry.text)
    return f"{when:<15} {mark} {text}"


def _print(entry: Entry) -> None:
    sys.stdout.write(shown(entry) + "\n")
    sys.stdout.flush()


def _print_json(entry: Entry) -> None:
    sys.stdout.write(json.dumps(_document(entry)) + "\n")
    sys.stdout.flush()


def _document(entry: Entry) -> Any:
    return to_wire(entry)
