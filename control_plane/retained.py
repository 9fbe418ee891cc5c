"""Reads back what a broker retains: exact topics, in bounded batches.

MQTT has no answer that says "nothing is retained here". So every batch ends with an echo, a
message that we send to ourselves: what was not here before it is taken as missing. A broker that
lets the echo overtake costs bytes, since something is published again, and nothing else.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from itertools import count
from typing import Final, Protocol

from protocol.errors import Unavailable
from protocol.topics import Topics

BATCH: Final = 32
"""Topics at a time: 2 MiB of frames in memory."""
ECHO_TIMEOUT_S: Final = 10.0


class LinkLike(Protocol):
    @property
    def connected(self) -> bool: ...
    def subscribe(self, topics: Sequence[str], qos: int = 0) -> None: ...
    def unsubscribe(self, topics: Sequence[str]) -> None: ...
    def publish(self, topic: str, data: bytes, *, qos: int = 1, retain: bool = False) -> bool: ...


class Retained:
    """One reader at a time; `on_message` may come on any thread."""

    def __init__(self, link: LinkLike, topics: Topics) -> None:
        self._link = link
        self._topics = topics
        self._name = secrets.token_hex(8)
        self._numbers = count()
        self._changed = threading.Condition()
        self._found: dict[str, bytes] = {}
        self._expected: frozenset[str] = frozenset()
        self._echo = ""
        self._interrupted = False

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """What is retained under these topics; a topic without anything is left out.

        Raises `Unavailable` (OUT-N102) without a connection, or when the broker does not answer.
        """
        found: dict[str, bytes] = {}
        for start in range(0, len(names), BATCH):
            found |= self._read(tuple(names[start : start + BATCH]))
        return found

    def on_message(self, topic: str, data: bytes) -> bool:
        """Whether it belongs to what is being read."""
        with self._changed:
            if topic == self._echo:
                self._echo = ""
                self._changed.notify_all()
                return True
            if topic in self._expected and self._echo:
                self._found[topic] = data
                return True
        return topic.startswith(self._topics.prefix + "echo/")

    def interrupt(self) -> None:
        """The connection is another one: what is being read will not come any more."""
        with self._changed:
            self._interrupted, self._echo = True, ""
            self._changed.notify_all()

    def _read(self, batch: tuple[str, ...]) -> dict[str, bytes]:
        echo = self._topics.echo(f"{self._name}-{next(self._numbers)}")
        with self._changed:
            self._found, self._expected, self._echo = {}, frozenset(batch), echo
            self._interrupted = False
        everything = [*batch, echo]
        self._link.subscribe(everything)
        try:
            if not self._link.publish(echo, b"", qos=0):
                raise Unavailable("OUT-N102", "not connected")
            with self._changed:
                if not self._changed.wait_for(lambda: not self._echo, ECHO_TIMEOUT_S):
                    raise Unavailable("OUT-N102", "the broker does not answer")
                if self._interrupted:
                    raise Unavailable("OUT-N102", "the connection was lost")
                return {topic: data for topic, data in self._found.items() if data}
        finally:
            with self._changed:
                self._expected, self._echo = frozenset(), ""
            self._link.unsubscribe(everything)
