"""A small file system with honest durability: nothing survives a power cut unless it was synced.

Unsynced data becomes the old content, the new one, half of it, or nothing. Directory operations
that no fsync of the directory covers survive as a prefix, all but one, or one alone.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_agent.filesystem import FileSystem, Stat

Tick = Callable[[str], None]
"""Called before every operation that changes something: a place to crash."""

Leaves = Literal["any", "synced", "half", "zeros"]
"""What a power cut leaves: something drawn at random; what was synced and nothing else; or every
name, with half of the bytes that were not synced, or zeros. Where everything is synced, the last
two damage the file written last."""


@dataclass
class File:
    durable: bytes | None = None
    now: bytes = b""
    changed: int = 0


@dataclass
class Directory:
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, str, str, int]] = field(default_factory=list)
    """`(operation, name, new name, inode)`, in order."""
    now: dict[str, int] | None = None

    def entries(self) -> dict[str, int]:
        if self.now is None:
            self.now = _applied(self.durable, self.pending)
        return self.now

    def change(self, operation: str, name: str, new: str = "", inode: int = 0) -> None:
        self.pending.append((operation, name, new, inode))
        self.now = None


def _applied(
    entries: dict[str, int], operations: list[tuple[str, str, str, int]]
) -> dict[str, int]:
    entries = dict(entries)
    for operation, name, new, inode in operations:
        if operation == "add":
            entries[name] = inode
        elif operation == "remove":
            entries.pop(name, None)
        elif name in entries:
            entries[new] = entries.pop(name)
    return entries


class SimulatedFiles(FileSystem):
    """Paths below `/`; inode 1 is the root."""

    def __init__(self, tick: Tick, room: int = 10**9) -> None:
        self.tick = tick
        self.room = room
        """Bytes of data the disk holds."""
        self.nodes: dict[int, File | Directory] = {1: Directory()}
        self.writes = 0
        self.full = range(0)
        """Numbers of the data writes that find no room, whatever there is."""
        self.version = 0
        """Grows with every change."""
        self._next = 1
        self._clock = 0
        self.damaged = False
        """Whether something that was synced is not as it was."""
        self._last: File | None = None
        """The file written last."""
        self._known: dict[Path, int | None] = {}
        """Inodes of paths, while no directory changes."""

    # --- reading ---

    def names(self, directory: Path) -> tuple[str, ...]:
        node = self._find(directory)
        return tuple(sorted(node.entries())) if isinstance(node, Directory) else ()

    def stat(self, path: Path) -> Stat | None:
        inode = self._inode(path)
        node = self.nodes[inode] if inode is not None else None
        if inode is None or not isinstance(node, File):
            return None
        return Stat(len(node.now), node.changed, inode)

    def is_dir(self, path: Path) -> bool:
        return isinstance(self._find(path), Directory)

    def read(self, path: Path, limit: int) -> bytes:
        return self._file(path).now[:limit]

    def blocks(self, path: Path) -> Iterator[bytes]:
        yield self._file(path).now

    def free_bytes(self, path: Path) -> int:
        used = sum(
            len(node.now) for node in self._live(lost=False).values() if isinstance(node, File)
        )
        return self.room - used

    # --- changing ---

    def mkdir(self, path: Path) -> None:
        self.tick(f"mkdir {path.name}")
        self._add(path, Directory())

    def allocate(self, path: Path, size: int) -> None:
        self.put(path, bytes(size))

    def put(self, path: Path, data: bytes) -> None:
        self.tick(f"create {path.name}")
        self._find_room(len(data), path)
        existing = self._find(path)
        if isinstance(existing, File):
            self._write(existing, data)
        else:
            file = File()
            self._write(file, data)
            self._add(path, file)

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        self.tick(f"write {path.name}")
        file = self._file(path)
        self._find_room(offset + len(data) - len(file.now), path)
        self._write(file, file.now[:offset] + data + file.now[offset + len(data) :])

    def _find_room(self, more: int, path: Path) -> None:
        self.writes += 1
        if more > self.free_bytes(path) or self.writes in self.full:
            raise OSError(errno.ENOSPC, "disk full")

    def fsync(self, path: Path) -> None:
        self.tick(f"fsync {path.name}")
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(path)
        self.version += 1
        _sync(node)

    def rename(self, old: Path, new: Path) -> None:
        self.tick(f"rename {old.name}")
        self._change(old.parent, "move", old.name, new.name)

    def unlink(self, path: Path) -> None:
        if self._find(path) is not None:
            self.tick(f"unlink {path.name}")
            self._change(path.parent, "remove", path.name)

    def rmdir(self, path: Path) -> None:
        self.tick(f"rmdir {path.name}")
        assert not self.names(path), f"{path} is not empty"
        self._change(path.parent, "remove", path.name)

    def sync(self, path: Path) -> None:
        self.tick("syncfs")
        self.version += 1
        for node in self.nodes.values():
            _sync(node)

    # --- faults ---

    def power_cut(self, rng: random.Random, leaves: Leaves = "any") -> None:
        self.version += 1
        self._known.clear()
        if leaves == "any":
            self._draw(rng)
        elif leaves == "synced":
            for node in self.nodes.values():
                if isinstance(node, Directory):
                    node.pending, node.now = [], None
                else:
                    node.now = node.durable or b""
        else:
            self._tear(leaves)
        self.nodes = self._live()

    def _tear(self, leaves: Leaves) -> None:
        torn = [
            node
            for node in self.nodes.values()
            if isinstance(node, File) and node.durable != node.now
        ]
        if not torn and self._last is not None:
            # What an honest disk would have kept: beyond what is promised.
            self.damaged = True
            torn = [self._last]
        for node in self.nodes.values():
            _sync(node)
        for file in torn:
            half = file.now[: len(file.now) // 2]
            self._write(file, half if leaves == "half" else bytes(len(file.now)))
            file.durable = file.now

    def _draw(self, rng: random.Random) -> None:
        for node in self.nodes.values():
            if isinstance(node, Directory):
                node.durable = _applied(node.durable, _survivors(node.pending, rng))
                node.pending, node.now = [], None
            elif node.durable != node.now:
                old = node.durable or b""
                half = len(node.now) // 2
                torn = node.now[:half] + old[half:]
                node.durable = rng.choice([old, node.now, torn, b"\0" * len(node.now), b""])
                node.now = node.durable
                self._clock += 1
                node.changed = self._clock

    def damage(self, path: Path) -> None:
        """As a bad card does: the bytes change, the length and the names do not."""
        file = self._file(path)
        self._write(file, bytes(byte ^ 0x5A for byte in file.now))
        file.durable = file.now

    # --- inside ---

    def _write(self, file: File, data: bytes) -> None:
        self.version += 1
        self._clock += 1
        file.now, file.changed = data, self._clock
        self._last = file

    def _add(self, path: Path, node: File | Directory) -> None:
        self._next += 1
        self.nodes[self._next] = node
        self._change(path.parent, "add", path.name, inode=self._next)

    def _change(
        self, directory: Path, operation: str, name: str, new: str = "", inode: int = 0
    ) -> None:
        self.version += 1
        self._directory(directory).change(operation, name, new, inode)
        self._known.clear()

    def _inode(self, path: Path) -> int | None:
        inode = self._known.get(path, 0)
        if inode == 0:
            inode = self._known[path] = self._look_up(path)
        return inode

    def _look_up(self, path: Path) -> int | None:
        inode = 1
        for part in path.parts[1:]:
            node = self.nodes[inode]
            if not isinstance(node, Directory) or part not in node.entries():
                return None
            inode = node.entries()[part]
        return inode

    def _find(self, path: Path) -> File | Directory | None:
        inode = self._inode(path)
        return None if inode is None else self.nodes[inode]

    def _file(self, path: Path) -> File:
        node = self._find(path)
        if not isinstance(node, File):
            raise FileNotFoundError(path)
        return node

    def _directory(self, path: Path) -> Directory:
        node = self._find(path)
        if not isinstance(node, Directory):
            raise FileNotFoundError(path)
        return node

    def _live(self, *, lost: bool = True) -> dict[int, File | Directory]:
        """Reachable nodes; with `lost`, also those that a power cut may bring back."""
        live: dict[int, File | Directory] = {}
        todo = [1]
        while todo:
            inode = todo.pop()
            if inode not in live:
                node = live[inode] = self.nodes[inode]
                if isinstance(node, Directory):
                    todo.extend(
                        {*node.entries().values(), *(node.durable.values() if lost else ())}
                    )
        return live


def _sync(node: File | Directory) -> None:
    if isinstance(node, Directory):
        node.durable, node.pending = node.entries(), []
    else:
        node.durable = node.now


def _survivors(
    pending: list[tuple[str, str, str, int]], rng: random.Random
) -> list[tuple[str, str, str, int]]:
    if not pending:
        return []
    place = rng.randrange(len(pending) + 1)
    kinds = [pending[:place], pending[:place], pending[: place - 1] + pending[place:]]
    if place < len(pending):
        kinds.append([pending[place]])
    return rng.choice(kinds)
