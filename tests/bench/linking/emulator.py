"""A thin, slow, unreliable link between two TUN devices, in user space.

    one end ── TUN ── Line: queue, rate, loss, delay ──▶ TUN ── other end    (and the same back)

A packet waits for its turn in a queue of bounded size, takes its length / rate to be sent, may be
lost after that, and arrives a delay later: what netem and a token bucket do, where kernels lack
them. A cut is a second in which nothing arrives, after which both ends of every TCP connection
are told that it is over, as a network does that forgot about them meanwhile. `Line` and `Flows`
are pure; `Emulator` is their thread.
"""

from __future__ import annotations

import math
import os
import random
import select
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

RST: Final = 0x04
_ACK: Final = 0x10
_TCP: Final = 6
_SPACE: Final = 2**32
_MOST_AHEAD: Final = 2**31


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of a link, the same in both directions."""

    bits_per_s: float = 2_000_000.0
    delay_s: float = 0.1
    """One way."""
    loss: float = 0.0
    """Chance of each packet to be lost, 0..1."""
    queue_bytes: int = 200_000
    """What waits beyond that is thrown away."""
    cut_every_s: float = math.inf
    """The last `silence_s` of every such period are silent, and end all connections."""
    silence_s: float = 1.0

    def silent_at(self, since_s: float) -> bool:
        """Whether nothing arrives, so long after the link began."""
        return since_s % self.cut_every_s >= self.cut_every_s - self.silence_s

    def cuts_until(self, since_s: float) -> int:
        """Cuts that are over by then."""
        return int(since_s // self.cut_every_s)

    def next_change_s(self, since_s: float) -> float:
        """Seconds until silence begins or ends."""
        if math.isinf(self.cut_every_s):
            return math.inf
        within = since_s % self.cut_every_s
        quiet = self.cut_every_s - self.silence_s
        return (quiet if within < quiet else self.cut_every_s) - within


class Line:
    """One direction. Times are monotonic seconds; packets leave in the order in which they came."""

    def __init__(self, conditions: Conditions, rng: random.Random) -> None:
        self._conditions = conditions
        self._rng = rng
        self._free_at = 0.0
        self._on_its_way: deque[tuple[float, bytes]] = deque()
        self.lost = 0
        """Packets, by chance or because a cut took them."""
        self.overflowed = 0
        """Packets that the queue had no room for."""

    def offer(self, packet: bytes, now: float) -> bool:
        """Whether it will arrive."""
        byte_s = 8 / self._conditions.bits_per_s
        starts = max(now, self._free_at)
        if (starts - now) / byte_s + len(packet) > self._conditions.queue_bytes:
            self.overflowed += 1
            return False
        self._free_at = starts + len(packet) * byte_s
        if self._rng.random() < self._conditions.loss:
            self.lost += 1
            return False
        self._on_its_way.append((self._free_at + self._conditions.delay_s, packet))
        return True

    def arrived(self, now: float) -> list[bytes]:
        found = []
        while self._on_its_way and self._on_its_way[0][0] <= now:
            found.append(self._on_its_way.popleft()[1])
        return found

    @property
    def next_at(self) -> float:
        """When the next packet arrives; infinite if there is none."""
        return self._on_its_way[0][0] if self._on_its_way else math.inf

    def drop(self) -> None:
        """What is on its way never arrives."""
        self.lost += len(self._on_its_way)
        self._on_its_way.clear()
        self._free_at = 0.0


class Segment(NamedTuple):
    """What matters of a TCP segment in an IPv4 packet."""

    source: tuple[bytes, int]
    target: tuple[bytes, int]
    sequence: int
    acknowledged: int
    flags: int
    data: int
    """Bytes that it carries."""

    @property
    def end(self) -> int:
        """Sequence number behind it: SYN and FIN count as a byte each."""
        signs = (self.flags & 1) + (self.flags >> 1 & 1)
        return (self.sequence + self.data + signs) % _SPACE


def read_segment(packet: bytes) -> Segment | None:
    """None for what is no TCP over IPv4, or a later fragment."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP:
        return None
    length, at = int.from_bytes(packet[2:4]), 4 * (packet[0] & 15)
    if int.from_bytes(packet[6:8]) & 0x1FFF or len(packet) < at + 20:
        return None
    source, target, sequence, acknowledged = struct.unpack_from("!HHII", packet, at)
    data = length - at - 4 * (packet[at + 12] >> 4)
    return Segment(
        (packet[12:16], source),
        (packet[16:20], target),
        sequence,
        acknowledged,
        packet[at + 13],
        data,
    )


def reset(source: tuple[bytes, int], target: tuple[bytes, int], sequence: int) -> bytes:
    """An IPv4 packet that ends the target's connection, if it awaits exactly that number."""
    ports = struct.pack("!HHIIBBHHH", source[1], target[1], sequence, 0, 5 << 4, RST, 0, 0, 0)
    pseudo = source[0] + target[0] + struct.pack("!BBH", 0, _TCP, len(ports))
    tcp = ports[:16] + _checksum(pseudo + ports).to_bytes(2) + ports[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, _TCP, 0)
    head += source[0] + target[0]
    return head[:10] + _checksum(head).to_bytes(2) + head[12:] + tcp


class Flows:
    """TCP connections that are seen, and how each of their ends can be told that they are over."""

    def __init__(self) -> None:
        self._said: dict[tuple[tuple[bytes, int], tuple[bytes, int]], int] = {}
        """By (end, its peer): the number that the end said it awaits."""
        self._reached: dict[tuple[tuple[bytes, int], tuple[bytes, int]], int] = {}
        """By (end, its peer): behind the furthest byte that reached the end."""

    def left(self, segment: Segment) -> int:
        """An end sent it, whatever becomes of it. Bytes that it acknowledges for the first time:
        they reached the end's program, or can."""
        if not segment.flags & _ACK:
            return 0
        key = segment.source, segment.target
        fresh = (segment.acknowledged - self._said.get(key, segment.acknowledged)) % _SPACE
        if fresh >= _MOST_AHEAD:
            return 0  # it was overtaken
        self._said[key] = segment.acknowledged
        return fresh

    def reached(self, segment: Segment) -> None:
        """The other end has it."""
        key = segment.target, segment.source
        if segment.flags & RST:
            self._forget(key)
            return
        before = self._reached.get(key, segment.end)
        if (segment.end - before) % _SPACE < _MOST_AHEAD:
            self._reached[key] = segment.end

    def resets(self) -> list[bytes]:
        """Packets that end them all, for whichever end each names. Which of two numbers an end
        awaits depends on what it has acknowledged and whether something before is missing."""
        found = [
            reset(peer, end, sequence)
            for end, peer in {*self._said, *self._reached}
            for known in [(self._said.get((end, peer)), self._reached.get((end, peer)))]
            for sequence in sorted({number for number in known if number is not None})
        ]
        self._said.clear()
        self._reached.clear()
        return found

    def _forget(self, key: tuple[tuple[bytes, int], tuple[bytes, int]]) -> None:
        for each in (key, key[::-1]):
            self._said.pop(each, None)
            self._reached.pop(each, None)


@dataclass(slots=True)
class Counted:
    """What arrived at one end."""

    packets: int = 0
    ip_bytes: int = 0
    tcp_bytes: int = 0
    """Carried by TCP, what arrived twice or behind a gap included."""
    in_order: int = 0
    """Of them: what TCP could hand on, which it never does twice."""


class Emulator:
    """Moves packets between two TUN devices, `near` and `far`, given as file descriptors that do
    not block. A context manager; its thread lives as long."""

    def __init__(self, near: int, far: int, conditions: Conditions, seed: int = 1) -> None:
        self.near = near
        self.far = far
        self.arrived = {near: Counted(), far: Counted()}
        """By end."""
        self.cuts = 0
        self.latest_s = 0.0
        """By how much a packet came later than it should have: whether this machine keeps up."""
        self._conditions = conditions
        self._lines = {
            far: Line(conditions, random.Random(f"{seed} there")),
            near: Line(conditions, random.Random(f"{seed} back")),
        }
        """By the end at which it arrives."""
        self._flows = Flows()
        self._began: float | None = None
        self._cuts_done = 0
        self._silent = False
        self._stopping, self._stop = os.pipe()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="emulator", daemon=True)

    def __enter__(self) -> Emulator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stop, b"\0")
        self._thread.join()
        os.close(self._stop)
        os.close(self._stopping)

    def begin(self) -> None:
        """From now on there are cuts, the first one a whole period later; counts start at 0."""
        with self._lock:
            self._began, self._cuts_done, self.cuts = time.monotonic(), 0, 0
            self.arrived = {self.near: Counted(), self.far: Counted()}

    @property
    def thrown_away(self) -> tuple[int, int]:
        """Packets that were lost, and that a queue had no room for, both ways."""
        lines = self._lines.values()
        return sum(line.lost for line in lines), sum(line.overflowed for line in lines)

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            with self._lock:
                self._cut(now)
                for end, line in self._lines.items():
                    self.latest_s = max(self.latest_s, now - line.next_at)
                    for packet in line.arrived(now):
                        self._hand_over(end, packet)
                wait = min(line.next_at for line in self._lines.values()) - now
                if self._began is not None:
                    wait = min(wait, self._conditions.next_change_s(now - self._began))
            ready, _, _ = select.select(
                [self.near, self.far, self._stopping], [], [], min(max(wait, 0.0), 1.0)
            )
            if self._stopping in ready:
                return
            for end in ready:
                self._take_in(end, self.far if end == self.near else self.near)

    def _take_in(self, end: int, other: int) -> None:
        while True:
            try:
                packet = os.read(end, 65_536)
            except BlockingIOError:
                return
            with self._lock:
                if (segment := read_segment(packet)) is not None:
                    self.arrived[end].in_order += self._flows.left(segment)
                if not self._silent:
                    self._lines[other].offer(packet, time.monotonic())

    def _hand_over(self, end: int, packet: bytes) -> None:
        counted = self.arrived[end]
        counted.packets += 1
        counted.ip_bytes += len(packet)
        if (segment := read_segment(packet)) is not None:
            counted.tcp_bytes += segment.data
            self._flows.reached(segment)
        os.write(end, packet)

    def _cut(self, now: float) -> None:
        if self._began is None:
            return
        since_s = now - self._began
        silent = self._conditions.silent_at(since_s)
        if silent and not self._silent:
            for line in self._lines.values():
                line.drop()
        self._silent = silent
        over = self._conditions.cuts_until(since_s)
        if over > self._cuts_done:
            self._cuts_done = self.cuts = over
            for packet in self._flows.resets():
                # Each end takes what is addressed to it; its own kernel drops the rest.
                os.write(self.near, packet)
                os.write(self.far, packet)


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
