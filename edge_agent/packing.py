"""How messages are packed: small ones as tightly as can be, large ones quickly."""

from __future__ import annotations

from typing import Final

import zstandard

_LEVEL: Final = 3
_TIGHT_LEVEL: Final = 19
"""A tenth smaller; its tables grow with what is packed."""
_SMALL_BYTES: Final = 2048


def pack(data: bytes) -> bytes:
    """One zstd frame."""
    level = _TIGHT_LEVEL if len(data) <= _SMALL_BYTES else _LEVEL
    return zstandard.ZstdCompressor(level=level).compress(data)
