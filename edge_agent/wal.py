"""What should be in a write-ahead log, from the log itself: damage that SQLite passes over.

SQLite takes a log up to the first page that is not whole, because a power cut leaves the last
transaction like that, and says nothing. But each transaction was on disk before the next one
began: where two of them are missing, or the log's head is no head, it was no power cut.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_MAGIC: Final = (0x377F0682, 0x377F0683)
_HEAD: Final = struct.Struct(">IIIIIIII")
_FRAME: Final = struct.Struct(">IIIIII")
_MOST: Final = 1 << 20
"""Frames looked at."""


@dataclass(frozen=True, slots=True)
class Wal:
    """The log as it was before it was opened. Without one, nothing can be missing."""

    headless: bool = False
    commits: tuple[int, ...] = ()
    """Numbers of the frames that end a transaction, from 1."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises `OSError`; where there is no log, there is nothing in it."""
        if not path.exists():
            return cls()
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
            # Nothing was written yet, or only room for it.
            if len(head) < _HEAD.size or not any(head):
                return cls()
            magic, _, page, _, salt_1, salt_2, _, _ = _HEAD.unpack(head)
            if magic not in _MAGIC or not 512 <= page <= 65536:
                return cls(headless=True)
            commits = []
            for number in range(1, _MOST):
                file.seek(_HEAD.size + (number - 1) * (_FRAME.size + page))
                frame = file.read(_FRAME.size)
                if len(frame) < _FRAME.size:
                    break
                _, after_commit, own_1, own_2, _, _ = _FRAME.unpack(frame)
                if (own_1, own_2) == (salt_1, salt_2) and after_commit:
                    commits.append(number)
        return cls(commits=tuple(commits))

    def missing(self, taken: int) -> str:
        """What is missing although it was on disk, in words; "" if nothing. `taken` is the number
        of frames that SQLite found whole; it is -1 where there is no log."""
        if self.headless:
            return "the log was damaged: what was written last is lost"
        behind = sum(commit > max(taken, 0) for commit in self.commits)
        # The last of them may have been on its way when the power went.
        return f"the log was damaged: {behind} changes are lost" if behind > 1 else ""
