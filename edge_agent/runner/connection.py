"""One caller's connection, and all of them: what arrives becomes requests, answers go back.

Nothing a caller does or leaves undone keeps more than it may: its time, its bytes and its number
are bounded.
"""

from __future__ import annotations

import asyncio
import select
import time
from http import HTTPStatus
from typing import Final, Literal, cast

from edge_agent.runner.http11 import Known, Reader, Request
from edge_agent.runner.server import Answer, Application, refusal
from edge_agent.runner.views import Door
from protocol.errors import InvalidRequest, OutriderError, Unavailable

KEEP_ALIVE_S: Final = 75.0
HEAD_S: Final = 10.0
BODY_S: Final = 30.0
SLOWEST: Final = 64 * 1024
"""Bytes per second: a body may take longer than `BODY_S` if it comes faster than this."""
WRITE_S: Final = 60.0
LINGER_S: Final = 2.0
"""After a refusal that ends a connection, what still comes is dropped for so long: closed at once,
the connection would be reset, and the caller might never see why."""
SWEEP_S: Final = 0.5
BUFFER: Final = 64 * 1024

MAX_CONNECTIONS: Final = 512
MAX_FROM_NETWORK: Final = 128
"""So that nobody elsewhere can keep this device's own applications out."""
MAX_TURNED_AWAY: Final = 64
"""So many more are told that there are too many; the others are just closed."""
MAX_HELD: Final = 64 * 1024 * 1024
"""Bytes of requests that are still arriving, of all connections together."""

Phase = Literal["reading", "lingering"]


class Callers:
    """All connections of a runner."""

    def __init__(self, application: Application, loop: asyncio.AbstractEventLoop) -> None:
        self.application = application
        self.connections: set[Connection] = set()
        self.held = 0
        self.loop = loop
        self.heads: dict[bytes, Known] = {}
        self.buffer = memoryview(bytearray(BUFFER))
        """What arrives, before it is taken from here in the same turn. One for all: asyncio would
        allocate one for every read, from the system, as this process's `malloc` is set up."""
        self._sweeping = False

    @property
    def busy(self) -> int:
        """Connections on which a request has begun to arrive, or an answer has not left."""
        return sum(not connection.idle for connection in self.connections)

    def full(self, door: Door) -> bool:
        if len(self.connections) >= MAX_CONNECTIONS:
            return True
        if door != "network":
            return False
        return sum(each.door == "network" for each in self.connections) >= MAX_FROM_NETWORK

    def add(self, connection: Connection) -> None:
        self.connections.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """End what is overdue. One timer for all: one for each would cost more than an answer."""
        now_s = time.monotonic()
        for connection in tuple(self.connections):
            if connection.deadline_s <= now_s:
                connection.expire()
        # A device without callers sleeps.
        self._sweeping = bool(self.connections)
        if self._sweeping:
            self.loop.call_later(SWEEP_S, self._sweep)

    def part(self) -> None:
        """Close every connection on which nothing has begun, not even in the system's buffers."""
        poll = select.poll()
        idle = {each.fileno(): each for each in self.connections if each.idle}
        for descriptor in idle:
            poll.register(descriptor, select.POLLIN)
        arrived = {descriptor for descriptor, _ in poll.poll(0)}
        for descriptor, connection in idle.items():
            if descriptor not in arrived:
                connection.leave()


class Connection(asyncio.BufferedProtocol):
    def __init__(self, callers: Callers, door: Door) -> None:
        self.door = door
        self.deadline_s = 0.0
        self._callers = callers
        self._application = callers.application
        self._buffer = callers.buffer
        self._reader = Reader(callers.heads)
        self._phase: Phase = "reading"
        self._turned_away = False
        self._paused = False
        self._queued = False
        """More requests are here than have been answered."""
        self._begun = False
        """The head of the next request is arriving, and its deadline runs."""
        self._held = 0
        self._admitted: Request | None = None
        self._body_since_s = 0.0

    @property
    def idle(self) -> bool:
        return (
            self._phase == "reading"
            and self._reader.state == "idle"
            and not self._transport.get_write_buffer_size()
        )

    def fileno(self) -> int:
        return int(self._transport.get_extra_info("socket").fileno())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # a stream, as for every socket here
        callers = self._callers
        if len(callers.connections) >= MAX_CONNECTIONS + MAX_TURNED_AWAY:
            self._transport.abort()
            return
        self._turned_away = callers.full(self.door)
        callers.add(self)
        self.deadline_s = time.monotonic() + (HEAD_S if self._turned_away else KEEP_ALIVE_S)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._callers.connections.discard(self)
        self._reader.close()
        self._hold(0)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._phase == "lingering":
            return
        if self._turned_away:
            self._refuse(Unavailable("OUT-I114", "too many connections at once"))
            return
        data = bytes(self._buffer[:nbytes])
        if self._paused or self._queued:
            self._reader.feed(data)
        elif (request := self._reader.whole(data)) is not None:
            self._answer(request)
        else:
            self._reader.feed(data)
            self._turn()

    def pause_writing(self) -> None:
        # A caller that does not read its answers is not asked for further requests.
        self._paused = True
        self._flow()
        self.deadline_s = time.monotonic() + WRITE_S

    def resume_writing(self) -> None:
        self._paused = False
        if self._phase == "reading":
            self.deadline_s = time.monotonic() + KEEP_ALIVE_S
            self._turn()
            self._flow()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._phase == "lingering" or self._paused:
            self._transport.abort()
        elif self._reader.state == "idle":
            self._transport.close()
        else:
            # Nobody's fault may be retried by machines: 408 tells them to ask again.
            self._refuse(InvalidRequest("OUT-I115", "the request took too long to arrive"))

    def leave(self) -> None:
        self._transport.close()

    def _turn(self) -> None:
        """Answer the next request if it is here."""
        if self._phase != "reading" or self._paused or self._transport.is_closing():
            return
        reader = self._reader
        try:
            request = reader.next()
            if request is None:
                self._await_more()
                return
        except OutriderError as error:
            self._refuse(error)
            return
        if self._held:
            self._hold(0)
        self._admitted = None
        self._begun = False
        self._answer(request)
        if reader.state != "idle" and not self._queued:
            # Others first: a caller that sends many requests at once waits its turn, and nothing
            # more is read from it meanwhile.
            self._queued = True
            self._flow()
            self._callers.loop.call_soon(self._next_turn)

    def _answer(self, request: Request) -> None:
        answer = self._application.answer(request, self.door)
        self.deadline_s = time.monotonic() + KEEP_ALIVE_S
        self._write(answer, head_only=request.method == "HEAD", last=not request.keep_alive)

    def _next_turn(self) -> None:
        self._queued = False
        self._turn()
        self._flow()

    def _flow(self) -> None:
        if self._transport.is_closing():
            return
        if self._paused or self._queued:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _await_more(self) -> None:
        """Raises `InvalidRequest`, `Unavailable` where this request must not go on."""
        reader, now_s = self._reader, time.monotonic()
        coming = reader.coming
        if coming is None:
            if reader.state == "head" and not self._begun:
                self._begun = True
                self.deadline_s = now_s + HEAD_S
            return
        if coming is not self._admitted:
            # Before its body is kept.
            self._application.admit(coming, self.door)
            self._admitted, self._body_since_s = coming, now_s
            if reader.wants_continue:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._hold(reader.held)
        if self._callers.held > MAX_HELD:
            raise Unavailable("OUT-I114", "too many bytes of requests at once")
        self.deadline_s = self._body_since_s + BODY_S + reader.received / SLOWEST

    def _hold(self, held: int) -> None:
        self._callers.held += held - self._held
        self._held = held

    def _refuse(self, error: OutriderError) -> None:
        """An answer after which nothing can follow, whatever still comes."""
        answer = refusal(error)
        answer.last = True
        self._hold(0)
        self._reader.close()
        self._write(answer, head_only=False, last=True)

    def _write(self, answer: Answer, *, head_only: bool, last: bool) -> None:
        # A body that was too large may not have been read to its end.
        last = last or answer.last or self._application.draining
        body, start = answer.body, _START[answer.status]
        more = b"\r\nconnection: close" if last else b""
        for field in answer.fields:
            more += b"\r\n%b: %b" % field
        said = (start, answer.content_type, len(body), more, b"" if head_only else body)
        self._transport.write(b"%b%b\r\ncontent-length: %d%b\r\n\r\n%b" % said)
        if not last:
            return
        self._phase = "lingering"
        self.deadline_s = time.monotonic() + LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()


_START: Final[dict[int, bytes]] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: ".encode()
    for status in HTTPStatus
}
