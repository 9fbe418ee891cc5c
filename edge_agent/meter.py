"""How much memory there is, read from /proc and from the control groups that this agent is in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge_agent.room import Memory

UNLIMITED: Final = 1 << 60
"""Kernels write "no limit" as a number near 2^63 in version 1 of control groups."""

_V2: Final = ("memory.max", "memory.current", "inactive_file")
_V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Meter:
    """Reads only; what cannot be read is unknown, and never an error."""

    def __init__(
        self, limit_bytes: int | None = None, root: Path = Path("/"), pid: int | None = None
    ) -> None:
        """`limit_bytes`: what this agent may use at most, with its runners; None: no such limit."""
        self._limit_bytes = limit_bytes
        self._proc = root / "proc"
        self._groups = root / "sys/fs/cgroup"
        self._pid = pid if pid is not None else os.getpid()

    def memory(self, runners: Iterable[int]) -> Memory | None:
        """The tightest of machine, control groups and own limit; `runners` are process ids."""
        machine = self._machine()
        if machine is None:
            return None
        found = [machine, *self._control_groups()]
        if self._limit_bytes is not None:
            used = sum(self._weight(pid) for pid in (self._pid, *runners))
            found.append(Memory(max(self._limit_bytes - used, 0), self._limit_bytes))
        return Memory(
            min(memory.free_bytes for memory in found),
            min(memory.total_bytes for memory in found),
        )

    def held(self, pid: int) -> int:
        """Private memory of a process, in bytes: what its end gives back. 0 if it is unknown."""
        found = self._rollup(pid)
        return found.get("Private_Dirty", 0) + found.get("Swap", 0)

    def _weight(self, pid: int) -> int:
        """Memory that is there because of a process; pages of files can be taken back."""
        found = self._rollup(pid)
        return found.get("Pss_Anon", 0) or found.get("Private_Dirty", 0)

    def _rollup(self, pid: int) -> dict[str, int]:
        return _sizes(self._proc / str(pid) / "smaps_rollup")

    def _machine(self) -> Memory | None:
        sizes = _sizes(self._proc / "meminfo")
        if "MemAvailable" not in sizes or "MemTotal" not in sizes:
            return None
        return Memory(sizes["MemAvailable"], sizes["MemTotal"])

    def _control_groups(self) -> list[Memory]:
        """Each group on the way to the root that has a limit."""
        found = []
        for line in _text(self._proc / str(self._pid) / "cgroup").splitlines():
            number, controllers, path = (*line.split(":", 2), "", "")[:3]
            if number == "0" and not controllers:
                mount, names = self._groups, _V2
            elif "memory" in controllers.split(","):
                mount, names = self._groups / "memory", _V1
            else:
                continue
            group = mount / path.strip("/")
            while True:
                if (memory := _group(group, *names)) is not None:
                    found.append(memory)
                if group == mount or mount not in group.parents:
                    break
                group = group.parent
        return found


def _group(group: Path, limit_name: str, used_name: str, cached_name: str) -> Memory | None:
    limit, used = _text(group / limit_name).strip(), _text(group / used_name).strip()
    if not limit.isdigit() or not used.isdigit() or int(limit) >= UNLIMITED:
        return None
    cached = 0
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == cached_name and value.strip().isdigit():
            cached = int(value)
    return Memory(max(int(limit) - int(used) + cached, 0), int(limit))


def _sizes(path: Path) -> dict[str, int]:
    """Lines of the form "Name:   12 kB", in bytes."""
    sizes = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            sizes[name] = int(words[0]) * 1024
    return sizes


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
