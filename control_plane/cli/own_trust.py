"""The caller's own view of what is trusted: their root, their TUF client, their memory.

Nothing of it is taken from the control plane but bytes that are verified.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from control_plane.access import ROOT
from control_plane.client import Client
from control_plane.settings import find_home
from protocol.approval import ApprovedBundle
from protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from control_plane.signing.approve import Approver

MEMORY: Final = "approver"


def own_root(home: Path | None) -> bytes:
    """The root that this caller starts from. Raises `InvalidRequest` OUT-T116."""
    place = find_home(os.environ, home)
    for path in (place / ROOT, place / "tuf" / "root" / "1.json"):
        if path.exists():
            return path.read_bytes()
    raise InvalidRequest("OUT-T116", f"neither {ROOT} nor tuf/ in {place}")


def own_client(home: Path | None) -> Approver:
    from control_plane.signing.approve import Approver  # TUF only for commands that need it

    return Approver(find_home(os.environ, home) / MEMORY, own_root(home))


def own_approvals(client: Client, home: Path | None, now: datetime) -> tuple[ApprovedBundle, ...]:
    """What approvers have signed and is in force. Raises `TrustError`, `Unavailable`."""
    return own_client(home).approved(*published(client), now)


def published(client: Client) -> tuple[dict[int, bytes], dict[str, bytes]]:
    """Roots by number and roles by name, as the control plane gives them: nothing is verified."""
    metadata = client.get("tuf")
    return (
        {int(number): text.encode() for number, text in metadata["roots"].items()},
        {role: text.encode() for role, text in metadata["roles"].items()},
    )
