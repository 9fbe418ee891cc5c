"""On which of a device's networks its link runs: the interface that has the link's address."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_SIOCGIFADDR: Final = 0x8915
_IPV6: Final = Path("/proc/net/if_inet6")


def interface_of(address: str) -> str:
    """Name of the interface with this local address, `UNKNOWN` if none has it."""
    try:
        wanted = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(wanted, ipaddress.IPv6Address) and wanted.ipv4_mapped is not None:
            wanted = wanted.ipv4_mapped
        if wanted.is_loopback:
            return "lo"
        found = _with_ipv4(wanted) if wanted.version == 4 else _with_ipv6(wanted)
    except (OSError, ValueError):
        return UNKNOWN
    return found or UNKNOWN


def interface_towards(address: str) -> str:
    """Name of the interface that packets to this address leave by; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((address, 9))
            return interface_of(str(asking.getsockname()[0]))
    except OSError:
        return UNKNOWN


def _with_ipv4(wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an address
            if answer[20:24] == wanted.packed:
                return name
    return None


def _with_ipv6(wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    for line in _IPV6.read_text(encoding="ascii").splitlines():
        fields = line.split()
        if len(fields) == 6 and fields[0] == wanted.packed.hex():
            return fields[5]
    return None
