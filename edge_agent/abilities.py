"""Which encodings this device can decode: what is installed, without loading any of it.

Decoding happens in a child process, so the agent itself never pays for numpy.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from edge_agent.installed import version_of
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_SEGMENTS,
    PLAIN_FEATURES,
)

_BROTLI_LEAST: Final = (1, 2)
"""The first that bounds what one call gives back."""


def find_abilities() -> int:
    """Feature bits."""
    found = PLAIN_FEATURES
    if _is_here("numpy") and _is_here("zstandard"):
        found |= FEATURE_SEGMENTS | FEATURE_PATCH | FEATURE_BSDIFF
        if _is_here("_lzma"):
            found |= FEATURE_LZMA
        if _is_here("brotli") and _numbers(version_of("brotli")) >= _BROTLI_LEAST:
            found |= FEATURE_BROTLI
    return found


def _is_here(module: str) -> bool:
    return find_spec(module) is not None


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in parts)
