"""Counts what travels, durably, and says what may still be fetched: the shell of `transfer`.

On disk is never less than what was spent: room is written down before it is used, so that a crash
loop cannot spend a day's budget many times.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Final, Protocol

from edge_agent import durable, transfer
from edge_agent.network import UNKNOWN
from edge_agent.transfer import Held, Spent, Terms
from protocol.codec import decode, encode
from protocol.device import Settings
from protocol.errors import PeerError
from protocol.identifiers import Count

log = logging.getLogger(__name__)

AHEAD_BYTES: Final = 256 * 1024
"""Written down before it is spent: what a kill may count too much."""
_MAX_FILE: Final = 16 * 1024


class Permits(Protocol):
    """What a fetcher asks before it asks for bytes."""

    def held(self, needed_bytes: int, network: str | None = None, /) -> Held | None:
        """Why so many more bytes may not come now; `network` None: that of the link."""

    def moved_bytes(self, count: int, network: str | None = None, /) -> None:
        """They did, beside the link."""


class Unlimited:
    def held(self, _: int, __: str | None = None, /) -> Held | None:
        return None

    def moved_bytes(self, _: int, __: str | None = None, /) -> None:
        """Nobody counts."""


@dataclass(frozen=True, slots=True)
class _Kept:
    day: str
    bytes: dict[str, Count]


class Budget:
    """Used by the supervisor's thread. `local_now` is trusted time in the device's time zone."""

    def __init__(self, path: Path, terms: Terms, local_now: Callable[[], datetime]) -> None:
        self._path = path
        self._terms = terms
        self._local_now = local_now
        self._spent = _load(path)
        self._written = dict(self._spent.by_network)
        self._network = UNKNOWN

    def follow(self, settings: Settings) -> None:
        """The device document's word, which may come and go."""
        hours = settings.transfer_windows
        self._terms = replace(self._terms, bytes_per_day=settings.bytes_per_day, hours=hours)

    def on_network(self, name: str) -> None:
        self._network = name

    def moved(self, topic: str, data: bytes) -> None:
        """A message came or went."""
        self.moved_bytes(len(topic) + len(data) + transfer.MESSAGE_BYTES)

    def moved_bytes(self, count: int, network: str | None = None, /) -> None:
        """Bytes came or went by `network`; None: that of the link."""
        network = network or self._network
        rule = self._terms.rule(network)
        if not count or (rule is not None and rule.bytes_per_day is None):
            return
        today = self._local_now().date()
        before = self._spent
        self._spent = before.plus(network, count, today)
        if self._spent.day != before.day:
            self._written = {}
        if self._spent.by_network[network] > self._written.get(network, 0):
            self._write(network)

    def held(self, needed_bytes: int, network: str | None = None, /) -> Held | None:
        return transfer.held(
            self._terms, self._spent, network or self._network, needed_bytes, self._local_now()
        )

    def _write(self, network: str) -> None:
        self._written = dict(self._spent.by_network)
        self._written[network] += AHEAD_BYTES
        kept = _Kept(self._spent.day.isoformat(), self._written)
        try:
            durable.replace(self._path, encode(kept))
        except OSError as error:
            # Not knowing what was spent must not keep a device from its models.
            log.warning("bytes of today cannot be kept: %s", error)


def _load(path: Path) -> Spent:
    try:
        kept = decode(path.read_bytes()[:_MAX_FILE], _Kept, limit=_MAX_FILE)
        return Spent(date.fromisoformat(kept.day), kept.bytes)
    except FileNotFoundError:
        return Spent()
    except (OSError, PeerError, ValueError) as error:
        log.warning("bytes of today are not known: %s", error)
        return Spent()
