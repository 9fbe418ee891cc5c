"""Notices at once that a runner has ended: a thread that sleeps on their pidfds, and no more.

What a death means is found out by whoever is woken; here it is only an occasion to look.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

from edge_agent.runners.child import Process


class Vigil:
    """`keep` and `end` are for the supervisor's thread; `on_end` is called from the vigil's own."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        """Nothing is started before there is a process to watch."""
        self._on_end = on_end
        self._poll: select.epoll | None = None
        self._stop = -1
        self._thread: threading.Thread | None = None

    def keep(self, process: Process) -> None:
        if self._poll is None:
            self._poll = select.epoll()
            self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._poll.register(self._stop, select.EPOLLIN)
            self._thread = threading.Thread(target=self._watch, name="vigil", daemon=True)
            self._thread.start()
        # Once: a pidfd stays readable, and would wake somebody for ever.
        self._poll.register(process.pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def end(self, process: Process) -> None:
        """Before its pidfd is closed; one that is not watched is none of its business."""
        if self._poll is not None:
            with suppress(FileNotFoundError):
                self._poll.unregister(process.pidfd)

    def close(self) -> None:
        if self._poll is None or self._thread is None:
            return
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._poll.close()
        os.close(self._stop)
        self._poll = self._thread = None

    def _watch(self) -> None:
        poll, stop = self._poll, self._stop
        assert poll is not None
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == stop:
                    return
                self._on_end()
