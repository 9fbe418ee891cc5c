"""How commands reach a control plane: address, token, authority.

The home of a control plane has all of it. The home of a person who works from elsewhere has only
`access.json`, which `outrider auth login` writes. Apart from `wiring`, so that a command does not
load a whole server to ask one.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from control_plane import settings
from control_plane.client import Access
from control_plane.settings import Settings
from control_plane.signing import durable
from protocol.codec import decode, encode
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import Digest, FleetName, digest, fleet_name

FILE: Final = "access.json"
ROOT: Final = "root.json"
"""The caller's own copy of the root of trust, beside `FILE`."""
MAX_FILE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Remote:
    """What `access.json` says."""

    url: str
    fleet: FleetName
    token: str = field(repr=False)
    ca: str | None = None
    """PEM; None: an authority that the system trusts."""
    root: Digest | None = None
    """Of `root.json`; None while the fleet had no root of trust."""

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise ValueError("the address begins with https://")
        fleet_name(self.fleet)
        if self.root is not None:
            digest(self.root)

    @property
    def access(self) -> Access:
        return Access(self.url, self.fleet, self.token, self.ca)


def access(home: Path) -> Access:
    """How the control plane of `home` is called: the one that lives there, or one elsewhere.

    Raises `InvalidRequest`: OUT-S150 if there is neither, OUT-S120 for files that are not valid
    or that others may read, OUT-A101 for a token that this user may not read.
    """
    if (home / settings.FILE).exists():
        return _here(settings.read({}, home))
    remote = read_remote(home)
    if remote is not None:
        return remote.access
    raise InvalidRequest(
        "OUT-S150",
        f"neither {settings.FILE} nor {FILE} in {home}",
        do="outrider init; or, for one elsewhere: outrider auth login",
    )


def read_token(of: Settings) -> str:
    """The token of this machine. Raises `InvalidRequest` OUT-A101 for whoever may not read it."""
    try:
        return of.operator_token.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidRequest("OUT-A101", f"{of.operator_token}: {error.strerror}") from error


def read_remote(home: Path) -> Remote | None:
    """None if there is no `access.json`. Raises `InvalidRequest` OUT-S120."""
    path = home / FILE
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidRequest(
            "OUT-S120",
            f"{path}: others on this machine may read the token in it",
            do=f"chmod 600 {path}; if somebody has read it, have it revoked",
        )
    try:
        return decode(path.read_bytes(), Remote, limit=MAX_FILE)
    # Not with the reason: it may repeat what is in the file.
    except (OSError, PeerError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not what auth login wrote"
        raise InvalidRequest("OUT-S120", f"{path}: {why}", do="outrider auth login") from None


def write_remote(home: Path, remote: Remote) -> None:
    """Readable by this user only, whole or not at all. Raises `OSError`."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable.replace(home / FILE, encode(remote), mode=0o600)


def _here(found: Settings) -> Access:
    host = f"[{found.api_host}]" if ":" in found.api_host else found.api_host
    return Access(
        f"https://{host}:{found.api_port}", found.fleet, read_token(found), found.ca / "api-ca.crt"
    )
