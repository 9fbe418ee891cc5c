"""What wakes the supervisor: messages and link changes, in order, in bounded memory."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

CAPACITY: Final = 256
"""Messages: 16 MiB of frames at most. Then the link's thread waits, and TCP with it."""


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LinkChanged:
    connected: bool
    why: str


@dataclass(frozen=True, slots=True)
class Errand:
    """Work that another thread wants done between two turns; `done` hears how it went."""

    work: Callable[[], Any]
    done: Future[Any]

    def run(self) -> None:
        if not self.done.set_running_or_notify_cancel():
            return  # whoever asked did not wait
        try:
            self.done.set_result(self.work())
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            self.done.set_exception(error)


Item = Message | LinkChanged | Errand | None
T = TypeVar("T")


class Inbox:
    """Filled by any thread, emptied by the supervisor's."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Item] = queue.Queue(CAPACITY)

    def message(self, topic: str, data: bytes) -> None:
        self._queue.put(Message(topic, data))

    def link_changed(self, connected: bool, why: str) -> None:
        self._queue.put(LinkChanged(connected, why))

    def errand(self, work: Callable[[], T]) -> Future[T]:
        """Have the supervisor do this as soon as it can. What `work` raises, the future raises."""
        done: Future[T] = Future()
        self._queue.put(Errand(work, done))
        return done

    def wake(self) -> None:
        """Have the supervisor look around. Does nothing when it has enough to do anyway."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return

    def take(self, wait_s: float) -> list[Item]:
        """All that is there, after waiting at most `wait_s` for the first; wake-ups left out."""
        items: list[Item] = []
        try:
            items.append(self._queue.get(timeout=max(wait_s, 0.0)))
            while len(items) < CAPACITY:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return [item for item in items if item is not None]
