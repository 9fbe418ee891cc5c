"""One payload on its way here: all frame lists first, then frames in a small window.

Says which topics should be subscribed now, and judges what arrives on them; it subscribes nothing
itself. Every length and digest is checked before anything is written.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final

from edge_agent.partial import Partial
from protocol.errors import PeerError
from protocol.identifiers import ModelName
from protocol.payload import (
    DIGESTS_PER_LIST,
    FRAME_SIZE,
    HintEntry,
    check_lists,
    frame_digest,
    frame_length,
    list_count,
)
from protocol.reported import Progress
from protocol.telemetry import MAX_RANGES, Range
from protocol.topics import Topics

WINDOW_FIRST: Final = 4
WINDOW_MOST: Final = 8
PATIENCE: Final = 8
"""Messages that are refused before another payload is tried."""
HOLD_FIRST_S: Final = 1.0
HOLD_MOST_S: Final = 300.0


class Gone(Exception):
    """The control plane has cleared this payload."""


class Download:
    def __init__(
        self,
        topics: Topics,
        model: ModelName,
        entry: HintEntry,
        partial: Partial,
        rng: random.Random,
    ) -> None:
        self.entry = entry
        self.partial = partial
        self.refused = 0
        """Bad messages of this payload, frames and lists together."""
        self._topics = topics
        self._model = model
        self._rng = rng
        self._window = WINDOW_FIRST
        self._grown = 0
        self._lists: dict[int, bytes] = {}
        self._digests: tuple[bytes, ...] = ()
        self._have = bytearray()
        self._left = entry.frames
        self._ahead: deque[int] = deque()
        self._asked: dict[str, int] = {}
        self._held: dict[int, float] = {}
        self._holds: dict[int, int] = {}

    # --- what is known ------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        return self._left == 0

    @property
    def progress(self) -> Progress:
        return Progress(self.entry.frames - self._left, self.entry.frames)

    @property
    def tried_enough(self) -> bool:
        return self.refused >= PATIENCE

    @property
    def missing_bytes(self) -> int:
        """Of frames that are not here; before the lists are checked, all of them."""
        if not self._digests:
            return self.entry.size
        last = len(self._digests) - 1
        short = 0 if self._have[last] else FRAME_SIZE - frame_length(self.entry.size, last)
        return self._left * FRAME_SIZE - short

    @property
    def have(self) -> bytes:
        """Per frame 1 or 0: what is here; empty before the lists are checked."""
        return bytes(self._have)

    def missing(self) -> tuple[Range, ...]:
        """Frames that are not here, as ranges; at most as many as a `want` carries."""
        if not self._digests:
            return ((0, self.entry.frames - 1),)
        ranges: list[Range] = []
        for number, here in enumerate(self._have):
            if here:
                continue
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1] = (ranges[-1][0], number)
            elif len(ranges) == MAX_RANGES:
                break
            else:
                ranges.append((number, number))
        return tuple(ranges)

    def wanted(self, now: float) -> tuple[str, ...]:
        """Topics that an answer is expected on, now."""
        for number in [n for n, until in self._held.items() if until <= now]:
            del self._held[number]
            self._ahead.appendleft(number)
        if not self._digests:
            lists = [n for n in self._all_lists() if n not in self._lists and n not in self._held]
            return self._ask({self._list_topic(n): n for n in lists[:WINDOW_FIRST]})
        asked = dict(self._asked)
        # Half a window at a time: a quarter of the packets, and never less than that on its way.
        room = self._window if 2 * len(asked) <= self._window else 0
        while self._ahead and len(asked) < room:
            number = self._ahead.popleft()
            asked[self._topics.frame(self._model, self.entry.payload, number)] = number
        return self._ask(asked)

    # --- what happens -------------------------------------------------------------------------

    def resume(self, digests: tuple[bytes, ...], have: bytearray) -> None:
        """Go on with checked lists, and with what already lies on disk."""
        self._digests = digests
        self._have = have
        self._left = have.count(0)
        self._ahead = deque(number for number, here in enumerate(have) if not here)
        self._asked.clear()
        self._held.clear()
        self._holds.clear()

    def again(self) -> None:
        """Ask for all that is missing, whatever was asked for before."""
        if self._digests:
            self.resume(self._digests, self._have)

    def slower(self) -> None:
        """Nothing came for a while."""
        self._window = max(1, self._window // 2)
        self._grown = 0

    def receive(self, topic: str, data: bytes, now: float) -> bool:
        """Take an answer; whether it brought anything new.

        Raises `PeerError` (OUT-F102, OUT-F111) for one that is wrong, to be asked for again after
        a pause that grows; `Gone`; `OSError`.
        """
        number = self._asked.get(topic)
        if number is None:
            return False
        if not data:
            raise Gone
        if self._digests:
            self._receive_frame(topic, number, data, now)
        else:
            self._receive_list(number, data, now)
        return True

    def _receive_frame(self, topic: str, number: int, frame: bytes, now: float) -> None:
        if not self._right(number, frame):
            del self._asked[topic]
            self._hold(number, now)
            raise PeerError("OUT-F102", f"frame {number} of {self.entry.payload}")
        self._put(number, frame)
        del self._asked[topic]
        self._grown += 1
        if self._grown >= self._window < WINDOW_MOST:
            self._window, self._grown = self._window + 1, 0

    def take_frame(self, number: int, frame: bytes) -> bool:
        """A frame that came by itself, without its topic; whether it is new.

        Raises `PeerError` (OUT-F102) for another frame; `OSError`.
        """
        if not self._digests or self._have[number]:
            return False
        if not self._right(number, frame):
            self.refused += 1
            raise PeerError("OUT-F102", f"frame {number} of {self.entry.payload}")
        self._put(number, frame)
        return True

    def take_lists(self, joined: bytes) -> bool:
        """All frame lists at once, as `take_frame`. Raises `PeerError` (OUT-F111); `OSError`."""
        if self._digests:
            return False
        try:
            checked = check_lists(self.entry, [joined])
        except PeerError:
            self.refused += 1
            raise
        self.partial.keep_lists(checked)
        self.resume(checked, bytearray(len(checked)))
        return True

    def _right(self, number: int, frame: bytes) -> bool:
        expected = frame_length(self.entry.size, number)
        return len(frame) == expected and frame_digest(frame) == self._digests[number]

    def _put(self, number: int, frame: bytes) -> None:
        self.partial.write(number, frame)
        self._have[number] = 1
        self._left -= 1

    def _receive_list(self, number: int, data: bytes, now: float) -> None:
        digests = min(DIGESTS_PER_LIST, self.entry.frames - number * DIGESTS_PER_LIST)
        if len(data) != 32 * digests:
            self._hold(number, now)
            raise PeerError("OUT-F111", f"list {number} of {self.entry.payload} has another length")
        self._lists[number] = data
        if len(self._lists) < list_count(self.entry.frames):
            return
        lists = [self._lists[n] for n in self._all_lists()]
        try:
            checked = check_lists(self.entry, lists)
        except PeerError:
            # Nobody can say which one it is.
            for each in self._all_lists():
                self._hold(each, now)
            self.refused -= len(lists) - 1
            self._lists.clear()
            raise
        self.partial.keep_lists(checked)
        self.resume(checked, bytearray(len(checked)))

    def _hold(self, number: int, now: float) -> None:
        self.refused += 1
        self._holds[number] = times = self._holds.get(number, 0) + 1
        longest = min(HOLD_MOST_S, HOLD_FIRST_S * 2**times)
        self._held[number] = now + longest * self._rng.uniform(0.2, 1)

    def _ask(self, topics: dict[str, int]) -> tuple[str, ...]:
        self._asked = topics
        return tuple(topics)

    def _all_lists(self) -> range:
        return range(list_count(self.entry.frames))

    def _list_topic(self, number: int) -> str:
        return self._topics.frame_list(self._model, self.entry.payload, number)
