"""A listening socket that slow or greedy clients cannot fill.

Every connection costs a file descriptor, also one that never says a word. So there are at most
so many, and of one address at most an eighth of them; what comes above is closed at once.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from control_plane.web.attempts import address_of
from protocol.errors import Unavailable

MOST: Final = 512
"""Half of the file descriptors that a process usually may have."""
MOST_OF_ONE: Final = 64
BACKLOG: Final = 128


def listen(host: str, port: int) -> Listener:
    """A listening socket, so that a taken port is told before anything has started.

    Raises `Unavailable` (OUT-N106).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, since asyncio sends small answers at once only where it can see that it is TCP.
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable("OUT-N106", f"{host}:{port}: {error.strerror}") from error
    return listener


class Listener(socket.socket):
    """Accepts at most `most` connections at a time, of one address at most `most_of_one`."""

    def __init__(self, *family_and_more: Any) -> None:
        super().__init__(*family_and_more)
        self.most = MOST
        self.most_of_one = MOST_OF_ONE
        self.turned_away = 0
        """Connections that were closed at once, since the start."""
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def accept(self) -> tuple[Accepted, Any]:
        """The next connection. Raises `ConnectionAbortedError` where it was one too many."""
        connection, peer = super().accept()
        address = address_of(peer[0])
        with self._lock:
            full = self._open.total() >= self.most or self._open[address] >= self.most_of_one
            if full:
                self.turned_away += 1
            else:
                self._open[address] += 1
        if full:
            connection.close()
            # Whoever serves looks at the socket again: the next one in line gets its turn.
            raise ConnectionAbortedError("too many connections")
        return Accepted(connection, lambda: self._ended(address)), peer

    def _ended(self, address: str) -> None:
        with self._lock:
            self._open[address] -= 1
            if self._open[address] <= 0:
                del self._open[address]


class Accepted(socket.socket):
    """Takes over a connection; calls `ended` once when it is closed."""

    def __init__(self, connection: socket.socket, ended: Callable[[], None]) -> None:
        super().__init__(
            connection.family, connection.type, connection.proto, fileno=connection.detach()
        )
        self._ended: Callable[[], None] | None = ended

    def close(self) -> None:
        super().close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
