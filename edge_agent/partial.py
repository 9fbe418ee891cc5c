"""A payload that is partly here: its frames in one file, its frame lists beside it.

Nothing is remembered about which frames are there: after a restart the file is hashed again.
Nothing is synced either: Stage syncs what the payload decodes to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_agent.decode import GROWING
from protocol.errors import PeerError
from protocol.payload import DIGESTS_PER_LIST, FRAME_SIZE, HintEntry, check_lists, frame_digest

_LIST_BYTES: Final = 32 * DIGESTS_PER_LIST
PREFIX: Final = ".p-"


class Partial:
    """All methods raise `OSError`; a full disk leaves what is there as it was."""

    def __init__(self, directory: Path, entry: HintEntry) -> None:
        self.path = directory / f"{PREFIX}{entry.payload}"
        self.growing = directory / f"{GROWING}{entry.payload}"
        self._lists = directory / f"{PREFIX}{entry.payload}.lists"
        self._entry = entry

    @property
    def size(self) -> int:
        """Bytes that lie here, holes left out; whether they are right is not looked at."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return 0
        return min(found.st_size, found.st_blocks * 512)

    def load_lists(self) -> tuple[bytes, ...] | None:
        """The digests of all frames, if lists that give the payload's digest lie here."""
        try:
            if self._lists.stat().st_size != 32 * self._entry.frames:
                return None
            joined = self._lists.read_bytes()
        except FileNotFoundError:
            return None
        lists = [joined[at : at + _LIST_BYTES] for at in range(0, len(joined), _LIST_BYTES)]
        try:
            return check_lists(self._entry, lists)
        except PeerError:
            return None

    def keep_lists(self, digests: Sequence[bytes]) -> None:
        beside = self._lists.with_name(self._lists.name + ".new")
        beside.write_bytes(b"".join(digests))
        beside.replace(self._lists)

    def present(self, digests: Sequence[bytes]) -> bytearray:
        """Per frame 1 or 0: what lies in the file with the right digest."""
        have = bytearray(len(digests))
        if not self.path.exists():
            return have
        with self.path.open("rb") as file:
            for number, wanted in enumerate(digests):
                frame = file.read(FRAME_SIZE)
                if not frame:
                    break
                have[number] = frame_digest(frame) == wanted
        return have

    def damaged(self) -> bool:
        """Whether a frame of what was complete is not what it was."""
        digests = self.load_lists()
        return digests is None or not all(self.present(digests))

    def write(self, number: int, frame: bytes) -> None:
        """Put a checked frame in its place; a gap before it stays a hole."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            at = number * FRAME_SIZE
            while frame:
                written = os.pwrite(descriptor, frame, at)
                at, frame = at + written, frame[written:]
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.growing.unlink(missing_ok=True)
        self._lists.unlink(missing_ok=True)
