"""Signing keys in files.

ana.pem   private: Ed25519, PKCS #8, encrypted with a passphrase; for its owner's eyes only
ana.pub   public: what a ceremony needs of it, as JSON
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from control_plane.signing import durable
from protocol.errors import InvalidRequest

NAME: Final = "x-name"
"""Signed member of a public key: who holds it, for people. Trust never depends on it."""
SHORT: Final = 8
"""Hex digits of a key id that people are shown."""
MAX_PUBLIC: Final = 8 * 1024

_NAME: Final = re.compile(r"\w[\w .-]{0,39}")
_ENCRYPTED: Final = b"ENCRYPTED PRIVATE KEY"
_SCHEMES: Final = {
    "ed25519": "ed25519",
    "ecdsa-sha2-nistp256": "ecdsa",
    "ecdsa-sha2-nistp384": "ecdsa",
}


def generate(path: Path, name: str, password: bytes | None = None) -> CryptoSigner:
    """Make a key and write it, encrypted if there is a password.

    Raises `FileExistsError`: a key is never overwritten; `InvalidRequest` (OUT-T117) for a name
    that cannot be shown.
    """
    require_name(name)
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    signer = CryptoSigner.generate_ed25519()
    data = signer.private_bytes
    if password is not None:
        data = signer._private_key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable.replace(path, data, mode=0o600)
    return _named(signer, name)


def load(path: Path, name: str = "", password: bytes | None = None) -> CryptoSigner:
    """Raises `InvalidRequest` (OUT-T113) if there is no such key or the password is wrong."""
    pem = _read(path)
    encrypted = _ENCRYPTED in pem
    if encrypted and password is None:
        raise InvalidRequest("OUT-T113", f"{path} is encrypted and no passphrase was given")
    try:
        signer = CryptoSigner(load_pem_private_key(pem, password if encrypted else None))
    except (ValueError, TypeError) as error:
        wrong = "the passphrase is wrong" if encrypted else "it is no private key in PEM"
        raise InvalidRequest("OUT-T113", f"{path}: {wrong}") from error
    return _named(signer, name or path.stem)


def encrypted(path: Path) -> bool:
    """Whether a passphrase is needed. Raises `InvalidRequest` (OUT-T113)."""
    return _ENCRYPTED in _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest("OUT-T113", f"{path}: {error.strerror or error}") from error


# --- public keys ----------------------------------------------------------------------------------


def public_path(path: Path) -> Path:
    return path.with_suffix(".pub")


def write_public(path: Path, key: Key) -> None:
    """Raises `FileExistsError`."""
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    durable.replace(path, (json.dumps(public(key), indent=2) + "\n").encode())


def public(key: Key) -> dict[str, object]:
    return {"keyid": key.keyid, **key.to_dict()}


def load_public(path: Path) -> SSlibKey:
    """Raises `InvalidRequest` (OUT-T113)."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_PUBLIC))
        return read_public(found)
    except OSError as error:
        raise InvalidRequest("OUT-T113", f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("OUT-T113", f"{path}: {error}", do="hand over NAME.pub") from error


def read_public(found: object) -> SSlibKey:
    """A public key from its JSON. Raises `ValueError` if it is none or its id is not its own."""
    if not isinstance(found, dict):
        raise ValueError("it is no public key")
    members = {**found}
    keyid = members.pop("keyid", None)
    try:
        key = SSlibKey.from_dict(str(keyid), members)
        require_sound(key)
    except (KeyError, TypeError, AttributeError, FormatError) as error:
        raise ValueError(f"it is no public key: {error}") from error
    return key


def require_sound(key: Key) -> None:
    """Raises `ValueError` unless the id is the key's own, its name can be shown, and it says
    nothing else. An id of its own choice would let one key count twice."""
    if not isinstance(key, SSlibKey) or _SCHEMES.get(key.scheme) != key.keytype:
        raise ValueError(f"key {key.keyid[:SHORT]!r}: {key.scheme!r:.40} is not supported")
    if set(key.keyval) != {"public"} or set(key.unrecognized_fields) - {NAME}:
        raise ValueError(f"key {key.keyid[:SHORT]!r} says something that cannot be shown")
    if SSlibKey.from_crypto(key._crypto_key(), scheme=key.scheme).keyid != key.keyid:
        raise ValueError(f"key {key.keyid[:SHORT]!r} has not its own id")
    name = key.unrecognized_fields.get(NAME)
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ValueError(f"key {key.keyid[:SHORT]!r} has a name that cannot be shown")


def require_name(name: str) -> None:
    """Raises `InvalidRequest` (OUT-T117)."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest("OUT-T117", f"{name!r:.50} is no name: letters, digits, at most 40")


def holder(key: Key) -> str:
    """Who holds a key, or the beginning of its id."""
    return str(key.unrecognized_fields.get(NAME) or key.keyid[:SHORT])


def holders(keys: Iterable[Key]) -> tuple[str, ...]:
    return tuple(sorted(holder(key) for key in keys))


def _named(signer: CryptoSigner, name: str) -> CryptoSigner:
    key = signer.public_key
    public = SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, {NAME: name})
    return CryptoSigner(signer._private_key, public)
