"""Signing keys in files: Ed25519, PEM (PKCS #8), readable by their owner only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from control_plane.signing import durable
from protocol.errors import InvalidRequest

NAME: Final = "x-name"
"""Signed member of a public key: who holds it, for people. Trust never depends on it."""


def generate(path: Path, name: str) -> CryptoSigner:
    """Make a key and write it. Raises `FileExistsError`: a key is never overwritten."""
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    signer = CryptoSigner.generate_ed25519()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable.replace(path, signer.private_bytes, mode=0o600)
    return _named(signer, name)


def load(path: Path, name: str = "", password: bytes | None = None) -> CryptoSigner:
    """Raises `InvalidRequest` (OUT-T113) if there is no such key or the password is wrong."""
    try:
        private = load_pem_private_key(path.read_bytes(), password)
        signer = CryptoSigner(private)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidRequest("OUT-T113", f"{path}: {error}") from error
    return _named(signer, name or path.stem)


def holder(key: Key) -> str:
    """Who holds a key, or the beginning of its id."""
    return str(key.unrecognized_fields.get(NAME) or key.keyid[:8])


def holders(keys: Iterable[Key]) -> tuple[str, ...]:
    return tuple(sorted(holder(key) for key in keys))


def _named(signer: CryptoSigner, name: str) -> CryptoSigner:
    key = signer.public_key
    public = SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, {NAME: name})
    return CryptoSigner(signer._private_key, public)
