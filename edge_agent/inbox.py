"""What wakes the supervisor: messages and link changes, in order, in bounded memory."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Final

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


Item = Message | LinkChanged | None


class Inbox:
    """Filled by any thread, emptied by the supervisor's."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Item] = queue.Queue(CAPACITY)

    def message(self, topic: str, data: bytes) -> None:
        self._queue.put(Message(topic, data))

    def link_changed(self, connected: bool, why: str) -> None:
        self._queue.put(LinkChanged(connected, why))

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
