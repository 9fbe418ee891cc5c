"""Which addresses notices may go to: public ones, over TLS, whatever a name resolves to.

A webhook's address is data from a person, and the control plane often stands where it reaches what
others must not. So the name is resolved once, every address of it is looked at, and the connection
goes to one of those very addresses: a name that answers otherwise the next moment gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from protocol.errors import InvalidRequest

MAX_URL: Final = 2048
HTTPS: Final = 443

_PLAIN: Final = re.compile(r"[\x21-\x7e]+")
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a notice goes, taken apart. `host` is a name or an address, without brackets."""

    host: str
    port: int
    path: str
    """With the query; begins with "/"."""

    @property
    def named(self) -> str:
        """As the `Host` header wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS else f"{host}:{self.port}"


def target(url: str) -> Target:
    """Raises `InvalidRequest` OUT-N301 for what is not a plain https URL."""
    if len(url) > MAX_URL or not _PLAIN.fullmatch(url) or "\\" in url:
        raise _refused("it is a URL of at most 2,048 ASCII characters, without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(str(error)) from error
    if parts.scheme != "https":
        raise _refused("it begins with https://")
    if parts.username is not None or parts.password is not None or "#" in url:
        raise _refused("it has no user, no password and no fragment")
    if not host or port == 0 or not _is_host(host):
        raise _refused("it names a host, as ASCII: names of other letters begin with xn--")
    query = f"?{parts.query}" if parts.query else ""
    return Target(host, port or HTTPS, (parts.path or "/") + query)


def allowed(host: str, addresses: Iterable[str], *, private: bool = False) -> tuple[str, ...]:
    """The addresses that `host` resolved to, if all of them may be called.

    One forbidden among them refuses all: whoever mixes them hopes for the wrong one. `private`
    allows those of private networks and of this machine as well, but neither link-local ones,
    where clouds keep their machines' secrets, nor multicast. Raises `InvalidRequest` OUT-N301.
    """
    found = tuple(dict.fromkeys(addresses))
    if not found:
        raise _refused(f"{host} has no address")
    for each in found:
        address = ipaddress.ip_address(each.partition("%")[0])
        if not all(_callable(judged, private) for judged in _judged(address)):
            which = host if each == host else f"{host} is {each}, which"
            raise _refused(f"{which} is no public address")
    return found


def _callable(address: Address, private: bool) -> bool:
    if address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    return private or (address.is_global and not address.is_reserved)


def _judged(address: Address) -> tuple[Address, ...]:
    """The address, and the IPv4 addresses that it stands for: the packet may end there."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    inner = () if address.sixtofour is None else (address.sixtofour,)
    return (address, *inner, *(address.teredo or ()))


def _is_host(host: str) -> bool:
    if ":" in host:
        if "%" in host:
            # A zone: an address of one link, which is never public.
            return False
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    names = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(len(n) <= 63 and _NAME.fullmatch(n) for n in names)


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest("OUT-N301", why)
