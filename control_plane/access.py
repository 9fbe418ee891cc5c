"""How the commands on this machine reach their control plane: address, token, authority.

Apart from `wiring`, so that a command does not load a whole server to ask one.
"""

from __future__ import annotations

from pathlib import Path

from control_plane import settings
from control_plane.client import Access
from control_plane.settings import Settings
from protocol.errors import InvalidRequest


def access(home: Path) -> Access:
    """How the control plane at `home` is called. Raises `InvalidRequest` OUT-S150, OUT-S120."""
    found = settings.read({}, home)
    host = f"[{found.api_host}]" if ":" in found.api_host else found.api_host
    return Access(
        f"https://{host}:{found.api_port}", found.fleet, read_token(found), found.ca / "api-ca.crt"
    )


def read_token(of: Settings) -> str:
    """The operator's token. Raises `InvalidRequest` OUT-A101 for whoever may not read it."""
    try:
        return of.operator_token.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidRequest("OUT-A101", f"{of.operator_token}: {error.strerror}") from error
