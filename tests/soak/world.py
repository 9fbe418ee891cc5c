"""What a soaked agent is made to believe, in a small file that is looked at whenever it counts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class World:
    ahead_s: float = 0.0
    """The wall clock's lead over the right time."""
    noise: int = 0
    """Not 0: messages arrive twice, late, in another order, damaged, between old ones."""


def write(path: Path, world: World) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(asdict(world)))
    beside.replace(path)


class WorldFile:
    """Reads it again only when it is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._world = World()

    def read(self) -> World:
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._seen:
                self._world = World(**json.loads(self._path.read_text()))
                self._seen = seen
        except (OSError, ValueError):
            pass  # the last one holds
        return self._world
