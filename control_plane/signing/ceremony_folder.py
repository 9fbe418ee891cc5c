"""A ceremony on disk: a folder that travels from holder to holder.

ceremony.json                              fleet, what, when: for people; nothing trusts it
base/root/<n>.json, targets.json, models.json   what was in force when it was made
new/root.json, targets.json, models.json        what is proposed, with the signatures so far
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from control_plane.signing import durable
from control_plane.signing.ceremony import PROPOSED, InForce, Proposal, What
from protocol import codec
from protocol.errors import InvalidRequest, PeerError, TrustError
from protocol.identifiers import fleet_name

FILE: Final = "ceremony.json"
_MAX_FILE: Final = 64 * 1024
_MAX_ROOTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class _About:
    fleet: str
    what: What
    made_ms: int

    def __post_init__(self) -> None:
        fleet_name(self.fleet)


def write(directory: Path, proposal: Proposal) -> None:
    """A new folder. Raises `InvalidRequest` (OUT-S151) if there is anything."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidRequest("OUT-S151", f"{directory} is not empty")
    (directory / "new").mkdir(parents=True, exist_ok=True)
    base = proposal.base
    if base is not None:
        write_in_force(directory / "base", base)
    write_signatures(directory, proposal)
    about = _About(proposal.fleet, proposal.what, int(proposal.made.timestamp() * 1000))
    durable.replace(directory / FILE, codec.encode(about))


def write_signatures(directory: Path, proposal: Proposal) -> None:
    for role in PROPOSED:
        data = proposal.file(role)
        if data is not None:
            durable.replace(directory / "new" / f"{role}.json", data)


def write_in_force(directory: Path, state: InForce) -> None:
    (directory / "root").mkdir(parents=True, exist_ok=True)
    for number, data in state.roots.items():
        durable.replace(directory / "root" / f"{number}.json", data)
    durable.replace(directory / "targets.json", state.targets)
    durable.replace(directory / "models.json", state.models)


def read(directory: Path) -> Proposal:
    """Raises `InvalidRequest` (OUT-S110: no ceremony), `TrustError` (OUT-T124: damaged)."""
    path = directory / FILE
    if not path.exists():
        raise InvalidRequest("OUT-S110", f"no ceremony in {directory}", do="outrider trust rotate")
    try:
        about = codec.decode(_read(path, _MAX_FILE), _About, limit=_MAX_FILE)
        return Proposal(
            about.fleet,
            about.what,
            datetime.fromtimestamp(about.made_ms / 1000, UTC),
            read_in_force(directory / "base"),
            **{role: _optional(directory / "new" / f"{role}.json") for role in PROPOSED},
        )
    except (PeerError, ValueError, OverflowError, OSError) as error:
        raise TrustError("OUT-T124", f"{directory}: {error}") from error


def read_in_force(directory: Path) -> InForce | None:
    """What a repository, or a ceremony's base, has; None if there is no root.

    Raises `OSError`, `ValueError`.
    """
    paths = {int(path.stem): path for path in (directory / "root").glob("*.json")}
    if not paths:
        return None
    if len(paths) > _MAX_ROOTS:
        raise ValueError(f"{len(paths):,} roots")
    return InForce(
        {number: _read(paths[number]) for number in sorted(paths)},
        _read(directory / "targets.json"),
        _read(directory / "models.json"),
    )


def _optional(path: Path) -> bytes | None:
    return _read(path) if path.exists() else None


def _read(path: Path, limit: int = codec.MAX_TUF_ROLE) -> bytes:
    """Never more than a file may have: the folder came from somebody else."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path.name} is too large")
    return data
