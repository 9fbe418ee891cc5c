"""How the payload of a fetch travels: over the broker, or over HTTP from one of its addresses.

One way at a time, for one payload, and kept until the payload is complete or the way fails. What
a way brought stays, whichever comes next: frames are frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from edge_agent.budget import Permits
from edge_agent.download import Download
from edge_agent.http_source import WHOLE, Access, Arrived, Ended, Wish
from edge_agent.network import interface_towards
from edge_agent.urls import CONTROL_PLANE, url_of
from edge_agent.ways import MQTT, Way, Ways
from protocol.errors import OutriderError, Unavailable
from protocol.payload import FRAME_SIZE, HintEntry


class Source(Protocol):
    """What `HttpSource` does."""

    @property
    def busy(self) -> bool: ...
    @property
    def peer(self) -> str: ...
    def begin(self, wish: Wish) -> None: ...
    def take(self) -> tuple[list[Arrived | Ended], int]: ...
    def stop(self) -> int: ...


class Bringing:
    """Called from one thread only. Times are monotonic seconds."""

    def __init__(
        self,
        ways: Ways,
        source: Source | None,
        access: Access | None,
        rng: random.Random,
        *,
        dev: bool = False,
        timeout_s: float = 30.0,
        network: Callable[[str], str] = interface_towards,
    ) -> None:
        """Without a source everything comes over the broker. `network` names the interface that
        packets to an address leave by."""
        self._ways = ways
        self._source = source
        self._access = access
        self._rng = rng
        self._dev = dev
        self._timeout_s = timeout_s
        self._network = network
        self._way: Way | None = None
        self._of: Download | None = None
        self._heard_at = 0.0

    # --- what could be ------------------------------------------------------------------------

    def possible(self, entry: HintEntry) -> bool:
        """Whether there is any way at all that a payload could come."""
        return bool(self._ways.open(self._urls(entry)))

    def open(self, entry: HintEntry, link_up: bool, now: float) -> bool:
        """Whether something may be tried for it now."""
        return self._ways.choose(self._urls(entry), link_up, now) is not None

    def soon(self, entry: HintEntry, now: float) -> bool:
        """Whether waiting for one of its addresses is worth it."""
        return self._ways.soon_s(self._urls(entry), now) <= self._timeout_s

    # --- what is ------------------------------------------------------------------------------

    def over_http(self, download: Download | None) -> bool:
        return download is not None and download is self._of and self._way not in (None, MQTT)

    def network(self, download: Download | None) -> str | None:
        """Interface that its frames come by, where they come over HTTP."""
        if self._source is None or not self._source.peer or not self.over_http(download):
            return None
        return self._network(self._source.peer)

    def rest(self, permits: Permits) -> None:
        """Ask for nothing more, for now."""
        if self._source is not None and self._source.busy:
            permits.moved_bytes(self._source.stop(), self.network(self._of))

    def take(self, download: Download, permits: Permits, now: float) -> list[Arrived | Ended]:
        """What came over HTTP. After an `Ended` with an error, its way rests."""
        if self._source is None or not self._source.busy:
            return []
        if download is not self._of:
            self.rest(permits)
            return []
        found, moved = self._source.take()
        permits.moved_bytes(moved, self.network(download))
        if found:
            self._heard_at = now
        elif now - self._heard_at > self._longest_s(download):
            self.rest(permits)
            found = [Ended(Unavailable("OUT-F107", "nothing comes"))]
        if found and isinstance(end := found[-1], Ended) and end.error is not None:
            self._failed(now, end.rest_s)
        return found

    def worked(self) -> None:
        """What came was right."""
        if self._way is not None:
            self._ways.worked(self._way)

    def wrong(self, permits: Permits, now: float) -> None:
        """What came was not."""
        self.rest(permits)
        if self._way is not None:
            self._ways.spoilt(self._way)
            self._failed(now)

    def elsewhere(self, download: Download, now: float) -> bool:
        """The broker is silent: whether there is an address to turn to."""
        way = self._ways.choose(self._urls(download.entry), False, now)
        if way is None or download is not self._of:
            return False
        self._ways.failed(MQTT, now, self._rng.random())
        self._way = way
        return True

    def go_on(self, download: Download, link_up: bool, now: float) -> None:
        """Choose a way where there is none, and have what is missing come on it."""
        entry, before = download.entry, self._way
        urls = self._urls(entry)
        if download is not self._of:
            self._of, self._way = download, None
        if self._way == MQTT and not link_up:
            self._way = self._ways.choose(urls, link_up, now) or MQTT
        if self._way is not None and self._way != MQTT and self._way.url not in urls:
            self._way = None
        if self._way is None:
            self._way = self._ways.choose(urls, link_up, now)
            if self._way == MQTT and before != MQTT:
                download.again()
        if self._way is not None and self._way != MQTT:
            self._begin(download, self._way, now)

    def _begin(self, download: Download, way: Way, now: float) -> None:
        url = self._url(way.url, download.entry)
        if self._source is None or self._source.busy or url is None:
            return
        self._heard_at = now
        own = way.url == CONTROL_PLANE
        self._source.begin(Wish(url, download.entry, download.have, own))

    def _failed(self, now: float, at_least_s: float = 0.0) -> None:
        if self._way is not None:
            self._ways.failed(self._way, now, self._rng.random(), at_least_s)
        self._way = None

    def _longest_s(self, download: Download) -> float:
        """Before something must have come. Lists come as one, however many there are."""
        frames = 1 if download.have else -(-32 * download.entry.frames // FRAME_SIZE)
        return (WHOLE * frames + 1) * self._timeout_s

    def _urls(self, entry: HintEntry) -> Sequence[str]:
        if self._source is None:
            return ()
        return [prefix for prefix in entry.urls if self._url(prefix, entry) is not None]

    def _url(self, prefix: str, entry: HintEntry) -> str | None:
        control_plane = ""
        if prefix == CONTROL_PLANE and self._access is not None:
            try:
                server = self._access.server()
            except OutriderError:
                server = None  # its identity cannot be read; others say so
            control_plane = server.url if server is not None else ""
        return url_of(prefix, entry.payload, control_plane, self._dev)
