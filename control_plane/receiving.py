"""From the link to ingest, on a thread of its own: stored, answered, then acknowledged."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from control_plane.ingest import Ingest
from control_plane.link import Delivery
from protocol.errors import Unavailable

log = logging.getLogger(__name__)

RETRY_S: Final = 0.5
STOP_S: Final = 10.0

Publish = Callable[[str, bytes], object]


class Receiving:
    """`take` never waits: the broker sends no more than its window of unacknowledged messages.

    It must not wait, since the link's thread also hears the confirmations that answers wait for.
    """

    def __init__(self, ingest: Ingest, publish: Publish) -> None:
        self._ingest = ingest
        self._publish = publish
        self._waiting: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self.problem: str | None = None
        """Why nothing can be stored at the moment."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is not stored yet is not acknowledged: the broker gives it again."""
        self._stopped.set()
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def take(self, delivery: Delivery) -> None:
        self._waiting.put(delivery)

    def _run(self) -> None:
        while not self._stopped.is_set():
            delivery = self._waiting.get()
            if delivery is not None:
                self._handle(delivery)

    def _handle(self, delivery: Delivery) -> None:
        while not self._stopped.is_set():
            try:
                answer = self._ingest.handle(delivery.topic, delivery.data)
            except Unavailable as missing:
                # Not acknowledged, and tried again: nothing behind it could be stored either.
                self._failing(str(missing))
                self._stopped.wait(RETRY_S)
                continue
            except Exception as fault:
                # Top of the thread. It would come again for ever, so it is taken as refused.
                log.error("%s", delivery.topic, exc_info=fault)
                delivery.acknowledge()
                return
            self.problem = None
            for ack in answer.acks:
                self._publish(ack.topic, ack.data)
            delivery.acknowledge()
            return

    def _failing(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("records wait: %s", problem)
        self.problem = problem
