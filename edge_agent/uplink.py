"""Sends what the outbox holds until the control plane says that it is stored.

Bytes in, bytes out: the caller owns the link and the clock. Acks are level-triggered, so a lost,
late, repeated or reordered one costs at most a resend.
"""

from __future__ import annotations

import math
import random
from typing import Final

from edge_agent import pacing
from edge_agent.buffer import Outbox
from edge_agent.coverage import Coverage
from edge_agent.outgoing import RowKey, key_of
from edge_agent.pacing import Pacing
from protocol.batch import encode_batch
from protocol.codec import CODEC_BINARY, MAX_DOWN, MAX_UP_PACKED, Compress, decode, encode_up
from protocol.telemetry import MAX_RECORDS, Ack, Hello, Record, Upload

_BODY_BYTES: Final = 512 * 1024
"""Of one message before packing: well below what an ingester unpacks."""
_PATIENCE: Final = 4
"""Sends of one batch without an answer before it is halved, so that no record blocks the rest."""


class Uplink:
    """One per agent, used by the supervisor's thread."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        rng: random.Random,
        compress: Compress | None = None,
        resend_s: float = 30.0,
        spread_s: float = 1.0,
    ) -> None:
        self._outbox = outbox
        self._rng = rng
        self._compress = compress
        self._pacing = Pacing(resend_s=resend_s, spread_s=spread_s)
        self._coverage = Coverage()
        self._passed_over: set[RowKey] = set()
        self._flying: tuple[RowKey, ...] = ()
        self._nothing_at: int | None = None
        self._binary = False
        """Whether the ingester of this connection has said that it reads binary batches."""

    @property
    def next_at(self) -> float:
        """Monotonic time from which `due` is worth a call; infinite while not connected.

        A change of the outbox can make something due at once.
        """
        if not self._pacing.connected:
            return math.inf
        if self._nothing_at == self._outbox.version and not self._pacing.probe:
            return self._pacing.forget_at
        return min(self._pacing.at, self._pacing.forget_at)

    def on_connected(self, now: float) -> None:
        self._forget()
        # Another one may answer now, and an older one reads less.
        self._binary = False
        self._pacing = pacing.on_connected(self._pacing, now, self._rng.random())

    def on_disconnected(self) -> None:
        self._pacing = pacing.on_disconnected(self._pacing)

    def on_hello(self, now: float, data: bytes) -> None:
        """Raises `PeerError` for what is not a hello."""
        hello = decode(data, Hello, limit=MAX_DOWN)
        if hello.g != self._pacing.generation:
            self._forget()
        self._binary = CODEC_BINARY in hello.codecs
        self._pacing = pacing.on_hello(
            self._pacing, now, self._rng.random(), hello.g, hello.spread_s
        )

    def on_ack(self, now: float, data: bytes) -> None:
        """Delete what is safe, learn the rest. Raises `PeerError`, or `Unavailable` (OUT-D50x)."""
        ack = decode(data, Ack, limit=MAX_DOWN)
        before = sum(map(self._coverage.has, self._flying))
        # First: what a full disk does not let go must be asked about again, not passed over.
        self._outbox.delete_safe(ack.a)
        self._coverage.learn(ack.a)
        current = self._pacing
        progress = sum(map(self._coverage.has, self._flying)) > before
        if current.in_flight and (current.probe or progress):
            self._pacing = pacing.on_answered(current, now, ack.wait_s)
            self._nothing_at = None
        elif ack.wait_s is not None:
            self._pacing = pacing.on_told_to_wait(current, now, ack.wait_s)

    def due(self, now: float) -> bytes | None:
        """The message to publish now, if any. Raises `Unavailable` (OUT-D50x)."""
        if self._pacing.expired(now):
            self._forget()
            self._pacing = pacing.on_expired(self._pacing, now)
        if not self._pacing.may_send(now):
            return None
        message = self._probe() if self._pacing.probe else self._batch()
        if message is not None:
            self._pacing = pacing.on_sent(self._pacing, now, self._rng.random())
        return message

    def _probe(self) -> bytes:
        # At the limit it is a capped list, and the other side judges no gaps by it.
        held = self._outbox.held(MAX_RECORDS)
        self._flying = ()
        return self._message(Upload(1, (), tuple(held)))

    def _batch(self) -> bytes | None:
        if self._nothing_at == self._outbox.version:
            return None
        version = self._outbox.version
        most = MAX_RECORDS
        if self._pacing.failures >= _PATIENCE and self._flying:
            most = max(1, len(self._flying) // 2)
            if len(self._flying) == 1:
                self._passed_over.add(self._flying[0])
        records = self._outbox.sendable(self._skipped, records=most, body_bytes=_BODY_BYTES)
        if not records and self._passed_over:
            # Everything else is through: it is their turn again.
            self._passed_over.clear()
            records = self._outbox.sendable(self._skipped, records=1, body_bytes=_BODY_BYTES)
        while records:
            message = self._message(Upload(1, tuple(records)))
            if len(message) <= MAX_UP_PACKED:
                self._flying = tuple(map(key_of, records))
                return message
            records = self._smaller(records)
        self._nothing_at = version
        self._flying = ()
        return None

    def _message(self, upload: Upload) -> bytes:
        encoded = encode_batch if self._binary else encode_up
        return encoded(upload, self._compress)

    def _smaller(self, records: list[Record]) -> list[Record]:
        if len(records) > 1:
            return records[: len(records) // 2]
        # A single window too large to travel goes without its histograms, or not now.
        if not self._outbox.thin(records[0]):
            self._passed_over.add(key_of(records[0]))
        return self._outbox.sendable(self._skipped, records=1, body_bytes=_BODY_BYTES)

    def _skipped(self, row: RowKey) -> bool:
        return row in self._passed_over or self._coverage.has(row)

    def _forget(self) -> None:
        self._coverage.forget()
        self._passed_over.clear()
        self._flying = ()
        self._nothing_at = None
