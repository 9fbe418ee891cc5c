"""The least that speaks MQTT 3.1.1: a thousand of these in one process weigh less than one agent.

No keepalive, no reconnecting, QoS 0 and 1. For load on a broker; nothing is learned about agents.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable, Sequence

Heard = Callable[["ThinClient", str, bytes], None]


class ThinClient(asyncio.Protocol):
    """`heard(client, topic, payload)` runs for every message. Await `accepted` after connecting."""

    def __init__(self, name: str, heard: Heard, *, username: bool = False) -> None:
        self.name = name
        self.received_bytes = 0
        """MQTT packets of the broker, without what TLS and TCP add."""
        self._heard = heard
        self._username = username
        loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[None] = loop.create_future()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        self._pending = b""

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        name: str,
        heard: Heard,
        tls: ssl.SSLContext | None = None,
    ) -> ThinClient:
        """Returns once the broker has accepted; without TLS it is told the name as user name."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            lambda: cls(name, heard, username=tls is None), host, port, ssl=tls
        )
        await client.accepted
        return client

    async def subscribe(self, topics: Sequence[str], qos: int = 0) -> None:
        """Returns once the broker has confirmed."""
        await self._confirmed(0x82, b"".join(_text(topic) + bytes([qos]) for topic in topics))

    def fetch(self, topic: str) -> None:
        """Subscribe without waiting for the confirmation."""
        self._send(0x82, struct.pack("!H", self._next()) + _text(topic) + b"\0")

    def forget(self, topic: str) -> None:
        self._send(0xA2, struct.pack("!H", self._next()) + _text(topic))

    async def publish(self, topic: str, data: bytes, *, retain: bool = True) -> None:
        """QoS 1; returns once the broker has confirmed."""
        await self._confirmed(0x32 | retain, data, before=_text(topic))

    def close(self) -> None:
        self._send(0xE0, b"")
        self._transport.close()

    async def _confirmed(self, kind: int, body: bytes, before: bytes = b"") -> None:
        number = self._next()
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(kind, before + struct.pack("!H", number) + body)
        await waiting

    def _next(self) -> int:
        self._number = self._number % 0xFFFF + 1
        return self._number

    def _send(self, kind: int, body: bytes) -> None:
        self._transport.write(bytes([kind]) + _length(len(body)) + body)

    # --- asyncio calls these ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        flags = 0x82 if self._username else 0x02
        body = _text("MQTT") + bytes([4, flags]) + struct.pack("!H", 0) + _text(self.name)
        self._send(0x10, body + (_text(self.name) if self._username else b""))

    def connection_lost(self, exc: Exception | None) -> None:
        error = exc or ConnectionError(f"the broker closed {self.name}")
        for waiting in (self.accepted, *self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(error)

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._pending += data
        while (packet := self._packet()) is not None:
            kind, body = packet
            if kind >> 4 == 3:
                self._message(kind, body)
            elif kind == 0x20 and body[1] == 0:
                self.accepted.set_result(None)
            elif kind == 0x20:
                self.accepted.set_exception(ConnectionError(f"{self.name}: refused, {body[1]}"))
            elif kind >> 4 in (4, 9, 11):
                waiting = self._waiting.pop(struct.unpack("!H", body[:2])[0], None)
                if waiting is not None:
                    waiting.set_result(None)

    def _message(self, kind: int, body: bytes) -> None:
        end = 2 + struct.unpack("!H", body[:2])[0]
        topic, payload = body[2:end].decode(), body[end:]
        if kind & 0x06:
            self._send(0x40, payload[:2])
            payload = payload[2:]
        self._heard(self, topic, payload)

    def _packet(self) -> tuple[int, bytes] | None:
        """The next whole one, taken off what has arrived."""
        size, shift = 0, 0
        for place, byte in enumerate(self._pending[1:5], 2):
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if len(self._pending) < place + size:
                    return None
                kind, body = self._pending[0], self._pending[place : place + size]
                self._pending = self._pending[place + size :]
                return kind, body
        return None


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def _length(value: int) -> bytes:
    digits = b""
    while True:
        value, digit = divmod(value, 128)
        digits += bytes([digit | (0x80 if value else 0)])
        if not value:
            return digits
