"""Makes a broker retain what it should: publishes what is missing or different, and only that.

Callers say what should be retained; nothing is published when it is said. `work` reads back what
the broker has, compares digests, and publishes the rest in an order in which no device ever sees
a promise before what it promises (plans before the timestamp that names them, the timestamp last
of the metadata, frames before hints). After a restart, a lost link or a `want` the same
comparison is made again, so a payload is published once for any number of devices.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial as bind
from hashlib import sha256
from typing import Final

from control_plane.encode import Encoded
from control_plane.encode.offering import hint_of
from control_plane.retained import BATCH, LinkLike, Retained
from protocol import codec
from protocol.identifiers import Digest, ModelName
from protocol.payload import DIGESTS_PER_LIST
from protocol.telemetry import Range, Want, merge_ranges
from protocol.topics import TUF_ROLES, Topics

_log = logging.getLogger(__name__)

BUDGET_BYTES: Final = 16 * 1024 * 1024
"""Read and published in one call of `work`, roughly."""
LOOK_INTERVAL_S: Final = 10.0
"""A payload is looked after at most this often, however many devices want it."""
_MANY_RANGES: Final = 64
_NOTHING: Final = sha256(b"").digest()

# Lowest first: what a topic's content refers to has a lower rank than the topic.
_RANKS: Final = (
    ("tuf/root/", 0),
    ("plans/", 1),
    ("deny", 1),
    ("manifests/", 1),
    ("tuf/rollouts", 2),
    ("tuf/models", 2),
    ("tuf/targets", 3),
    ("tuf/snapshot", 4),
    ("tuf/timestamp", 5),
    ("devices/", 6),
    ("ingest/", 6),
    ("frames/", 7),
    ("payloads/", 8),
)


@dataclass(slots=True)
class _Kept:
    """What one topic should retain."""

    digest: bytes
    load: Callable[[], bytes]
    payload: Digest | None = None
    known: bool = False
    """Whether what the broker has was compared since the link came up."""


@dataclass(frozen=True, slots=True)
class _Offered:
    model: ModelName
    hint: str
    encoded: Encoded


class Publisher:
    """`work` belongs to one thread, the ticker's; everything else may be called from any."""

    def __init__(
        self,
        link: LinkLike,
        topics: Topics,
        retained: Retained,
        *,
        look_interval_s: float = LOOK_INTERVAL_S,
        urls: Sequence[str] = (),
    ) -> None:
        """`urls`: addresses below which devices find payloads besides, in every hint."""
        self._link = link
        self._topics = topics
        self._retained = retained
        self._look_interval_s = look_interval_s
        self._urls = tuple(urls)
        self._lock = threading.RLock()
        self._connections = 0
        self._kept: dict[str, _Kept] = {}
        self._pending: dict[int, dict[str, None]] = {rank: {} for _, rank in _RANKS}
        self._payloads: dict[Digest, _Offered] = {}
        self._wanted: dict[Digest, tuple[Range, ...]] = {}
        self._looked_at: dict[Digest, float] = {}
        self._origin_bytes: Counter[Digest] = Counter()
        self._other_bytes = 0

    # --- what should be retained --------------------------------------------------------------

    def keep(self, topic: str, data: bytes) -> None:
        """`topic` should retain `data` from now on."""
        if not data:
            raise ValueError("a topic that should retain nothing is withdrawn")
        self._keep(topic, sha256(data).digest(), lambda: data)

    def keep_metadata(self, roots: Mapping[int, bytes], roles: Mapping[str, bytes]) -> None:
        """Every root ever, and the current bytes of the TUF roles by name."""
        with self._lock:
            for number, data in roots.items():
                self.keep(self._topics.root(number), data)
            for role in TUF_ROLES:
                if role in roles:
                    self.keep(self._topics.tuf(role), roles[role])

    def offer(self, model: ModelName, file: Digest, payloads: Sequence[Encoded]) -> None:
        """Devices may obtain a file of `model` by these payloads, the first one first.

        Payloads that an earlier offer of the file had and this one has not stay retained until
        `withdraw_payload`: devices may be in the middle of them.
        """
        hint = self._topics.hint(model, file)
        with self._lock:
            for encoded in payloads:
                self._offer(_Offered(model, hint, encoded))
            entries = [each.entry for each in payloads]
            self.keep(hint, codec.encode(hint_of(entries, self._urls)))

    def withdraw(self, topic: str) -> None:
        """`topic` should retain nothing any more."""
        self._keep(topic, _NOTHING, bytes)

    def withdraw_hint(self, model: ModelName, file: Digest) -> None:
        """Nobody shall begin to fetch this file; whoever is at it goes on."""
        self.withdraw(self._topics.hint(model, file))

    def withdraw_payload(self, model: ModelName, encoded: Encoded) -> None:
        """Clear its lists and frames: a device that still waits for one learns that it is gone."""
        with self._lock:
            self._payloads.pop(encoded.entry.payload, None)
            for topic in self._topics_of(model, encoded):
                self.withdraw(topic)

    # --- what happens ---------------------------------------------------------------------------

    def connected(self) -> None:
        """The link came up: whatever the broker had before, nobody knows what it has now."""
        self._retained.interrupt()
        with self._lock:
            self._connections += 1
            for topic in self._kept:
                self._look_at(topic)

    def want(self, want: Want) -> None:
        """A device misses frames. They are looked at once for all who miss them, and not often."""
        with self._lock:
            if want.payload in self._payloads:
                ranges = merge_ranges((*self._wanted.get(want.payload, ()), *want.ranges))
                # Many holes are one large one.
                whole = ((0, max(high for _, high in ranges)),)
                self._wanted[want.payload] = ranges if len(ranges) <= _MANY_RANGES else whole

    def work(self, now: float, budget_bytes: int = BUDGET_BYTES) -> bool:
        """Do some of what is to do; whether everything is as it should be.

        `now` in monotonic seconds. Waits for the broker, a few seconds at most. Raises
        `Unavailable` without a connection, or when it stops answering; nothing is lost by that.
        """
        with self._lock:
            self._look_at_wanted(now)
            ranks = sorted(self._pending)
        for rank in ranks:
            while batch := self._next(rank):
                budget_bytes -= self._settle(batch)
                if budget_bytes <= 0 or not self._link.connected:
                    return self.settled
        return self.settled

    @property
    def settled(self) -> bool:
        """Whether the broker retains all that it should, as far as anybody can know."""
        with self._lock:
            return not self._wanted and not any(self._pending.values())

    @property
    def origin_bytes(self) -> Mapping[Digest, int]:
        """Per payload, bytes of its lists and frames that left the control plane."""
        with self._lock:
            return dict(self._origin_bytes)

    @property
    def other_bytes(self) -> int:
        """Bytes of all else that was published: metadata, plans, manifests, hints, documents."""
        return self._other_bytes

    # --- inside -----------------------------------------------------------------------------------

    def _keep(
        self,
        topic: str,
        digest: bytes,
        load: Callable[[], bytes],
        payload: Digest | None = None,
    ) -> None:
        rank = self._rank(topic)
        with self._lock:
            before = self._kept.get(topic)
            if before is not None and before.digest == digest:
                return
            known = before is not None and before.known
            self._kept[topic] = _Kept(digest, load, payload, known)
            self._pending[rank][topic] = None

    def _offer(self, offered: _Offered) -> None:
        model, encoded = offered.model, offered.encoded
        payload = encoded.entry.payload
        self._payloads[payload] = offered
        for number in range(encoded.list_count):
            digests = encoded.frame_list(number)
            self._keep(
                self._topics.frame_list(model, payload, number),
                sha256(digests).digest(),
                bind(encoded.frame_list, number),
                payload,
            )
            first = number * DIGESTS_PER_LIST
            for place in range(len(digests) // 32):
                self._keep(
                    self._topics.frame(model, payload, first + place),
                    digests[32 * place : 32 * place + 32],
                    bind(encoded.frame, first + place),
                    payload,
                )

    def _look_at(self, topic: str) -> None:
        kept = self._kept[topic]
        kept.known = False
        self._pending[self._rank(topic)][topic] = None

    def _look_at_wanted(self, now: float) -> None:
        for payload in list(self._wanted):
            last = self._looked_at.get(payload)
            if last is not None and now - last < self._look_interval_s:
                continue
            self._looked_at[payload] = now
            ranges = self._wanted.pop(payload)
            offered = self._payloads.get(payload)
            if offered is None:
                continue
            last_frame = offered.encoded.entry.frames - 1
            numbers = {
                *(n for low, high in ranges for n in range(low, min(high, last_frame) + 1)),
            }
            lists = range(offered.encoded.list_count)
            for topic in (
                offered.hint,
                *(self._topics.frame_list(offered.model, payload, n) for n in lists),
                *(self._topics.frame(offered.model, payload, n) for n in numbers),
            ):
                if topic in self._kept:
                    self._look_at(topic)

    def _next(self, rank: int) -> list[tuple[str, _Kept]]:
        with self._lock:
            topics = list(self._pending[rank])[:BATCH]
            return [(topic, self._kept[topic]) for topic in topics]

    def _settle(self, batch: Sequence[tuple[str, _Kept]]) -> int:
        """Compare and publish; the bytes that this took."""
        connection = self._connections
        unknown = [topic for topic, kept in batch if not kept.known]
        found = self._retained.read(unknown) if unknown else {}
        used = len(batch) + sum(map(len, found.values()))
        for topic, kept in batch:
            if not kept.known and sha256(found.get(topic, b"")).digest() == kept.digest:
                self._is_there(topic, kept, connection)
            else:
                used += self._publish(topic, kept, connection)
        return used

    def _publish(self, topic: str, kept: _Kept, connection: int) -> int:
        try:
            data = kept.load()
        except OSError:
            # The others can still be served; this one is tried again on the next occasion.
            _log.exception("cannot read what %s should retain", topic)
            with self._lock:
                self._pending[self._rank(topic)].pop(topic, None)
            return 0
        if not self._link.publish(topic, data, qos=1, retain=True):
            return 0
        with self._lock:
            if kept.payload is not None:
                self._origin_bytes[kept.payload] += len(data)
            else:
                self._other_bytes += len(data)
        self._is_there(topic, kept, connection)
        return len(data)

    def _is_there(self, topic: str, kept: _Kept, connection: int) -> None:
        with self._lock:
            if self._kept.get(topic) is not kept or self._connections != connection:
                return  # something else should be there by now, or it may be lost again
            kept.known = True
            self._pending[self._rank(topic)].pop(topic, None)
            if kept.digest == _NOTHING:
                del self._kept[topic]

    def _topics_of(self, model: ModelName, encoded: Encoded) -> list[str]:
        payload, entry = encoded.entry.payload, encoded.entry
        lists = (self._topics.frame_list(model, payload, n) for n in range(encoded.list_count))
        return [
            *lists,
            *(self._topics.frame(model, payload, n) for n in range(entry.frames)),
        ]

    def _rank(self, topic: str) -> int:
        rest = topic.removeprefix(self._topics.prefix)
        for start, rank in _RANKS:
            if rest.startswith(start):
                return rank
        raise ValueError(f"nothing is retained under {topic!r:.120}")
