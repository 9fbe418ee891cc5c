"""Who may approve and how many of them it takes, read from the fleet's own metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Metadata, Targets

from control_plane.signing import keys


@dataclass(frozen=True, slots=True)
class Quorum:
    needed: int
    approvers: tuple[str, ...]
    """Names, for people: sorted."""


def quorum(tuf: Path) -> Quorum:
    """Of role `models`, as `targets.json` in this folder delegates it. Nothing is verified here:
    it is for telling people what their own server has."""
    targets = Metadata[Targets].from_bytes((tuf / "targets.json").read_bytes()).signed
    role = targets.get_delegated_role("models")
    return Quorum(role.threshold, keys.holders(targets.get_key(each) for each in role.keyids))


def dev_warning(tuf: Path) -> str:
    """What `init` and `up` say of a fleet whose keys all lie on the server."""
    found = quorum(tuf)
    if len(found.approvers) == 1:
        return "threshold 1: anyone on this machine can ship a model"
    needed = f"threshold {found.needed} of {len(found.approvers)}"
    return f"{needed}, all on this machine: anyone here can ship a model"
