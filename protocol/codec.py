"""Bytes to types and back, within declared limits.

Decoding checks the size before it parses, integers against ± 2^53, and `must_understand` before
anything else of a signed document. Unknown fields are ignored, unknown *values* are not:
a closed set that meets a member it does not know raises `NotUnderstood`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from protocol.errors import NotUnderstood, PeerError

T = TypeVar("T")

FEATURES: Final = frozenset(
    {
        "plan/1",
        "deny/1",
        "document/1",
        "selector/1",
        "bundle/1",
        "policy/1",
        "payload/1",
        "window/1",
        "shadow/1",
        "profile/2",
    }
)
"""Names that `must_understand` may list and that this version of Outrider knows."""

PROTOCOL: Final = 1

# Limits in bytes, checked before anything is allocated for the content.
MAX_PLAN: Final = 64 * 1024
MAX_DENY_LIST: Final = 64 * 1024
MAX_DEVICE_DOCUMENT: Final = 16 * 1024
MAX_INDEX: Final = 64 * 1024
MAX_MANIFEST: Final = 64 * 1024
MAX_TUF_ROLE: Final = 2 * 1024 * 1024
MAX_HINT: Final = 16 * 1024
MAX_UP_PACKED: Final = 64 * 1024
MAX_UP_UNPACKED: Final = 1024 * 1024
MAX_DOWN: Final = 64 * 1024
MAX_BUNDLE_DOCUMENT: Final = 8 * 1024 * 1024
"""Contract, profile, policy and card: JSON files inside a bundle."""

CODEC_JSON: Final = 0x01
CODEC_ZSTD_JSON: Final = 0x02
CODEC_BINARY: Final = 0x03

Decompress = Callable[[bytes, int], bytes]
"""`(packed, limit) -> unpacked`; raises `ValueError` instead of producing more than `limit`."""
Compress = Callable[[bytes], bytes]


_PLAIN: Final = frozenset({int, str, float, bool, type(None)})
_ALWAYS_WRITTEN: Final = "must_understand"
"""What an agent must know is said, never implied by a default that may change."""


def to_wire(value: object) -> Any:
    """Plain JSON values of a dataclass tree.

    Fields that equal their default are left out, so a default is part of the wire form and can
    never change.
    """
    if type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        wire = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if field.name == _ALWAYS_WRITTEN:
                wire[field.name] = to_wire(item)
                continue
            if field.default is not dataclasses.MISSING and item == field.default:
                continue
            if field.default_factory is not dataclasses.MISSING and item == field.default_factory():
                continue
            wire[field.name] = to_wire(item)
        return wire
    if isinstance(value, dict):
        return {key: to_wire(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        # Most of what devices write is lists of numbers.
        return [item if type(item) is int else to_wire(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(to_wire(item) for item in value)
    return value


def encode(value: object) -> bytes:
    """Compact JSON with sorted keys: equal values give equal bytes."""
    return msgspec.json.encode(to_wire(value), order="sorted")


def decode(data: bytes, into: type[T], *, limit: int) -> T:
    """Decode one JSON value. Raises `PeerError`; `NotUnderstood` for an unknown closed value."""
    _check_size(data, limit)
    try:
        return msgspec.json.decode(data, type=into)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerError("OUT-N210", str(error)) from error


def convert(value: object, into: type[T]) -> T:
    """Like `decode`, for JSON that is already parsed."""
    try:
        return msgspec.convert(value, into)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise PeerError("OUT-N210", str(error)) from error


def decode_signed(data: bytes, into: type[T], *, limit: int) -> T:
    """Decode a signed document, refusing it first if it needs what we do not know.

    The refusal comes before the shape is checked: a future shape is the usual reason for it.
    """
    raw = decode(data, dict[str, Any], limit=limit)
    require_understood(raw.get("must_understand", []))
    return convert(raw, into)


def require_understood(names: object) -> None:
    """Raise `NotUnderstood` unless every name is in `FEATURES`."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise PeerError("OUT-N210", "must_understand is a list of names")
    unknown = tuple(sorted(set(names) - FEATURES))
    if unknown:
        raise NotUnderstood(tuple(name[:64] for name in unknown[:8]))


def encode_up(value: object, compress: Compress | None = None) -> bytes:
    """An upstream payload: codec byte, then JSON, packed where that pays (above 512 bytes)."""
    data = encode(value)
    if compress is not None and len(data) > 512:
        return bytes([CODEC_ZSTD_JSON]) + compress(data)
    return bytes([CODEC_JSON]) + data


def decode_up(data: bytes, into: type[T], decompress: Decompress) -> T:
    """Decode an upstream payload. Raises `PeerError` for every byte sequence that is not one."""
    _check_size(data, MAX_UP_PACKED)
    if not data:
        raise PeerError("OUT-N210", "empty message")
    codec, body = data[0], data[1:]
    if codec == CODEC_ZSTD_JSON:
        try:
            body = decompress(body, MAX_UP_UNPACKED)
        except ValueError as error:
            raise PeerError("OUT-N211", str(error)) from error
    elif codec != CODEC_JSON:
        raise PeerError("OUT-N212", f"codec byte 0x{codec:02x}")
    return decode(body, into, limit=MAX_UP_UNPACKED)


def _check_size(data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise PeerError("OUT-N211", f"{len(data):,} bytes, at most {limit:,}")
