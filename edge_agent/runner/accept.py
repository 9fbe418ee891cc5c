"""uvicorn in a thread of its own: started at once, accepting from `promote` to `drain`."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Final

import uvicorn

from edge_agent.runner.server import Application

DRAIN_AT_LEAST_S: Final = 0.3
DRAIN_AT_MOST_S: Final = 5.0
KEEP_ALIVE_S: Final = 75
MAX_CONNECTIONS: Final = 512
TURN_S: Final = 0.02


class HttpThread:
    """All methods may be called from any thread but its own."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._server: uvicorn.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._thread.start()
        self.drained = threading.Event()

    def accept(self, listener: int) -> None:
        """Begin to accept on a listening socket, given by descriptor, that others share."""
        asyncio.run_coroutine_threadsafe(self._accept(listener), self._loop).result()

    def drain(self) -> None:
        """Stop accepting; `drained` is set once every connection has had its last answer."""
        asyncio.run_coroutine_threadsafe(self._drain(), self._loop)

    async def _accept(self, listener: int) -> None:
        config = uvicorn.Config(
            self._application,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            limit_concurrency=MAX_CONNECTIONS,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # Not `serve`: its shutdown would close idle connections under clients that are about to
        # send. And the socket is made from the number: `socket.dup` would switch O_NONBLOCK off
        # for the runner that still accepts on the same open file.
        await server.startup(sockets=[socket.socket(fileno=listener)])
        self._server = server

    async def _drain(self) -> None:
        self._application.draining = True
        server = self._server
        if server is not None:
            for listening in server.servers:
                listening.close()
            started = time.monotonic()
            state = server.server_state
            # uvicorn tells nobody when a connection ends, so it is looked at again and again.
            while not _drained(  # noqa: ASYNC110 - there is no event to wait for
                time.monotonic() - started, len(state.connections), len(state.tasks)
            ):
                await asyncio.sleep(TURN_S)
            for connection in list(state.connections):
                connection.shutdown()
        self.drained.set()


def _drained(spent_s: float, connections: int, answering: int) -> bool:
    """A connection that was idle all the time is cut at the end, a request in work never is."""
    if spent_s < DRAIN_AT_LEAST_S:
        return False
    return not connections or (spent_s >= DRAIN_AT_MOST_S and not answering)
