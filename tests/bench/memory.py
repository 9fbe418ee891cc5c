"""How much memory processes take, whoever else on the machine uses the same files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def rollup(pid: int) -> dict[str, int]:
    """Bytes by name, from smaps_rollup."""
    return sizes(Path(f"/proc/{pid}/smaps_rollup").read_text())


def sizes(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            found[words[0].rstrip(":")] = found.get(words[0].rstrip(":"), 0) + int(words[1]) * 1024
    return found


def alone(pids: Sequence[int]) -> int:
    """Bytes of PSS of these processes, as if nobody else on the machine had the same files mapped.

    Anonymous memory of each, and of each file what the process has mapped that has most of it.
    """
    anonymous, files = 0, dict[str, int]()
    for pid in pids:
        name, mine = "", dict[str, int]()
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                name = words[5] if len(words) > 5 and words[5].startswith("/") else ""
            elif words[0] == "Anonymous:":
                anonymous += int(words[1]) * 1024
                mine[name] = mine.get(name, 0) - int(words[1]) * 1024
            elif words[0] == "Rss:":
                mine[name] = mine.get(name, 0) + int(words[1]) * 1024
        for each, size in mine.items():
            if each:
                files[each] = max(files.get(each, 0), size)
    return anonymous + sum(files.values())
