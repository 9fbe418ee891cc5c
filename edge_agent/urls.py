"""Which addresses of a hint may be asked, and what exactly is asked there.

A hint is unsigned and anybody's, so an address in it is only a wish: it must be a plain prefix
without credentials or queries, and it must not lead back into this device or to its neighbours on
the wire. What an address answers is believed no more than what a broker says: each frame is
checked by its digest.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from protocol.identifiers import Digest
from protocol.payload import PAYLOAD_PATH

CONTROL_PLANE: Final = "/"
"""In a hint: the control plane that the device enrolled with."""
_PREFIX: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(/[A-Za-z0-9._~-]*)*/)"
)


def url_of(prefix: str, payload: Digest, control_plane: str, dev: bool) -> str | None:
    """Where a payload lies below `prefix`; None where nothing may be asked.

    `control_plane` is `https://host:port` of the enrolment, or empty. `dev`: a development agent,
    whose mirrors may run on the same machine.
    """
    if prefix == CONTROL_PLANE:
        return f"{control_plane}{PAYLOAD_PATH}{payload}" if control_plane else None
    found = _PREFIX.fullmatch(prefix)
    if found is None or "/../" in found["path"] or "/./" in found["path"]:
        return None
    if not 0 < int(found["port"] or 443) < 2**16:
        return None
    host = found["host"].strip("[]").rstrip(".").lower()
    inside = host == "localhost" or host.endswith(".localhost") or not is_elsewhere(host)
    if inside and not dev:
        return None
    return f"{prefix}{payload}"


def is_elsewhere(host: str) -> bool:
    """False for an address of this device itself, of its link, or of no single host."""
    try:
        address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    except ValueError:
        # A name, unless it ends in a number: resolvers read `127.1` and `0x7f000001` as addresses.
        return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]) is None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
    )
