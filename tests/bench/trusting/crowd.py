"""Many connections to one broker, and as many pollers of one web server: what they cost it.

All run in this process on one thread, so its own speed bounds how fast they can connect.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.link import Address
from protocol.topics import Topics, shard_of
from tests.bench.fanout import cpu_of
from tests.fakes.thin_client import ThinClient

AT_ONCE: Final = 50
"""Connections that are being made at the same time."""
STAMPS: Final = 10
"""Re-stamps per measurement: one alone costs less than the kernel's clock can tell."""
FETCHED: Final = ("snapshot", "rollouts")


@dataclass(frozen=True, slots=True)
class Storm:
    """`count` connections were made, `AT_ONCE` at a time, each with six subscriptions."""

    seconds: float
    median_ms: float
    most_ms: float
    """95 % were faster."""
    server_cpu_s: float
    server_kb_each: float


@dataclass(frozen=True, slots=True)
class Spread:
    """One change has reached everybody."""

    seconds: float
    server_cpu_s: float
    bytes_each: float


def context_of(address: Address) -> ssl.SSLContext | None:
    if address.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(address.tls.ca)
    context.load_cert_chain(address.tls.certificate, address.tls.key)
    return context


def rss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class Crowd:
    """Devices without agents: they listen to what agents listen to, and fetch what those fetch."""

    def __init__(self, topics: Topics, model: str) -> None:
        self.clients: list[ThinClient] = []
        self._topics = topics
        self._stamp = topics.tuf("timestamp")
        self._chain = [*map(topics.tuf, FETCHED), topics.plan(model)]
        self._follows = False
        self._left = 0
        self._done = asyncio.Event()

    async def connect(self, addresses: dict[str, Address], pid: int) -> Storm:
        contexts = {name: context_of(address) for name, address in addresses.items()}
        memory, cpu, began = rss_kb(pid), cpu_of(pid), time.monotonic()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> float:
            address = addresses[name]
            async with gate:
                start = time.monotonic()
                client = await ThinClient.connect(
                    address.host, address.port, name, self._heard, contexts[name]
                )
                await client.subscribe(self._standing(name))
                self.clients.append(client)
                return (time.monotonic() - start) * 1000

        self._left = len(addresses)
        took = sorted(await asyncio.gather(*map(one, addresses)))
        # What is retained follows the confirmation of a subscription.
        await self._done.wait()
        return Storm(
            time.monotonic() - began,
            statistics.median(took),
            took[int(len(took) * 0.95)],
            cpu_of(pid) - cpu,
            (rss_kb(pid) - memory) / len(took),
        )

    async def restamp(self, control: ThinClient, timestamp: bytes, pid: int) -> Spread:
        """Per re-stamp, of `STAMPS` one after the other."""
        self._follows = False
        before, cpu, began = self._received(), cpu_of(pid), time.monotonic()
        for number in range(STAMPS):
            self._expect()
            await control.publish(self._stamp, timestamp + b" " * number)
            await self._done.wait()
        return Spread(
            (time.monotonic() - began) / STAMPS,
            (cpu_of(pid) - cpu) / STAMPS,
            (self._received() - before) / STAMPS / len(self.clients),
        )

    async def change_plan(self, control: ThinClient, files: dict[str, bytes], pid: int) -> Spread:
        """Everybody hears of it and fetches snapshot, rollouts and plan, one after the other."""
        self._follows = True
        before, cpu, began = self._received(), cpu_of(pid), time.monotonic()
        self._expect()
        for topic in (self._chain[2], self._chain[1], self._chain[0], self._stamp):
            await control.publish(topic, files[topic])
        await self._done.wait()
        return Spread(
            time.monotonic() - began,
            cpu_of(pid) - cpu,
            (self._received() - before) / len(self.clients),
        )

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def _standing(self, name: str) -> Sequence[str]:
        of = self._topics
        return (
            self._stamp,
            of.root(2),
            of.deny,
            of.document(name),
            of.ack(name),
            of.ingest(shard_of(name)),
        )

    def _heard(self, client: ThinClient, topic: str, _data: bytes) -> None:
        if topic == self._stamp:
            following = self._chain[0] if self._follows else None
        elif topic in self._chain:
            client.forget(topic)
            following = next(iter(self._chain[self._chain.index(topic) + 1 :]), None)
        else:
            return
        if following is not None:
            client.fetch(following)
        else:
            self._left -= 1
            if self._left == 0:
                self._done.set()

    def _expect(self) -> None:
        self._left = len(self.clients)
        self._done.clear()

    def _received(self) -> int:
        return sum(client.received_bytes for client in self.clients)


@asynccontextmanager
async def control(address: Address, name: str) -> AsyncIterator[ThinClient]:
    client = await ThinClient.connect(
        address.host, address.port, name, lambda *_: None, context_of(address)
    )
    try:
        yield client
    finally:
        client.close()


async def poll(address: Address, paths: Sequence[str], count: int, pid: int) -> Spread:
    """`count` devices ask an HTTPS server for these files, each on a connection of its own."""
    context = context_of(address)
    cpu, began = cpu_of(pid), time.monotonic()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> int:
        async with gate:
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            received = sum([await _get(reader, writer, path) for path in paths])
            writer.close()
            return received

    received = await asyncio.gather(*itertools.starmap(one, [()] * count))
    return Spread(time.monotonic() - began, cpu_of(pid) - cpu, sum(received) / count)


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    writer.write(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"{path}: {head[:40]!r}")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    body = await reader.readexactly(int(fields[b"content-length"]))
    return len(head) + len(body)
