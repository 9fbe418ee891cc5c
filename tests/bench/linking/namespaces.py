"""Two network namespaces, each with one end of a link: a TUN device whose packets come here.

Needs root, `/dev/net/tun` and `ip`. Both ends use the same, stated congestion control, and forget
between connections what they learned of the link, so no run profits from another.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEVICE: Final = "10.77.0.1"
SERVER: Final = "10.77.0.2"
CONGESTION: Final = ("cubic", "reno")
"""The first that may be used here: Linux's default, else what every kernel allows."""
_TUN: Final = Path("/dev/net/tun")
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_CLONE_NEWNET: Final = 0x40000000
_NET_ADMIN: Final = 12
_SYS_ADMIN: Final = 21
"""Bits of capabilities(7)."""
_SETTINGS: Final = ("net.ipv4.tcp_no_metrics_save=1", "net.ipv6.conf.all.disable_ipv6=1")


def missing() -> str:
    """What keeps this machine from having namespaces and a link between them; empty: nothing."""
    if os.geteuid() != 0 or not _may(_NET_ADMIN, _SYS_ADMIN):
        return "it needs root, with the right to make network namespaces"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"there is no {_TUN}"
    programs = [name for name in ("ip", "sysctl") if found(name) is None]
    return f"there is no {programs[0]}" if programs else ""


def _may(*capabilities: int) -> bool:
    """Root of a container often may not what root may."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff")), 0)
    return all(effective >> each & 1 for each in capabilities)


def found(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@dataclass(frozen=True, slots=True)
class Side:
    """A namespace, its address, and its TUN device as a descriptor that does not block."""

    name: str
    address: str
    tun: int

    def command(self, *words: object) -> list[str]:
        """That runs in it."""
        return [found("ip") or "ip", "netns", "exec", self.name, *map(str, words)]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and whatever it starts meanwhile, is in it."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _set_namespace(inside)
            try:
                yield
            finally:
                _set_namespace(before)
        finally:
            os.close(inside)
            os.close(before)


@contextmanager
def pair() -> Iterator[tuple[Side, Side]]:
    """`(device, server)`. Raises `OSError`, `subprocess.CalledProcessError`."""
    names = [f"outrider-{who}-{os.getpid()}" for who in ("device", "server")]
    sides: list[Side] = []
    try:
        for name, address, peer in zip(names, (DEVICE, SERVER), (SERVER, DEVICE), strict=True):
            sides.append(_side(name, address, peer))
        yield sides[0], sides[1]
    finally:
        for side in sides:
            os.close(side.tun)
        for name in names:
            subprocess.run([found("ip") or "ip", "netns", "del", name], capture_output=True)


def _side(name: str, address: str, peer: str) -> Side:
    _ip("netns", "add", name)
    # The descriptor goes on to work here, wherever its device is.
    interface = f"tun{address.rpartition('.')[2]}-{os.getpid()}"[:15]
    tun = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", interface.encode(), _IFF_TUN | _IFF_NO_PI))
    side = Side(name, address, tun)
    _ip("link", "set", interface, "netns", name)
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "address", "add", address, "peer", peer, "dev", interface)
    _ip("-n", name, "link", "set", interface, "up")
    for setting in _SETTINGS:
        _set(side, setting).check_returncode()
    for control in CONGESTION:
        if _set(side, f"net.ipv4.tcp_congestion_control={control}").returncode == 0:
            break
    return side


def _set(side: Side, setting: str) -> subprocess.CompletedProcess[bytes]:
    words = side.command(found("sysctl"), "-qw", setting)
    return subprocess.run(words, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run([found("ip") or "ip", *words], check=True)


def _set_namespace(descriptor: int) -> None:
    """setns(2), which `os` has from Python 3.12 on."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def congestion_control(side: Side) -> str:
    """What its connections use."""
    words: Sequence[str] = side.command("cat", "/proc/sys/net/ipv4/tcp_congestion_control")
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
