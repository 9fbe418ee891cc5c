"""Where a model comes from: places with revisions and digests, for the model card.

Paths of the machine that builds are left out: a card travels to every device.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from protocol.errors import InvalidRequest
from protocol.members import Source

_GIT_TIMEOUT_S = 10


def file_source(path: Path, revision: str = "") -> Source:
    """A file by its name and digest. Raises `InvalidRequest` OUT-S110 when it cannot be read."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidRequest("OUT-S110", f"{path.name}: {error.strerror}") from error
    return Source(path.name, revision, f"sha256-{found}")


def git_source(checkout: Path) -> Source:
    """The commit that is checked out, "-dirty" with changes. Raises `InvalidRequest` OUT-S110."""
    revision = _git(checkout, "rev-parse", "HEAD")
    if _git(checkout, "status", "--porcelain"):
        revision += "-dirty"
    try:
        origin = _git(checkout, "remote", "get-url", "origin")
    except InvalidRequest:
        origin = ""
    return Source(f"git:{_without_password(origin) or checkout.resolve().name}", revision)


def _git(checkout: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidRequest("OUT-S110", f"{checkout.name} is not a git checkout") from error
    return done.stdout.strip()


def _without_password(url: str) -> str:
    """Clone addresses may carry tokens. A local path is of no use elsewhere."""
    parts = urlsplit(url)
    if not parts.hostname:
        return url if "@" in url and ":" in url and not url.startswith("/") else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, parts.hostname + port, parts.path, "", ""))
