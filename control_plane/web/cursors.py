"""Opaque cursors: the sort key of the last item, and a hash of what the list was.

A cursor means nothing in another list, so one that comes with another filter or order is refused
instead of silently skipping items. Keyset paging: items that appear or vanish meanwhile neither
repeat nor hide others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from protocol.errors import InvalidRequest

T = TypeVar("T")

MAX_LENGTH: Final = 1024
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list. `next_cursor` is null on the last page, `count` is of the whole."""

    items: list[T]
    next_cursor: str | None
    count: int


def cursor(key: Sequence[str | int], *listed: object) -> str:
    """A cursor behind the item with sort key `key`; `listed` says which list it is."""
    data = json.dumps({"k": list(key), "h": _hash(listed)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(data.encode()).decode().rstrip("=")


def after(text: str | None, *listed: object) -> tuple[str | int, ...] | None:
    """The sort key to go on behind; None to begin. Raises `InvalidRequest` OUT-S130."""
    if not text:
        return None
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError("too long")
        padded = text + "=" * (-len(text) % 4)
        data = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        key, hashed = data["k"], data["h"]
        if not isinstance(key, list) or not all(type(part) in (str, int) for part in key):
            raise ValueError("not a key")
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise InvalidRequest("OUT-S130", "it is not a cursor of this control plane") from None
    if hashed != _hash(listed):
        raise InvalidRequest("OUT-S130", "filter or order changed since it was given out")
    return tuple(key)


def _hash(listed: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
