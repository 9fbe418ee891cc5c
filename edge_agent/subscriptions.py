"""What a fetch has subscribed to, and what of it is still to be answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Protocol

UNSUBSCRIBE_TOGETHER: Final = 4


class Subscribing(Protocol):
    def subscribe(self, topics: Sequence[str], qos: int = 0) -> None: ...
    def unsubscribe(self, topics: Sequence[str]) -> None: ...


class Subscriptions:
    def __init__(self, link: Subscribing) -> None:
        self._link = link
        self._awaited: dict[str, bool] = {}
        """What is subscribed, and whether its answer is still to come."""

    def take(self, topic: str) -> bool | None:
        """Whether an answer was still to come on this topic, which it now did; None where nobody
        subscribed."""
        if topic not in self._awaited:
            return None
        awaited, self._awaited[topic] = self._awaited[topic], False
        return awaited

    def again(self) -> None:
        """Whatever is wanted from now on is asked for anew."""
        self._awaited = dict.fromkeys(self._awaited, False)

    def follow(
        self, wanted: Sequence[str], kept: Collection[str | None], *, all_of_them: bool = False
    ) -> None:
        """Make what is subscribed what should be: `wanted`, and what is `kept` if it is there.
        Unsubscribing can wait for company, unless it is about `all_of_them`."""
        excess = [topic for topic in self._awaited if topic not in kept and topic not in wanted]
        if excess and (all_of_them or len(excess) >= UNSUBSCRIBE_TOGETHER):
            for topic in excess:
                del self._awaited[topic]
            self._link.unsubscribe(excess)
        new = [topic for topic in wanted if not self._awaited.get(topic)]
        if new:
            self._awaited.update(dict.fromkeys(new, True))
            self._link.subscribe(new)
