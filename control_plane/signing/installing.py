"""New root, targets and models on their way into a repository: all of them, or none.

They are verified, written into one file in one step, and only then copied to where they belong. A
power cut before that step leaves everything as it was; after it, whoever opens the repository
next copies them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from control_plane.signing import ceremony, ceremony_rules, durable
from control_plane.signing.ceremony import PROPOSED, InForce, Proposal
from control_plane.signing.online_keys import OnlineKeys
from protocol import codec
from protocol.errors import Failed, PeerError, TrustError

FILE: Final = "install.json"
_MAX: Final = 5 * codec.MAX_TUF_ROLE


@dataclass(frozen=True, slots=True)
class Install:
    """Whole files; None: stays as it is."""

    root: bytes | None = None
    targets: bytes | None = None
    models: bytes | None = None

    @classmethod
    def of(cls, proposal: Proposal) -> Install:
        return cls(proposal.root, proposal.targets, proposal.models)

    def without(self, state: InForce) -> Install:
        """Without what is in force already: publishing twice changes nothing."""
        return Install(
            None if self.root in state.roots.values() else self.root,
            None if self.targets == state.targets else self.targets,
            None if self.models == state.models else self.models,
        )

    @property
    def empty(self) -> bool:
        return self == Install()

    def on(self, base: InForce | None, fleet: str, now: datetime) -> Proposal:
        return Proposal(
            fleet, "rotate" if base else "init", now, base, self.root, self.targets, self.models
        )


def verify(proposal: Proposal, online_keys: OnlineKeys, now: datetime) -> None:
    """Everything, and that the server has the keys that it will need.

    Raises `TrustError`: OUT-T123, OUT-T124; `InvalidRequest` OUT-T117.
    """
    ceremony_rules.check(proposal, now)
    ceremony.require_complete(proposal)
    after = ceremony.powers(proposal.result())
    for which, holding in (("rollouts", after.rollouts), ("snapshot", after.snapshot)):
        try:
            online_keys.signer(which, list(holding.keys))
        except Failed as error:
            raise TrustError(
                "OUT-T124",
                f"it names a key of {which} that this server does not have",
                do="make the ceremony with the keys/online.pub of this server",
            ) from error


def begin(directory: Path, files: Install) -> None:
    """From here on the files are in force, whatever happens. Raises `OSError`; then nothing is."""
    durable.replace(directory / FILE, codec.encode(files))


def pending(directory: Path) -> Install | None:
    """What has begun and not ended. Raises `TrustError` (OUT-T101) if it cannot be read."""
    try:
        return codec.decode((directory / FILE).read_bytes(), Install, limit=_MAX)
    except FileNotFoundError:
        return None
    except PeerError as error:
        raise TrustError("OUT-T101", f"{directory / FILE}: {error}") from error


def write(directory: Path, files: Install) -> None:
    """Copy to where they belong; may be repeated. Raises `OSError`; then it is still pending."""
    (directory / "root").mkdir(exist_ok=True)
    for role in PROPOSED:
        data: bytes | None = getattr(files, role)
        if data is not None:
            path = directory / f"{role}.json"
            if role == "root":
                path = directory / "root" / f"{_version(data)}.json"
            # Its end may not have reached the disk, and approvers may have signed since.
            if not path.exists() or _version(path.read_bytes()) < _version(data):
                durable.replace(path, data)
    (directory / FILE).unlink(missing_ok=True)


def _version(data: bytes) -> int:
    try:
        return Metadata[Root].from_bytes(data).signed.version
    except RepositoryError:
        return 0
