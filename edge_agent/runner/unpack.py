"""Compressed request bodies, unpacked up to the size that an uncompressed one may have."""

from __future__ import annotations

import zlib
from typing import Final

from edge_agent.runner.http11 import MAX_BODY
from protocol.errors import InvalidRequest

# What zlib calls its window: with 16 added it reads gzip.
_WINDOWS: Final = {"gzip": zlib.MAX_WBITS + 16, "deflate": zlib.MAX_WBITS}

Body = bytes | bytearray


def unpack(body: Body, encoding: str | None) -> Body:
    """Raises `InvalidRequest` OUT-I116 for an encoding that is not known, OUT-I106 for a body that
    is not what its encoding says, OUT-I105 for one that is too large unpacked."""
    if encoding is None:
        return body
    name = encoding.lower()
    if name == "identity":
        return body
    if name not in _WINDOWS:
        raise InvalidRequest("OUT-I116", f"bodies may be gzip or deflate, not {name[:40]!a}")
    unpacker = zlib.decompressobj(_WINDOWS[name])
    try:
        data = unpacker.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise InvalidRequest("OUT-I106", f"the body is not {name}: {error}") from error
    if len(data) > MAX_BODY:
        raise InvalidRequest("OUT-I105", f"a request has at most {MAX_BODY:,} bytes, unpacked")
    if not unpacker.eof:
        raise InvalidRequest("OUT-I106", f"the {name} body ends too early")
    if unpacker.unused_data:
        raise InvalidRequest("OUT-I106", f"something follows the {name} body")
    return data
