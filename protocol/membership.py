"""Who is in a wave: the only place where a device's position is computed.

A position is a 53-bit hash, so "exactly 20 devices", "37 %" and "per site" are all one number
compared with another, and both sides of the wire agree on every device.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from protocol.identifiers import DeviceId

EVERYONE: Final = 2**53
"""The threshold that every position is below."""

_SALT = re.compile(r"[0-9a-f]{32}")


def check_salt(salt: str) -> str:
    if not _SALT.fullmatch(salt):
        raise ValueError("a salt is 32 lower-case hex digits")
    return salt


def position(salt: str, device: DeviceId) -> int:
    """Position of `device` in [0, 2^53): the top 53 bits of SHA-256(salt, NUL, device id)."""
    digest = hashlib.sha256(salt.encode("ascii") + b"\0" + device.encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") >> 11
