"""Leave to activate what a stick brought although nothing is fresh: the one thing that carrying
metadata by hand relaxes.

A grant names bundles and the very timestamp that came with them. It ends by itself when another
timestamp is trusted, and for a bundle when that is committed. It lifts expiry only: what is
revoked, denied or unfit stays out, and so does what is not approved.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent import durable
from protocol import codec
from protocol.errors import PeerError
from protocol.identifiers import Digest, digest, digest_of

log = logging.getLogger(__name__)

MAX_BYTES: Final = 16 * 1024
MAX_BUNDLES: Final = 64


@dataclass(frozen=True, slots=True)
class Grant:
    timestamp: Digest
    """Of the bytes of the timestamp that came with it."""
    bundles: tuple[Digest, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.timestamp, *self.bundles):
            digest(value)
        if len(self.bundles) > MAX_BUNDLES:
            raise ValueError(f"a grant names at most {MAX_BUNDLES} bundles")


class Grants:
    """The grant of one device, in one file. Methods that write raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._grant = self._read()

    def under(self, timestamp: bytes | None) -> frozenset[Digest]:
        """Bundles granted while this is the trusted timestamp."""
        grant = self._grant
        if grant is None or timestamp is None or digest_of(timestamp) != grant.timestamp:
            return frozenset()
        return frozenset(grant.bundles)

    def add(self, timestamp: bytes, bundle: Digest) -> None:
        """Durable on return."""
        granted = self.under(timestamp) | {bundle}
        self._write(Grant(digest_of(timestamp), tuple(sorted(granted))[-MAX_BUNDLES:]))

    def end(self, bundles: Iterable[Digest]) -> None:
        """These need none any more. Does nothing if they have none."""
        grant = self._grant
        if grant is None:
            return
        left = tuple(sorted(set(grant.bundles) - set(bundles)))
        if left != grant.bundles:
            self._write(dataclasses.replace(grant, bundles=left) if left else None)

    def keep_only(self, timestamp: bytes) -> None:
        """Another timestamp is trusted now: what came with an older one is over."""
        if self._grant is not None and self._grant.timestamp != digest_of(timestamp):
            self._write(None)

    def _write(self, grant: Grant | None) -> None:
        if grant is None:
            # In memory first: a disk that takes nothing must not keep alive what is over.
            self._grant = None
            self._path.unlink(missing_ok=True)
            durable.sync_directory(self._path.parent)
        else:
            durable.replace(self._path, codec.encode(grant))
        self._grant = grant

    def _read(self) -> Grant | None:
        try:
            return codec.decode(self._path.read_bytes(), Grant, limit=MAX_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, PeerError) as error:
            log.warning("what a stick granted cannot be read, and so is over: %s", error)
            return None
