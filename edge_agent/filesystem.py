"""The file-system primitives whose order decides what survives a power cut.

Everything durable that the update machine does goes through this one class, so that a simulated
file system, which loses what was not synced, can stand in for it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BLOCK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells one state of a file from another within one process run."""

    size: int
    mtime_ns: int
    inode: int


class FileSystem:
    """Thin and without policy; every method raises `OSError` as the system does."""

    def names(self, directory: Path) -> tuple[str, ...]:
        """Sorted entries; none if the directory does not exist."""
        try:
            return tuple(sorted(entry.name for entry in directory.iterdir()))
        except FileNotFoundError:
            return ()

    def stat(self, path: Path) -> Stat | None:
        """Of a regular file; None if there is none."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        return Stat(found.st_size, found.st_mtime_ns, found.st_ino) if path.is_file() else None

    def is_dir(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path, limit: int) -> bytes:
        """At most `limit` bytes from the start."""
        with path.open("rb") as file:
            return file.read(limit)

    def blocks(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    def mkdir(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def allocate(self, path: Path, size: int) -> None:
        """A new file with `size` bytes of room on disk, all zero."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(size))
        finally:
            os.close(descriptor)

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Overwrite bytes of an existing file in place; its length stays."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, offset)
                offset += written
                view = view[written:]
        finally:
            os.close(descriptor)

    def fsync(self, path: Path) -> None:
        """Of a file or of a directory (its entries)."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def free_bytes(self, path: Path) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def sync(self, path: Path) -> None:
        """Everything of the file system of `path`, including what a killed process left behind."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
            if syncfs is None:
                os.sync()
            elif syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
        finally:
            os.close(descriptor)
