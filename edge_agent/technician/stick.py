"""Reads a stick that anybody may have written: bounded, and never through a link.

Only names that we work out ourselves are opened, level by level below the folder that was opened
once. What is a link, no ordinary file, or larger than it may be is refused before it is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from protocol import stick
from protocol.errors import InvalidRequest

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe would wait for its other end.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StickFolder:
    """Use as a context manager. Everything raises `InvalidRequest` OUT-T119 for what is not there,
    not what it should be, or cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            self._top = os.open(path, _DIRECTORY)
        except OSError as error:
            raise _unusable(f"{path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._top)

    def read(self, name: stick.Path, limit: int) -> bytes:
        """A whole small file."""
        found = self.find(name, limit)
        if found is None:
            raise _unusable(f"it lacks {'/'.join(name)}")
        return found

    def find(self, name: stick.Path, limit: int) -> bytes | None:
        """Like `read`; None if there is no such file."""
        opened = self._open(name)
        if opened is None:
            return None
        file, size = opened
        with file:
            if size > limit:
                raise _unusable(f"{'/'.join(name)} has {size:,} bytes, at most {limit:,}")
            data = file.read(limit + 1)
        if len(data) != size:
            raise _unusable(f"{'/'.join(name)} changes while it is read")
        return data

    def has(self, name: stick.Path) -> bool:
        opened = self._open(name)
        if opened is not None:
            opened[0].close()
        return opened is not None

    def stream(self, name: stick.Path, size: int) -> BinaryIO:
        """A large file of exactly this size, to be read piece by piece and closed."""
        opened = self._open(name)
        if opened is None:
            raise _unusable(f"it lacks {'/'.join(name)}")
        file, found = opened
        if found != size:
            file.close()
            raise _unusable(f"{'/'.join(name)} has {found:,} of {size:,} bytes")
        return file

    def _open(self, name: stick.Path) -> tuple[BinaryIO, int] | None:
        where = "/".join(name)
        *folders, last = name
        inside = self._top
        try:
            for folder in folders:
                below = os.open(folder, _DIRECTORY, dir_fd=inside)
                if inside != self._top:
                    os.close(inside)
                inside = below
            # Opening a device may do something, so it is not even opened.
            if not stat.S_ISREG(os.stat(last, dir_fd=inside, follow_symlinks=False).st_mode):
                raise _unusable(f"{where} is no ordinary file")
            descriptor = os.open(last, _FILE, dir_fd=inside)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A link in the last level is ELOOP, one above it ENOTDIR.
            raise _unusable(f"{where} cannot be read: {error.strerror}") from error
        finally:
            if inside != self._top:
                os.close(inside)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise _unusable(f"{where} is no ordinary file")
        return cast(BinaryIO, _Read(os.fdopen(descriptor, "rb"), where)), found.st_size


class _Read:
    """A file whose failures to be read are the stick's."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise _unusable(f"{self._where} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()


def _unusable(why: str) -> InvalidRequest:
    return InvalidRequest("OUT-T119", why)
