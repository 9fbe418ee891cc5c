"""Numbered records: what travels up, how two of them merge, and which may.

A record is `(device, epoch, stream, lo..hi, part)`. Three rules make counts exact through loss,
repetition, reordering, crashes and restored disks: a random epoch per agent start, merging only
complete aligned blocks of final windows of one epoch and stream, and acks that are the store's
coverage after commit. Then two ranges that any history of an epoch can emit are nested or
disjoint, by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from protocol.codec import convert, to_wire
from protocol.identifiers import MAX_INT, Count, Digest, digest, digest_hex
from protocol.reported import ReportedState
from protocol.windows import MAX_EVIDENCE as MAX_EVIDENCE
from protocol.windows import MAX_STREAM as MAX_STREAM
from protocol.windows import MAX_TENTHS as MAX_TENTHS
from protocol.windows import PRIVATE_BELOW as PRIVATE_BELOW
from protocol.windows import Body as Body
from protocol.windows import DriftWindow as DriftWindow
from protocol.windows import EventWindow as EventWindow
from protocol.windows import Evidence as Evidence
from protocol.windows import InferenceWindow as InferenceWindow
from protocol.windows import merge_bodies as merge_bodies
from protocol.windows import private as private
from protocol.windows import without_histograms as without_histograms

FINAL: Final = 2**31 - 1
"""Part of a window that is closed and will never change."""

BLOCKS: Final = (1, 2, 4, 8, 24, 168, 1344)
"""Block sizes in windows. A block of size B starts at a multiple of B."""

MAX_RECORDS: Final = 500
MAX_RANGES: Final = 16

STATE_STREAM: Final = "state/-/-"
EVENT_STREAM: Final = "events/-/-"
KINDS: Final = ("state", "events", "inference", "drift")

Range = tuple[Count, Count]


@dataclass(frozen=True, slots=True)
class Record:
    """One window, or one merged block of them. Field names are short because they travel often."""

    e: Count
    """Epoch: 53 random bits, drawn at the first row an agent process writes."""
    s: str
    """Stream: kind, model and profile."""
    lo: Count
    hi: Count
    n: Count
    """Answers in it (1 for states; the number of events for events)."""
    b: dict[str, Any]
    part: Count = FINAL
    """Checkpoints so far while open, `FINAL` once closed."""
    t0: Count = 0
    """Unix ms, advisory: nothing is ordered or decided by it."""
    t1: Count = 0

    def __post_init__(self) -> None:
        kind = check_stream(self.s)
        size = self.hi - self.lo + 1
        if self.hi < self.lo or size not in BLOCKS or self.lo % size:
            raise ValueError(f"{self.lo}..{self.hi} is not an aligned block")
        if not 0 < self.part <= FINAL or (self.part != FINAL and self.lo != self.hi):
            raise ValueError("only a single window can be partial")
        if kind == "state" and (self.part != FINAL or size != 1 or self.n != 1):
            raise ValueError("a state is one final window")

    @property
    def key(self) -> tuple[int, str, int]:
        return (self.e, self.s, self.lo)

    @property
    def kind(self) -> str:
        return self.s.split("/", 1)[0]


@dataclass(frozen=True, slots=True)
class Upload:
    """`up/<shard>/<id>/records`. Without records it is a probe: "what do you have?"."""

    v: Count
    x: tuple[Record, ...] = ()
    held: tuple[tuple[Count, str, Count, Count], ...] = ()
    """Per epoch and stream the lowest and highest window still on the device."""

    def __post_init__(self) -> None:
        if self.v != 1:
            raise ValueError(f"records of schema {self.v}; this reads 1")
        if len(self.x) > MAX_RECORDS or len(self.held) > MAX_RECORDS:
            raise ValueError(f"at most {MAX_RECORDS} records at once")
        for _, stream, low, high in self.held:
            check_stream(stream)
            if low > high:
                raise ValueError("held ranges run upwards")


@dataclass(frozen=True, slots=True)
class StreamAck:
    """Coverage of one epoch and stream: stored, and stored safely (also in a backup)."""

    e: Count
    s: str
    have: tuple[Range, ...] = ()
    safe: tuple[Range, ...] = ()
    part: tuple[tuple[Count, Count, bool], ...] = ()
    """`(window, part, safe)` of partial windows."""

    def __post_init__(self) -> None:
        if max(len(self.have), len(self.safe), len(self.part)) > MAX_RANGES:
            raise ValueError(f"at most {MAX_RANGES} ranges per stream")


@dataclass(frozen=True, slots=True)
class Ack:
    """`devices/<id>/ack`, level-triggered: losing one costs a resend, repeating one nothing."""

    v: Count
    a: tuple[StreamAck, ...] = ()
    wait_s: float | None = None

    def __post_init__(self) -> None:
        if self.v != 1:
            raise ValueError(f"ack of schema {self.v}; this reads 1")


@dataclass(frozen=True, slots=True)
class Hello:
    """`ingest/<shard>`, retained. A different `g` means "probe", nothing else."""

    g: Count
    spread_s: float = 0.0
    codecs: tuple[Count, ...] = (1, 2)
    """Codec bytes that it reads."""


@dataclass(frozen=True, slots=True)
class Want:
    """`up/<shard>/<id>/want`: frames that did not come. Unnumbered, never buffered."""

    v: Count
    payload: Digest
    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        digest(self.payload)
        if self.v != 1 or not 0 < len(self.ranges) <= MAX_RANGES:
            raise ValueError(f"1 to {MAX_RANGES} ranges of schema 1")


_BODIES: Final[dict[str, type[Body]]] = {
    "inference": InferenceWindow,
    "drift": DriftWindow,
    "events": EventWindow,
    "state": ReportedState,
}


def stream_name(kind: str, manifest: Digest, profile: Digest) -> str:
    return f"{kind}/{digest_hex(manifest)[:16]}/{digest_hex(profile)[:16]}"


def check_stream(stream: str) -> str:
    """Kind of a stream. Raises `ValueError` unless it is `kind/model16/profile16`."""
    kind, *ids = stream.split("/")
    if kind not in KINDS or len(ids) != 2:
        raise ValueError(f"not a stream: {stream!r:.80}")
    for part in ids:
        if part != "-" and (len(part) != 16 or not set(part) <= set("0123456789abcdef")):
            raise ValueError(f"not a stream: {stream!r:.80}")
    return kind


def read_body(record: Record) -> Body:
    """The typed body. Raises `PeerError` where it does not have the form of its kind."""
    return convert(record.b, _BODIES[record.kind])


def merge_records(records: Sequence[Record]) -> Record:
    """One record of a complete aligned block of final records of one epoch and stream.

    Raises `ValueError` for anything else: merging less would count windows twice later.
    """
    ordered = sorted(records, key=lambda record: record.lo)
    first, last = ordered[0], ordered[-1]
    for before, after in pairwise(ordered):
        if (after.e, after.s) != (first.e, first.s) or after.lo != before.hi + 1:
            raise ValueError("records of a block are neighbours of one epoch and stream")
    if any(record.part != FINAL for record in ordered) or first.kind == "state":
        raise ValueError("only final windows merge, and states never")
    body = read_body(first)
    for record in ordered[1:]:
        body = merge_bodies(body, read_body(record))
    return Record(
        first.e,
        first.s,
        first.lo,
        last.hi,
        sum(record.n for record in ordered),
        to_wire(body),
        FINAL,
        first.t0,
        max(record.t1 for record in ordered),
    )


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> tuple[Range, ...]:
    """Sorted ranges with neighbours and overlaps joined."""
    merged: list[tuple[int, int]] = []
    for lo, hi in sorted(ranges):
        if merged and lo <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(hi, merged[-1][1]))
        else:
            merged.append((lo, hi))
    return tuple(merged)


def covers(ranges: Iterable[Range], lo: int, hi: int) -> bool:
    """Whether one of the (merged) ranges contains lo..hi."""
    return any(low <= lo and hi <= high for low, high in ranges)


def check_epoch(value: int) -> int:
    if not 0 <= value < MAX_INT:
        raise ValueError("an epoch has 53 bits")
    return value
