"""Whether a request is meant for this machine: the rule for callers that show no token.

A web page elsewhere must not reach a local model: neither by a cross-origin request, nor by a name
of its own that it points to 127.0.0.1. Browsers say what they ask in `Host` and for whom in
`Origin`; a page can forge neither.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from protocol.errors import InvalidRequest

# Only the usual ways to write an address: resolvers understand 127.1 and 0x7f000001 as well, and
# nobody who means well writes them. `localhost.` is the same name, and as reserved.
_LOOPBACK: Final = re.compile(
    r"(?:localhost\.?|127(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}|\[(?:::|(?:0{1,4}:){7})0{0,3}1\])"
    r"(?::[0-9]{0,5})?",
    re.IGNORECASE | re.ASCII,
)
_SCHEMES: Final = ("http://", "https://")


def check_origin(host: str | None, origin: str | None) -> None:
    """Raises `InvalidRequest` OUT-I109 unless both name this machine, or are not there.

    Browsers always send a Host; programs that speak HTTP/1.0 need not.
    """
    if host is not None and not _is_loopback(host):
        raise InvalidRequest("OUT-I109", f"Host {host[:80]!a} is not this machine")
    if origin is not None and not _is_local(origin):
        raise InvalidRequest("OUT-I109", f"Origin {origin[:80]!a} is not this machine")


# Nearly every request says what the one before it said.
@lru_cache(maxsize=16)
def _is_loopback(host: str) -> bool:
    return _LOOPBACK.fullmatch(host) is not None


def _is_local(origin: str) -> bool:
    return any(
        origin[: len(scheme)].lower() == scheme and _LOOPBACK.fullmatch(origin, len(scheme))
        for scheme in _SCHEMES
    )
