"""What the control plane sends to devices over HTTP at the moment, and what that has cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from protocol.identifiers import Digest

MOST: Final = 32
"""Answers at a time: of several thousand devices that come together the rest comes again later,
or takes what the broker has."""


class Serving:
    """Places for answers, and counts. The API's loop owns it; others only read its counts."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.now = 0
        """Answers under way."""
        self.turned_away = 0
        """Requests that were asked to come again, since the start."""
        self._sent: Counter[Digest] = Counter()

    def enter(self) -> bool:
        """Whether there is a place for one more answer; `leave` gives it back."""
        if self.now >= self.most:
            self.turned_away += 1
            return False
        self.now += 1
        return True

    def leave(self) -> None:
        self.now -= 1

    def sent(self, payload: Digest, count: int) -> None:
        """So many bytes of it, or of its lists, were handed to a connection."""
        self._sent[payload] += count

    def bytes(self) -> Mapping[Digest, int]:
        """Per payload, since the start."""
        return self._sent.copy()
