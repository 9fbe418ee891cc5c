"""What a scene sent: bytes that left the control plane, and payloads that devices fetched, each
full and as deltas. From the counters of both, not from the sizes of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocol.wording import size

FETCHED_FULL: Final = "fetched full bytes"
FETCHED_DELTA: Final = "fetched delta bytes"
"""Counters in the state that a device reports."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Of payloads without a base, and of those that need one."""

    full: int = 0
    delta: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.full + other.full, self.delta + other.delta)

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(self.full - other.full, self.delta - other.delta)

    def __str__(self) -> str:
        """Nothing for none."""
        parts = ((self.full, "full"), (self.delta, "delta"))
        return ", ".join(f"{size(count)} {what}" for count, what in parts if count)


@dataclass(frozen=True, slots=True)
class Moved:
    """`sent` by the control plane since it started, `fetched` by all devices since they did."""

    sent: Bytes = Bytes()
    fetched: Bytes = Bytes()


def moved(payloads: Iterable[Mapping[str, Any]], counters: Iterable[Mapping[str, int]]) -> Moved:
    """From the API's list of payloads, and the counters of each device."""
    sent = fetched = Bytes()
    for each in payloads:
        count = int(each["published_bytes"]) + int(each["served_bytes"])
        sent += Bytes(count, 0) if each["base"] is None else Bytes(0, count)
    for each in counters:
        fetched += Bytes(each.get(FETCHED_FULL, 0), each.get(FETCHED_DELTA, 0))
    return Moved(sent, fetched)


def sentence(sent: Bytes, fetched: Bytes) -> str:
    """ "340 kB full, 312 kB delta; fetched 2.50 MB delta"; empty if nothing moved."""
    parts = [str(sent)] if str(sent) else []
    if str(fetched):
        parts.append(f"fetched {fetched}")
    return "; ".join(parts)
