"""How many wrong tokens one may try: pure counters per address, and one for all together.

Every failure fills its address's bucket by one; buckets leak, one failure every `window_s / most`.
A full bucket means waiting until one has leaked out. A token is not even looked at meanwhile, so
the one right guess among many is worth nothing. A success empties nothing: it may be the guesser's
own token.

Addresses do not wait for each other. While very many fail together, a single failure already
makes its own address wait; one that has not failed is let through whatever others do.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = "unknown"
_V6_BITS: Final = 64
"""One customer has at least a /64: its addresses count as one."""


_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """`most` failures of an address, `most_together` of all, in about `window_s` seconds.

    Memory is bounded by `addresses`: the one that failed longest ago is forgotten first.
    """

    most: int = 10
    most_together: int = 200
    window_s: float = 600.0
    addresses: int = 10_000

    def __post_init__(self) -> None:
        if min(self.most, self.most_together, self.addresses) < 1 or self.window_s <= 0:
            raise ValueError(f"limits are positive, got {self}")


@dataclass(frozen=True, slots=True)
class _Bucket:
    level: float
    at_s: float

    def now(self, now_s: float, leak: float) -> float:
        """Failures that have not leaked out; a clock that jumps back leaks nothing."""
        return max(0.0, self.level - max(0.0, now_s - self.at_s) * leak)

    def filled(self, now_s: float, leak: float, most: int) -> _Bucket:
        """One more; never above full: nobody waits longer than the limits say."""
        return _Bucket(min(self.now(now_s, leak) + 1, float(most)), max(now_s, self.at_s))


class Attempts:
    """Times are monotonic seconds. Not for several threads at once: the API's loop owns it."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.failures = 0
        """Since the start."""
        self.refusals = 0
        """That were not looked at, since the start."""
        self._all = _Bucket(0.0, -math.inf)
        self._by_address: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._by_address)

    def wait_s(self, address: str, now_s: float) -> float:
        """How long an address must wait before it may try; 0: it may. From `address_of`."""
        bucket = self._by_address.get(address)
        if bucket is None:
            return 0.0
        leak = self._leak
        level = bucket.now(now_s, leak)
        if level <= _ROUNDING:
            del self._by_address[address]
            return 0.0
        over = level - (0 if self.crowded(now_s) else self.limits.most - 1)
        return over / leak if over > _ROUNDING else 0.0

    def failed(self, address: str, now_s: float) -> None:
        """A wrong or used token, a wrong proof."""
        self.failures += 1
        before = self._by_address.pop(address, _Bucket(0.0, now_s))
        self._by_address[address] = before.filled(now_s, self._leak, self.limits.most)
        self._all = self._all.filled(now_s, self._leak_together, self.limits.most_together)
        while len(self._by_address) > self.limits.addresses:
            self._by_address.popitem(last=False)

    def refused(self) -> None:
        """One that came too early."""
        self.refusals += 1

    def crowded(self, now_s: float) -> bool:
        """Whether more fail together than people do by mistake."""
        level = self._all.now(now_s, self._leak_together)
        return level > self.limits.most_together - 1

    @property
    def _leak(self) -> float:
        return self.limits.most / self.limits.window_s

    @property
    def _leak_together(self) -> float:
        return self.limits.most_together / self.limits.window_s


def address_of(host: str | None) -> str:
    """What counts as one address: IPv4 as it is, IPv6 by its /64, and what is neither, by name."""
    if not host:
        return UNKNOWN
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _V6_BITS), strict=False))
