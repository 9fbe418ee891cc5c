"""The token that callers from other machines show. It lies in a file that only its owner reads."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from protocol.errors import InvalidRequest

log = logging.getLogger(__name__)

LEAST_LENGTH: Final = 16
MOST_BYTES: Final = 4096
_SCHEME: Final = "bearer "


class Bearer:
    """Compares what callers show with the file, which is read again when it has changed.

    Without a token that can be read, nobody gets in.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._digest: bytes | None = None

    def check(self, authorization: str | None) -> None:
        """Raises `InvalidRequest` OUT-I112 unless it is `Bearer` and the token."""
        wanted = self._wanted()
        shown = authorization or ""
        if shown[: len(_SCHEME)].lower() != _SCHEME:
            raise InvalidRequest("OUT-I112", "this address asks for a token")
        digest = _digest(shown[len(_SCHEME) :].strip())
        # Digests of equal length: neither length nor beginning of the token can be timed.
        if wanted is None or not hmac.compare_digest(digest, wanted):
            raise InvalidRequest("OUT-I112", "the token is not that of this device")

    def _wanted(self) -> bytes | None:
        try:
            found = self._file.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                token = read_token(self._file)
                self._digest, self._seen = _digest(token), seen
        except (OSError, InvalidRequest) as error:
            if self._seen is not None or self._digest is None:
                log.warning("no token can be shown: %s", error)
            self._digest = self._seen = None
        return self._digest


def read_token(file: Path) -> str:
    """Raises `OSError`, `InvalidRequest` OUT-S110 for a file without a token worth the name."""
    with file.open("rb") as stream:
        raw = stream.read(MOST_BYTES)
    token = raw.decode("latin-1").strip()
    if len(token) < LEAST_LENGTH or not token.isascii() or not token.isprintable():
        raise InvalidRequest(
            "OUT-S110",
            f"{file} holds no token",
            do=f"one line of {LEAST_LENGTH} printable characters or more; or remove the file, and "
            "one is made",
        )
    return token


def make_token(file: Path, token: str) -> None:
    """Write it unless there is one. Others can never read it, and nobody a part of it."""
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    target = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(target, token.encode() + b"\n")
        os.fsync(target)
    finally:
        os.close(target)
    with suppress(FileExistsError):
        file.hardlink_to(beside)
    beside.unlink()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()
