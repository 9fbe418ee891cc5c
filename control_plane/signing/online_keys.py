"""The server's own keys, and those that wait to replace them.

keys/online-rollouts.pem  online-snapshot.pem             in use
keys/online-rollouts.next.pem  online-snapshot.next.pem   used once root and targets name them
keys/online.pub                                           what a ceremony needs of them
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, Key

from control_plane.signing import create, durable, keys
from protocol.errors import Failed, InvalidRequest
from protocol.identifiers import FleetName, fleet_name

PUBLIC: Final = "online.pub"


class OnlineKeys:
    """`which` is "rollouts" or "snapshot"; the latter signs timestamp too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loaded: dict[str, CryptoSigner] = {}

    def path(self, which: str, *, following: bool = False) -> Path:
        return self._directory / f"online-{which}{'.next' if following else ''}.pem"

    def generate(self, which: str, *, following: bool = False) -> Key:
        """Raises `FileExistsError`."""
        path = self.path(which, following=following)
        return keys.generate(path, which).public_key

    def signer(self, which: str, keyids: Collection[str]) -> CryptoSigner:
        """The key of these that is here. Raises `Failed` (OUT-T115) if none is."""
        for keyid in keyids:
            if keyid in self._loaded:
                return self._loaded[keyid]
        # Not seen yet: somebody may have made it, or put it here, while we run.
        for key in self._all(which):
            self._loaded[key.public_key.keyid] = key
            if key.public_key.keyid in keyids:
                return key
        raise Failed(
            "OUT-T115",
            f"the key of {which} that the fleet trusts is not here",
            do=f"restore keys/online-{which}.pem, or rotate it: outrider trust rotate",
        )

    def settle(self, which: str, keyids: Collection[str]) -> None:
        """A following key that is in use by now takes the place of the old one."""
        following = self.path(which, following=True)
        if following.exists() and keys.load(following).public_key.keyid in keyids:
            following.replace(self.path(which))

    def wanted(self) -> dict[str, Key]:
        """The keys as they should be: the following one where there is one."""
        found: dict[str, Key] = {}
        for which in create.ONLINE:
            path = self.path(which, following=True)
            chosen = path if path.exists() else self.path(which)
            found[which] = keys.load(chosen, which).public_key
        return found

    def write_public(self, fleet: FleetName) -> Path:
        """`online.pub` of the wanted keys."""
        path = self._directory / PUBLIC
        body = {"fleet": fleet, **{w: keys.public(key) for w, key in self.wanted().items()}}
        durable.replace(path, (json.dumps(body, indent=2) + "\n").encode())
        return path

    def _all(self, which: str) -> list[CryptoSigner]:
        paths = (self.path(which), self.path(which, following=True))
        return [keys.load(path, which) for path in paths if path.exists()]


def read_public(path: Path) -> tuple[FleetName, Mapping[str, Key]]:
    """Fleet and keys of an `online.pub`. Raises `InvalidRequest` (OUT-T113)."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(keys.MAX_PUBLIC))
        return fleet_name(found["fleet"]), {
            which: keys.read_public(found[which]) for which in create.ONLINE
        }
    except OSError as error:
        raise InvalidRequest("OUT-T113", f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest(
            "OUT-T113", f"{path} is not what a server says of its keys: {error}", do="online.pub"
        ) from error
