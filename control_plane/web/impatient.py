"""HTTP/1.1 for clients that may be slow on purpose: whoever keeps us waiting is cut off.

uvicorn's protocol waits for ever for the rest of a request. Here its head must be complete soon
after the connection was made or the last answer was given, however the bytes trickle in; and
while a body is awaited, bytes must keep coming.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 10.0
BODY_S: Final = 30.0
"""Without a single byte."""
HANDSHAKE_S: Final = 10.0
GOODBYE_S: Final = 2.0
"""For the other side's part of closing TLS; without it the connection is closed all the same."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose TLS servers do not wait long either."""

    async def create_server(self, *given: Any, **options: Any) -> Any:
        if options.get("ssl") is not None:
            options |= {
                "ssl_handshake_timeout": HANDSHAKE_S,
                "ssl_shutdown_timeout": GOODBYE_S,
            }
        return await super().create_server(*given, **options)


class Impatient(H11Protocol):
    """uvicorn's protocol with deadlines."""

    head_s = HEAD_S
    body_s = BODY_S

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._since_s = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # As uvicorn declares it: it never gets another kind of transport.
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self._since_s = self.loop.time()
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        self._unwatch()
        if self.transport.is_closing():
            return
        # Declared as if there always was one; before the first request there is none.
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self._deadline = self.loop.call_at(self._since_s + self.head_s, self._cut_off)
        elif cycle.more_body:
            self._deadline = self.loop.call_later(self.body_s, self._cut_off)

    def _cut_off(self) -> None:
        if self.flow.read_paused:
            # We are the slow one: nothing is read while the application is behind.
            self._deadline = self.loop.call_later(self.body_s, self._cut_off)
        else:
            self.transport.abort()

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
