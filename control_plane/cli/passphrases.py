"""Passphrases of signing keys: typed by a person or read from a file, never an argument."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner

from control_plane.signing import keys
from protocol.errors import InvalidRequest

LEAST: Final = 8
"""Characters. Whoever gets the file can try as many as they like, as fast as they can."""


def signer(path: Path, file: Path | None = None) -> CryptoSigner:
    """A key, with the passphrase asked for if it needs one.

    Raises `InvalidRequest` (OUT-T113): no key, a wrong passphrase, or nobody there to ask.
    """
    if not keys.encrypted(path):
        return keys.load(path)
    if file is not None:
        return keys.load(path, password=_from(file))
    return keys.load(path, password=asked(f"passphrase for {path.name}: ", path).encode())


def new(path: Path, file: Path | None = None) -> bytes:
    """For a new key. Raises `InvalidRequest` OUT-T113: too short, or not the same twice."""
    if file is not None:
        given = _from(file).decode()
    else:
        given = asked(f"passphrase for {path.name}: ", path)
        if given != asked("the same again: ", path):
            raise InvalidRequest("OUT-T113", "the two passphrases differ", do="start again")
    if len(given) < LEAST:
        raise InvalidRequest(
            "OUT-T113",
            f"the passphrase has {len(given)} characters",
            do=f"take at least {LEAST}; a few words are best",
        )
    return given.encode()


def asked(question: str, path: Path) -> str:
    """What a person types, unseen."""
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "OUT-T113",
            f"{path} needs a passphrase and nobody is there to type it",
            do="--passphrase-file FILE",
        )
    return getpass.getpass(question, stream=sys.stderr)


def _from(file: Path) -> bytes:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest("OUT-T113", f"{file}: {error}") from error
    return (lines[0] if lines else "").encode()
