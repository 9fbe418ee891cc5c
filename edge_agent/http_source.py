"""Brings the missing frames of one payload over HTTP, on a thread of its own.

Frame lists first, if they are not here, then one request per run of missing frames, on one
connection: nothing waits a round trip per frame. What arrives is handed over frame by frame and
judged by whoever takes it; at most `AHEAD` frames lie between the two, so TCP holds the server
back. Every frame has to come within a bounded time, however slowly a server trickles.

Long because a connection, its thread and its limits are one thing.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from edge_agent.asking import Server, require_valid, trusting, words
from edge_agent.ranges import Run, accept, accept_lists, missing_run, retry_after_s
from edge_agent.urls import is_elsewhere
from protocol.errors import OutriderError, PeerError, Unavailable
from protocol.identifiers import Digest
from protocol.payload import FRAME_SIZE, LISTS_SUFFIX, HintEntry, frame_length

AHEAD: Final = 8
CONNECT_S: Final = 10.0
WHOLE: Final = 4
"""Timeouts within which a frame must have come whole."""
REQUEST_BYTES: Final = 256
"""Counted for each request beside its body: headers of both directions, roughly."""
TLS_BYTES: Final = 5000
"""Counted for each connection over TLS: certificates and keys."""
_MOST_REST_S: Final = 3600.0
_MAX_HEADERS: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Arrived:
    """A frame, or with `number` None all frame lists. Nothing of it has been checked."""

    number: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes: everything asked for was handed over, or `error` says why not."""

    error: OutriderError | None = None
    rest_s: float = 0.0
    """What the server asked for."""
    begun: Arrived | None = None
    """What had come of the frame that was cut."""


class Access(Protocol):
    """How the control plane is asked, which alone may know who this device is."""

    def server(self) -> Server | None:
        """Raises `OutriderError`."""

    def proof(self, payload: Digest) -> str:
        """Value of the Authorization header. Raises `OutriderError`."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one session brings. `have`: per frame 1 or 0; empty while the lists are not here."""

    url: str
    entry: HintEntry
    have: bytes
    own: bool
    """Whether the address is the control plane's: pinned authority, and the proof."""
    wait_s: float = 0.0
    """Before anything is asked."""
    begun: Arrived | None = None
    """The beginning of a frame that this address brought before: the rest of it is enough."""


class HttpSource:
    """Called from one thread only. `on_wake` is called on another when there is something."""

    def __init__(
        self,
        access: Access,
        now_ms: Callable[[], int],
        *,
        on_wake: Callable[[], None] = lambda: None,
        dev: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        """`now_ms` is trusted time. `timeout_s` is the longest silence of a server."""
        self._access = access
        self._now_ms = now_ms
        self._on_wake = on_wake
        self._dev = dev
        self._timeout_s = timeout_s
        self._session: _Session | None = None
        self._peer = ""

    @property
    def busy(self) -> bool:
        return self._session is not None

    @property
    def peer(self) -> str:
        """Address of the server that was reached last; empty before there is one."""
        if self._session is not None and self._session.peer:
            self._peer = self._session.peer
        return self._peer

    def begin(self, wish: Wish) -> None:
        """Bring it, instead of what was being brought."""
        self.stop()
        self._peer = ""
        self._session = session = _Session(
            wish, self._access, self._now_ms(), self._on_wake, self._dev, self._timeout_s
        )
        # A daemon: a server that does not answer keeps nobody from stopping.
        threading.Thread(target=session.run, name="http", daemon=True).start()

    def take(self) -> tuple[list[Arrived | Ended], int]:
        """What came since the last time, in order, and the bytes that travelled for it."""
        if self._session is None:
            return [], 0
        found, moved = self._session.take()
        self._peer = self._session.peer
        if found and isinstance(found[-1], Ended):
            self._session = None
        return found, moved

    def stop(self) -> int:
        """Nothing of it is wanted any more. Bytes that had travelled and were not told yet."""
        session, self._session = self._session, None
        if session is None:
            return 0
        self._peer = session.peer
        return session.stop()


class _Stopped(Exception):
    """Nobody wants what this thread brings."""


class _Session:
    """One thread's work, and the few frames between it and whoever takes them."""

    def __init__(
        self,
        wish: Wish,
        access: Access,
        now_ms: int,
        on_wake: Callable[[], None],
        dev: bool,
        timeout_s: float,
    ) -> None:
        self.peer = ""
        self._wish = wish
        self._access = access
        self._now_ms = now_ms
        self._on_wake = on_wake
        self._dev = dev
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._ready: deque[Arrived | Ended] = deque()
        self._moved = 0
        self._stopped = False
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._rest_s = 0.0
        self._begun = wish.begun

    # --- whoever takes ------------------------------------------------------------------------

    def take(self) -> tuple[list[Arrived | Ended], int]:
        with self._changed:
            found, moved = list(self._ready), self._moved
            self._ready.clear()
            self._moved = 0
            self._changed.notify_all()
        return found, moved

    def stop(self) -> int:
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
            if self._socket is not None:
                _hang_up(self._socket)
            return self._moved

    # --- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        error: OutriderError | None = None
        try:
            self._wait(self._wish.wait_s)
            self._bring()
        except _Stopped:
            pass
        except OutriderError as refused:
            error = refused
        except ssl.SSLCertVerificationError as refused:
            error = Unavailable("OUT-F107", refused.verify_message, place=self._wish.url)
        except (OSError, http.client.HTTPException, ValueError) as failed:
            error = Unavailable("OUT-F107", words(failed), place=self._wish.url)
        finally:
            self._close()
        self._give(Ended(error, self._rest_s, self._begun if error else None), always=True)

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)
            if self._stopped:
                raise _Stopped

    def _bring(self) -> None:
        wish, entry = self._wish, self._wish.entry
        have = wish.have
        if not have:
            length = 32 * entry.frames
            response = self._ask(f"{wish.url}{LISTS_SUFFIX}", {})
            accept_lists(response.status, _headers(response), length)
            self._give(Arrived(None, b"".join(self._read(response, length, []))))
            self._finish(response)
            have = bytes(entry.frames)
        while (run := missing_run(have, entry.size)) is not None:
            self._bring_run(run, self._begun)
            have = have[: run.first] + b"\1" * (run.last + 1 - run.first) + have[run.last + 1 :]

    def _bring_run(self, run: Run, begun: Arrived | None) -> None:
        came = [begun.data] if begun is not None and begun.number == run.first else []
        run = replace(run, begun=sum(map(len, came)))
        response = self._ask(self._wish.url, {"Range": run.header})
        accept(response.status, _headers(response), run)
        for number in range(run.first, run.last + 1):
            left = frame_length(run.size, number) - sum(map(len, came))
            try:
                self._read(response, left, came)
            finally:
                self._begun = Arrived(number, b"".join(came))
            whole, came, self._begun = self._begun, [], None
            self._give(whole)
        self._finish(response)

    def _ask(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        connection = self._connection or self._connect(url)
        said = {"Accept-Encoding": "identity", "User-Agent": "outrider", **headers}
        if self._wish.own:
            said["Authorization"] = self._access.proof(self._wish.entry.payload)
        self._count(REQUEST_BYTES)
        connection.request("GET", urlsplit(url).path, headers=said)
        response = connection.getresponse()
        if sum(len(name) + len(value) for name, value in response.getheaders()) > _MAX_HEADERS:
            raise PeerError("OUT-F108", "its headers are too long")
        self._rest_s = retry_after_s(_headers(response), _MOST_REST_S)
        return response

    def _connect(self, url: str) -> http.client.HTTPConnection:
        """A connection that is checked before anything is asked on it."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        kept = socket.create_connection((host, port), timeout=min(CONNECT_S, self._timeout_s))
        # Behind a handshake a request would wait for the other end's ACK.
        kept.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._can_be_hung_up_on(kept)
        self.peer = str(kept.getpeername()[0])
        if not (self._wish.own or self._dev or is_elsewhere(self.peer)):
            # A name may stand for any address, also for one of this device.
            raise PeerError("OUT-F108", f"{host} leads back to this device")
        kept.settimeout(self._timeout_s)
        if secure:
            kept = self._encrypt(kept, host)
        connection = http.client.HTTPConnection(host, port)
        # It must not connect again by itself: nobody would check that connection.
        connection.auto_open = 0
        connection.sock = kept
        connection.default_port = 443 if secure else 80  # for `Host:`
        self._connection = connection
        return connection

    def _encrypt(self, plain: socket.socket, host: str) -> ssl.SSLSocket:
        self._count(TLS_BYTES)
        if self._wish.own:
            server = self._access.server()
            context = trusting(server.authority if server is not None else None)
        else:
            context = trusting(None)
        # Wrapping empties the plain one, so what can be hung up on is this from here on, also while
        # they shake hands.
        secured = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        self._can_be_hung_up_on(secured)
        secured.do_handshake()
        whose = "the control plane's" if self._wish.own else "the mirror's"
        require_valid(secured, self._now_ms, whose)
        return secured

    def _can_be_hung_up_on(self, kept: socket.socket) -> None:
        with self._changed:
            self._socket = kept
            if self._stopped:
                raise _Stopped

    def _read(
        self, response: http.client.HTTPResponse, length: int, parts: list[bytes]
    ) -> list[bytes]:
        """`parts` with exactly so many bytes more of a body. Raises `Unavailable` OUT-F107 if they
        do not come; what came is in it."""
        left = length
        frames = -(-length // FRAME_SIZE)
        deadline_s = time.monotonic() + WHOLE * self._timeout_s * frames
        while left > 0:
            part = response.read1(left)
            if not part:
                raise Unavailable("OUT-F107", "it ended early", place=self._wish.url)
            self._count(len(part))
            parts.append(part)
            left -= len(part)
            if self._stopped:
                raise _Stopped
            if left > 0 and time.monotonic() > deadline_s:
                raise TimeoutError("it takes too long")
        return parts

    def _finish(self, response: http.client.HTTPResponse) -> None:
        """The connection can be used again if nothing of an answer is left in it."""
        left = response.length
        if left == 0:
            response.close()
        connection = self._connection
        if left != 0 or connection is None or connection.sock is None:
            self._close()

    def _close(self) -> None:
        with self._changed:
            connection, self._connection = self._connection, None
            kept, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        if kept is not None:
            kept.close()

    def _count(self, bytes_: int) -> None:
        with self._changed:
            self._moved += bytes_

    def _give(self, what: Arrived | Ended, *, always: bool = False) -> None:
        with self._changed:
            while len(self._ready) >= AHEAD and not always and not self._stopped:
                self._changed.wait()
            if self._stopped:
                if always:
                    return
                raise _Stopped
            self._ready.append(what)
        self._on_wake()


def _hang_up(kept: Any) -> None:
    """End a connection under the thread that reads it. Of TLS the outside only: the reading
    thread must find its end, not its object gone."""
    try:
        socket.socket.shutdown(kept, socket.SHUT_RDWR)
    except OSError:
        return  # it was over already


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value.strip() for name, value in response.getheaders()}
