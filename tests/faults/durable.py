"""What a power cut would leave of a folder: nothing that was not synced.

Kept beside the real files while a process changes them; at the cut the folder is put back.

    data      of every file written since its last fsync: the bytes that were synced
    entries   creations, renames, links and deletions that no fsync of their folder covers, in order
    outbox    the database and its log as of the last COMMIT that returned; SQLite with
              `synchronous=FULL` promises exactly that, and its own tests stand for it

What this cannot show: a device that reorders or loses what it has acknowledged, damage to blocks
next to those written, and a file system that keeps some unsynced directory operations and loses
others in between (the simulated file system of `tests.simulation.files` draws those).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

LOGS: Final = ("", "-wal")
"""What SQLite's durability rests on; `-shm` is made anew."""

Torn = Literal["half", "zeros"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of a folder's entries that a power cut may undo."""

    what: Literal["add", "move", "remove", "remove folder"]
    path: Path
    old: Path | None = None
    """Where a moved entry was."""
    lost: bytes | None = None
    """Synced bytes of a file that was removed, or replaced by the move."""


@dataclass(slots=True)
class Durable:
    home: Path
    data: dict[int, bytes] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    outbox: dict[str, bytes] = field(default_factory=dict)
    last: Path | None = None
    """The file written last."""

    # --- what happens to files --------------------------------------------------------------------

    def writing(self, path: Path) -> None:
        """Before bytes of an existing file change."""
        self.last = path
        with suppress(FileNotFoundError):
            self.data.setdefault(path.stat().st_ino, path.read_bytes())

    def added(self, path: Path) -> None:
        """After a file, folder or link got its name. A link's bytes are those of its file."""
        self.entries.append(Entry("add", path))
        if path.is_file() and path.stat().st_nlink == 1:
            self.data[path.stat().st_ino] = b""
            self.last = path

    def unseen(self, path: Path) -> None:
        """Another process wrote it: nothing is known to be synced."""
        self.data.setdefault(path.stat().st_ino, b"")

    def moving(self, old: Path, new: Path) -> None:
        """Before a rename."""
        lost = self._lost(new) if new.is_file() else None
        self.entries.append(Entry("move", new, old, lost))
        self.last = new if old.is_file() else self.last

    def removing(self, path: Path) -> None:
        """Before a deletion."""
        if path.is_dir():
            self.entries.append(Entry("remove folder", path))
        elif path.exists():
            self.entries.append(Entry("remove", path, lost=self._lost(path)))

    def synced(self, path: Path) -> None:
        """After an fsync of a file, or of a folder: then its entries are safe."""
        if not path.is_dir():
            self.data.pop(path.stat().st_ino, None)
            return
        done = [entry for entry in self.entries if entry.path.parent == path]
        for entry in done:
            if entry.what == "move" and entry.old is not None:
                # What is pending inside has a new address now, and there it will be undone.
                self._move_along(entry.old, entry.path)
        self.entries = [entry for entry in self.entries if entry.path.parent != path]

    def synced_all(self) -> None:
        self.data.clear()
        self.entries.clear()

    def committed(self, database: Path) -> None:
        self.outbox = {log: read(beside(database, log)) for log in LOGS}

    # --- the cut ----------------------------------------------------------------------------------

    def cut(self) -> None:
        """Put the folder back to what was synced."""
        for entry in reversed(self.entries):
            self._undo(entry)
        for path in self._files():
            if path.stat().st_ino in self.data:
                path.write_bytes(self.data[path.stat().st_ino])
        self._put_outbox_back(self.outbox)

    def tear(self, how: Torn) -> str:
        """The names survive, unsynced bytes do not: half of them, or zeros in their place.

        When everything is synced, the file written last is damaged all the same, as bad cards do.
        Returns what was damaged.
        """
        self._put_outbox_back(self.outbox)
        torn = [path for path in self._files() if path.stat().st_ino in self.data]
        if not torn and self.last is not None and self.last.is_file():
            torn = [self.last]
        for path in torn:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if how == "half" else bytes(len(whole)))
        return ", ".join(sorted(str(path.relative_to(self.home)) for path in torn))

    def tear_commit(self, database: Path, how: Torn) -> None:
        """After a COMMIT that nobody has heard of: half of what it wrote is on the disk."""
        log = beside(database, "-wal")
        before, after = self.outbox.get("-wal", b""), read(log)
        changed = [n for n in range(len(after)) if after[n : n + 1] != before[n : n + 1]]
        middle = (changed[0] + changed[-1]) // 2 if changed else len(after)
        rest = before[middle:] if how == "half" else bytes(max(len(after) - middle, 0))
        self._put_outbox_back({**self.outbox, "-wal": after[:middle] + rest})

    # --- inside -----------------------------------------------------------------------------------

    def _lost(self, path: Path) -> bytes:
        """What is synced of a file that goes; its number may be another's from now on."""
        found = path.stat()
        if found.st_ino not in self.data:
            return path.read_bytes()
        return self.data.pop(found.st_ino) if found.st_nlink == 1 else self.data[found.st_ino]

    def _move_along(self, old: Path, new: Path) -> None:
        def moved(path: Path) -> Path:
            return new / path.relative_to(old) if path.is_relative_to(old) else path

        self.entries = [
            Entry(e.what, moved(e.path), None if e.old is None else moved(e.old), e.lost)
            if e.path != new
            else e
            for e in self.entries
        ]

    def _undo(self, entry: Entry) -> None:
        match entry.what:
            case "add" if entry.path.is_dir():
                remove(entry.path)
            case "add":
                entry.path.unlink(missing_ok=True)
            case "move" if entry.old is not None:
                if entry.path.exists():
                    entry.path.rename(entry.old)
                if entry.lost is not None:
                    entry.path.write_bytes(entry.lost)
            case "remove folder":
                entry.path.mkdir(exist_ok=True)
            case _:
                entry.path.write_bytes(entry.lost or b"")

    def _files(self) -> list[Path]:
        return [path for path in self.home.rglob("*") if path.is_file()]

    def _put_outbox_back(self, content: dict[str, bytes]) -> None:
        database = self.home / "outbox.db"
        for suffix in ("", "-wal", "-shm"):
            beside(database, suffix).unlink(missing_ok=True)
        for log, data in content.items():
            if data:
                beside(database, log).write_bytes(data)


def beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()
