"""The event loop in a thread of its own: started at once, accepting from `promote` to `park` or
`drain`."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from edge_agent.runner.connection import LINGER_S, Callers, Connection
from edge_agent.runner.server import Application
from edge_agent.runner.views import Door

DRAIN_AT_LEAST_S: Final = 0.3
DRAIN_AT_MOST_S: Final = 5.0
BACKLOG: Final = 256
TURN_S: Final = 0.02
STOPS_S: Final = 0.5


class HttpThread:
    """All methods may be called from any thread but its own."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._loop = asyncio.new_event_loop()
        self._callers = Callers(application, self._loop)
        self._servers: list[asyncio.Server] = []
        self._leaving: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._thread.start()
        self.drained = threading.Event()

    def accept(self, listeners: Mapping[Door, int]) -> None:
        """Begin to accept, or accept again, on listening sockets that others share.

        The descriptors are this object's from now on.
        """
        asyncio.run_coroutine_threadsafe(self._accept(listeners), self._loop).result()

    def pause(self) -> None:
        """Stop accepting and give every connection its last answer, until `accept` is called."""
        self._stop(last=False)

    def drain(self) -> None:
        """Stop accepting; `drained` is set once every connection has had its last answer."""
        self._stop(last=True)

    def _stop(self, *, last: bool) -> None:
        self._application.draining = True  # at once: the loop may be busy with a model
        leaving = asyncio.run_coroutine_threadsafe(self._leave(last=last), self._loop)
        # Whoever connects after this has returned is answered by the next runner. A model that
        # runs for longer keeps the loop from accepting as well, and the supervisor waits here.
        with suppress(TimeoutError):
            leaving.result(STOPS_S)

    async def _accept(self, listeners: Mapping[Door, int]) -> None:
        async with self._changing:
            if self._leaving is not None:
                # Connections that are still open are ordinary ones again.
                self._leaving.cancel()
            self._application.draining = False
            for door, descriptor in listeners.items():
                # Made from the number: `socket.dup` would switch O_NONBLOCK off for the runner that
                # still accepts on the same open file.
                listening = socket.socket(fileno=descriptor)
                server = await self._loop.create_server(
                    lambda door=door: Connection(self._callers, door),  # type: ignore[misc] # one per door
                    sock=listening,
                    backlog=BACKLOG,
                )
                self._servers.append(server)

    async def _leave(self, *, last: bool) -> None:
        async with self._changing:
            servers, self._servers = self._servers, []
            for server in servers:
                for listening in server.sockets:
                    self._loop.remove_reader(listening.fileno())
            if self._leaving is not None:
                self._leaving.cancel()
            # What was accepted a moment ago is a connection in the next turn. Were its server
            # closed by then, asyncio would drop it, and its caller would be reset.
            await asyncio.sleep(0)
            for server in servers:
                server.close()
            self._leaving = asyncio.create_task(self._empty(last=last))

    async def _empty(self, *, last: bool) -> None:
        started = time.monotonic()
        callers = self._callers
        # There is no event to wait for: what ends a drain is as much time as it is connections.
        while not _drained(  # noqa: ASYNC110 - as said
            time.monotonic() - started, len(callers.connections), callers.busy
        ):
            await asyncio.sleep(TURN_S)
        callers.part()
        # What arrived in that moment has its answer in the next turn.
        while callers.busy and time.monotonic() - started < DRAIN_AT_MOST_S + LINGER_S:  # noqa: ASYNC110 - as above
            await asyncio.sleep(TURN_S)
        if last:
            self.drained.set()


def _drained(spent_s: float, connections: int, busy: int) -> bool:
    """A connection that was idle all the time is cut at the end, a request in work never is."""
    if spent_s < DRAIN_AT_LEAST_S:
        return False
    return not connections or (spent_s >= DRAIN_AT_MOST_S and not busy)
