"""High-water marks: the highest versions ever trusted, kept apart from what they protect.

TUF derives rollback protection from cached files, so a power cut that empties the cache would
remove it. Marks are one small fsynced file of our own, and a copy, since nothing else says which
plans and documents were seen. A mark belongs to the keys that signed:
root holders who replace the keys of a role may begin its versions anew, nobody else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent import durable
from protocol import codec
from protocol.errors import PeerError, Unavailable
from protocol.identifiers import Count, Digest

log = logging.getLogger(__name__)

MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """The highest version under one key set; for documents also which bytes had it."""

    keys: str
    version: Count
    digest: Digest | None = None
    previous: Digest | None = None
    """Of the document before: what is on disk if the power went between mark and document."""

    def allows(self, other: Mark) -> bool:
        """Whether `other` may follow: other keys, a higher version, or the very same."""
        if other.keys != self.keys or other.version > self.version:
            return True
        same = self.digest is None or other.digest == self.digest
        return other.version == self.version and same

    def recalls(self, digest: Digest) -> bool:
        """Whether a document on our own disk is one that was verified last."""
        return digest in (self.digest, self.previous)

    def after(self, old: Mark | None) -> Mark:
        """This mark, remembering what it follows."""
        if old is None:
            return self
        previous = old.previous if old.digest == self.digest else old.digest
        return dataclasses.replace(self, previous=previous)


@dataclass(frozen=True, slots=True)
class Marks:
    root: Count = 0
    roles: dict[str, Mark] = field(default_factory=dict)
    plans: dict[str, Mark] = field(default_factory=dict)
    deny: Mark | None = None
    document: Mark | None = None


def key_set(keyids: Iterable[str], threshold: int) -> str:
    """A name for who may sign a role."""
    text = f"{threshold} of " + " ".join(sorted(set(keyids)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class MarksFile:
    """The marks, their file and its copy. `intact` is False if neither could be read, although
    one was there."""

    def __init__(self, path: Path) -> None:
        # The file is written first, so it is the newer one where a power cut made them differ.
        self._paths = (path, path.with_name(f"{path.stem}.copy{path.suffix}"))
        self.intact = True
        self._whole = True
        """Whether both are as they should be; if not, the next write mends them."""
        self.marks = self._read()

    def write(self, marks: Marks) -> None:
        """Durable on return. Raises `Unavailable` (OUT-D201) if it cannot be written."""
        if marks == self.marks and self._whole:
            return
        self._whole = False
        data = codec.encode(marks)
        try:
            for path in self._paths:
                durable.replace(path, data)
                self.marks = marks  # from the first on: that is what a restart finds
        except OSError as error:
            raise Unavailable("OUT-D201", f"high-water marks: {error}") from error
        self._whole = self.intact = True

    def put_plan(self, model: str, mark: Mark) -> None:
        plans = {**self.marks.plans, model: mark.after(self.marks.plans.get(model))}
        self.write(dataclasses.replace(self.marks, plans=plans))

    def put_deny(self, mark: Mark) -> None:
        self.write(dataclasses.replace(self.marks, deny=mark.after(self.marks.deny)))

    def put_document(self, mark: Mark) -> None:
        self.write(dataclasses.replace(self.marks, document=mark.after(self.marks.document)))

    def _read(self) -> Marks:
        found = [self._one(path) for path in self._paths]
        self._whole = found[0] is not None and found[0] == found[1]
        first = next((marks for marks in found if marks is not None), None)
        if first is not None:
            return first
        # Goes on with what the accepted metadata itself says; doctor tells.
        self.intact = not any(path.exists() for path in self._paths)
        return Marks()

    def _one(self, path: Path) -> Marks | None:
        try:
            return codec.decode(path.read_bytes(), Marks, limit=MAX_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, PeerError) as error:
            log.warning("high-water marks cannot be read: %s", error)
            return None
