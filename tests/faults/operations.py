"""What one operation of an agent is called: where in its work, of which kind, on what.

Names hold no digests and no numbers, so that one row of the table stands for an operation of every
update.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Kind = Literal[
    "step", "create", "write", "fsync", "sync folder", "sync all", "rename", "unlink", "mkdir",
    "rmdir", "link", "commit", "start", "ask", "kill",
]  # fmt: skip
"""`step` is a change of the update machine's state; `start` and `kill` are of processes; `ask` is
a request to a runner; `commit` one of the outbox."""

TAKES_ROOM: Final[frozenset[Kind]] = frozenset(
    {"create", "write", "rename", "mkdir", "link", "commit"}
)
"""What a full disk refuses."""

ON_DISK: Final[frozenset[Kind]] = TAKES_ROOM | {
    "fsync",
    "sync folder",
    "sync all",
    "unlink",
    "rmdir",
}

_DOCUMENTS: Final = ("index.json", "manifest.json")


@dataclass(frozen=True, slots=True, order=True)
class Operation:
    where: str
    """A step of the update machine, or a part of the supervisor's turn."""
    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind} {self.what}".strip()


def named(path: Path) -> str:
    """What a path below an agent's home stands for."""
    match path.parts:
        case ("state",) | ("bundles",) | ("documents",) | ("tuf",):
            return path.name
        case ("state", _):
            return "a journal slot"
        case ("bundles", folder):
            return "a partial bundle" if folder.startswith(".") else "a bundle"
        case ("bundles", folder, file):
            return f"{_member(file)} of {'a partial bundle' if folder[0] == '.' else 'a bundle'}"
        case ("documents", file):
            return re.sub(r"^plan-.*\.json", "plan", _plain(file))
        case _:
            return _plain(path.name) if path.parts else "home"


def _plain(file: str) -> str:
    """Without what marks the file that is written beside another."""
    return re.sub(r"^\.(.*)\.new$", r"\1, new", file)


_HIDDEN: Final = {
    ".d-": "a member, growing",
    ".b-": "a base",
    ".x-": "a refusal",
    ".h-": "hint",
}


def _member(file: str) -> str:
    if (hidden := _HIDDEN.get(_plain(file)[:3])) is not None:
        return f"{hidden}, new" if file.endswith(".new") else hidden
    if file.startswith(".p-"):
        if ".lists" not in file:
            return "payload"
        return "frame lists, new" if file.endswith(".new") else "frame lists"
    if (plain := _plain(file)).removesuffix(", new") in _DOCUMENTS:
        return plain
    return "a member, being decoded" if file.endswith(".decoding") else "a member"
