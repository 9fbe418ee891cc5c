"""Files by the digest of their content: what is there is whole."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from protocol.errors import InvalidRequest, TrustError
from protocol.identifiers import Digest, digest, digest_from_hex

_CHUNK: Final = 1024 * 1024


class Blobs:
    """Files below one directory, each named by its digest. Safe to use from several threads."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        for abandoned in directory.glob(".new-*"):
            abandoned.unlink(missing_ok=True)

    def put(
        self, data: bytes | Iterable[bytes], *, limit: int, expected: Digest | None = None
    ) -> Digest:
        """Store a file and return its digest.

        Raises `InvalidRequest` OUT-N211 above `limit` bytes, `TrustError` OUT-T103 if it is not
        the expected content. Nothing is left behind then.
        """
        beside = self._directory / f".new-{secrets.token_hex(8)}"
        running = hashlib.sha256()
        size = 0
        try:
            with beside.open("xb") as file:
                for part in [data] if isinstance(data, bytes) else data:
                    size += len(part)
                    if size > limit:
                        raise InvalidRequest("OUT-N211", f"more than {limit:,} bytes")
                    running.update(part)
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            found = digest_from_hex(running.hexdigest())
            if expected is not None and found != expected:
                raise TrustError("OUT-T103", f"expected {expected[:15]}, got {found[:15]}")
            beside.replace(self._directory / found)
        finally:
            beside.unlink(missing_ok=True)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return found

    def path(self, name: Digest) -> Path:
        """Where the file is. Raises `KeyError` if it is not here."""
        path = self._directory / digest(name)
        if not path.exists():
            raise KeyError(name)
        return path

    def has(self, name: Digest) -> bool:
        return (self._directory / digest(name)).exists()

    def read(self, name: Digest) -> bytes:
        """For small files. Raises `KeyError`."""
        return self.path(name).read_bytes()

    def chunks(self, name: Digest) -> Iterator[bytes]:
        with self.path(name).open("rb") as file:
            while part := file.read(_CHUNK):
                yield part

    def remove(self, name: Digest) -> None:
        (self._directory / digest(name)).unlink(missing_ok=True)
