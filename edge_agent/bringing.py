"""How the payload of a fetch travels: over the broker, or over HTTP from one of its addresses.

One way at a time, for one payload, and kept until the payload is complete or the way fails. What
a way brought stays, whichever comes next: frames are frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.budget import Permits
from edge_agent.download import Download
from edge_agent.http_source import WHOLE, Access, Arrived, Ended, Wish
from edge_agent.network import interface_towards
from edge_agent.urls import CONTROL_PLANE, url_of
from edge_agent.ways import MQTT, Way, Ways
from protocol.errors import OutriderError, PeerError, Unavailable
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


@dataclass(frozen=True, slots=True)
class Brought:
    """What came of one look at the ways of a payload."""

    fresh_bytes: int = 0
    """Of lists and frames that were not here before."""
    problems: tuple[tuple[str, str], ...] = ()
    """Code and detail of each."""
    stuck: bool = False
    """No way can be tried for long."""


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
        self._wait_s = 0.0
        self._begun: tuple[Way, Arrived] | None = None
        """Of the download that is coming: who began a frame, and what of it came."""

    # --- what could be ------------------------------------------------------------------------

    def possible(self, entry: HintEntry) -> bool:
        """Whether there is any way at all that a payload could come."""
        return bool(self._ways.open(self._urls(entry)))

    def open(self, entry: HintEntry, link_up: bool, now: float) -> bool:
        """Whether something may be tried for it now."""
        return self._ways.choose(self._urls(entry), link_up, now) is not None

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

    def bring(self, download: Download, permits: Permits, link_up: bool, now: float) -> Brought:
        """Put what came over HTTP in its place, and have what is missing come on the way that is
        best now. Raises `OSError`."""
        fresh, problems = 0, []
        for item in self._take(download, permits, now):
            if isinstance(item, Ended):
                if item.error is not None:
                    problems.append((item.error.code, str(item.error)))
                    self._remember(item)
                    self._failed(now, item.rest_s)
                continue
            try:
                new = _put(download, item)
            except PeerError as error:
                self._wrong(permits, now)
                return Brought(fresh, (*problems, (error.code, error.why)))
            if new:
                self._worked()
                fresh += len(item.data)
        stuck = False
        if not download.complete:
            stuck = not self._go_on(download, link_up, now)
        return Brought(fresh, tuple(problems), stuck)

    def elsewhere(self, download: Download, now: float) -> bool:
        """The broker is silent: whether there is an address to turn to."""
        way = self._ways.choose(self._urls(download.entry), False, now)
        if way is None or download is not self._of:
            return False
        self._ways.failed(MQTT, now, self._rng.random())
        self._way = way
        return True

    # --- one way ------------------------------------------------------------------------------

    def _take(self, download: Download, permits: Permits, now: float) -> list[Arrived | Ended]:
        """What came over HTTP."""
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
        return found

    def _worked(self) -> None:
        """What came was right."""
        if self._way is not None:
            self._ways.worked(self._way)

    def _wrong(self, permits: Permits, now: float) -> None:
        """What came was not."""
        self.rest(permits)
        if self._way is not None:
            self._ways.spoilt(self._way)
            self._failed(now)

    def _go_on(self, download: Download, link_up: bool, now: float) -> bool:
        """Choose a way where there is none, and have what is missing come on it; False where none
        can be tried, nor soon."""
        urls, before = self._urls(download.entry), self._way
        if self._ways.choose(urls, link_up, now) is None:
            # Waiting for one of its addresses may be worth it.
            return self._ways.soon_s(urls, now) <= self._timeout_s
        if download is not self._of:
            self._of, self._way, self._begun = download, None, None
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
        return True

    def _begin(self, download: Download, way: Way, now: float) -> None:
        url = self._url(way.url, download.entry)
        if self._source is None or self._source.busy or url is None:
            return
        self._heard_at = now
        own = way.url == CONTROL_PLANE
        wait_s, self._wait_s = self._wait_s, 0.0
        begun = self._begun[1] if self._begun is not None and self._begun[0] == way else None
        self._begun = None
        self._source.begin(Wish(url, download.entry, download.have, own, wait_s, begun))

    def _remember(self, end: Ended) -> None:
        """What came of a frame may go on from the same address: another one need not have the
        same in mind."""
        fair = end.error is not None and end.error.code == "OUT-F107"
        begun = (self._way, end.begun) if self._way and end.begun and fair else None
        self._begun = begun

    def _failed(self, now: float, at_least_s: float = 0.0) -> None:
        if self._way is not None:
            self._wait_s = self._ways.failed(self._way, now, self._rng.random(), at_least_s)
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


def _put(download: Download, item: Arrived) -> bool:
    """Whether it was new. Raises `PeerError` OUT-F102, OUT-F111 where it is wrong; `OSError`."""
    if item.number is None:
        return download.take_lists(item.data)
    return download.take_frame(item.number, item.data)
