"""What the agent tells whoever started it (systemd's sd_notify): ready, alive, stopping, and how.

A sign of life is sent only by the supervisor's loop, between two pieces of its work: a loop that
hangs is silent, and is started again. Without NOTIFY_SOCKET nothing is sent.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

log = logging.getLogger(__name__)

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MAX_STATUS: Final = 200


class Notify:
    """Used by the supervisor's thread. What cannot be sent is logged once: the models go on."""

    def __init__(
        self,
        address: str = "",
        watchdog_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`address`: a path, or a name in the abstract name space with `@` in front; empty: nobody
        listens. `watchdog_s`: silence after which the agent is started again; 0: never."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every_s = watchdog_s / 4 if watchdog_s > 0 else None
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._alive_s: float | None = None
        self._said = ""
        self._ready = False
        self._failed = False

    @property
    def patience_s(self) -> float | None:
        """The longest time that the loop may wait for work; None: as long as it likes."""
        return self._every_s

    def alive(self) -> None:
        """The loop has got on. Sent as often as the watchdog needs, at most."""
        if self._every_s is None:
            return
        now_s = self._monotonic()
        if self._alive_s is None or now_s - self._alive_s >= self._every_s / 2:
            self._alive_s = now_s
            self._send("WATCHDOG=1")

    def turned(self, words: str) -> None:
        """A turn has ended; `words` say in one line how the device is. The first means ready."""
        self.alive()
        said = " ".join(words.split())[:_MAX_STATUS]
        if not self._ready:
            self._ready = True
            self._send(f"READY=1\nSTATUS={said}")
        elif said != self._said:
            self._send(f"STATUS={said}")
        self._said = said

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=answers what it has, then ends")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("nobody hears how the agent is: %s", error)
            self._failed = True


def from_environment(environment: MutableMapping[str, str], pid: int) -> Notify:
    """As systemd asked this process. The variables are removed: runners do not speak for us."""
    address, interval, meant = (environment.pop(name, "") for name in _VARIABLES)
    watched = interval.isdecimal() and meant in ("", str(pid))
    return Notify(address, int(interval) / 1e6 if watched else 0.0)
