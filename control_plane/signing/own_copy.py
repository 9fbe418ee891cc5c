"""What a holder has seen with their own eyes, beside their key: `ana.north.seen.json`.

A ceremony folder was made by somebody else. It is compared with this copy, so a holder notices
when it starts from another fleet's root, from a fork, or from something older.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from control_plane.signing import durable
from control_plane.signing.ceremony import InForce, Proposal
from protocol import codec
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import Digest, digest_of

_MAX: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OwnCopy:
    """`signed`: the file ("root 3") to the digest of what was signed, without signatures."""

    roots: dict[str, bytes] = field(default_factory=dict)
    targets: bytes = b""
    models: bytes = b""
    signed: dict[str, Digest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(number.isdecimal() for number in self.roots):
            raise ValueError("roots are numbered")

    @property
    def state(self) -> InForce | None:
        if not self.roots:
            return None
        roots = {int(number): data for number, data in self.roots.items()}
        return InForce(roots, self.targets, self.models)

    def after(self, proposal: Proposal, signed: dict[str, bytes]) -> OwnCopy:
        """With what the signer has verified now. Of a first root there is nothing in force yet:
        what they have signed is what they go on from."""
        seen = proposal.base or proposal.result()
        digests = {name: digest_of(data) for name, data in signed.items()}
        return OwnCopy(
            {str(number): data for number, data in seen.roots.items()},
            seen.targets,
            seen.models,
            {**self.signed, **digests},
        )

    def other(self, signed: dict[str, bytes]) -> tuple[str, ...]:
        """Files of which another content of the same version was signed before."""
        return tuple(
            name
            for name, data in signed.items()
            if name in self.signed and self.signed[name] != digest_of(data)
        )


def path_of(key: Path, fleet: str) -> Path:
    return key.with_name(f"{key.stem}.{fleet}.seen.json")


def read(path: Path) -> OwnCopy:
    """Empty if there is none. Raises `InvalidRequest` (OUT-S120) if it cannot be read."""
    try:
        return codec.decode(path.read_bytes(), OwnCopy, limit=_MAX)
    except FileNotFoundError:
        return OwnCopy()
    except (OSError, PeerError) as error:
        raise InvalidRequest(
            "OUT-S120", f"{path}: {error}", do="restore it, or remove it to start anew"
        ) from error


def write(path: Path, copy: OwnCopy) -> None:
    durable.replace(path, codec.encode(copy), mode=0o600)
