"""Stored windows of input counts: which ones a finding rests on, and what they add up to.

Windows are placed by the middle of their time on the device's clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from protocol.codec import encode
from protocol.histogram import Counts, add
from protocol.identifiers import DeviceId, Digest, digest_from_hex
from protocol.members import Feature, Profile
from protocol.telemetry import DriftWindow

Table = tuple[Counts, ...]
"""Counts per stream of a profile: its features, then its residual if it has one."""

LONGEST: Final = 2
"""Slots. A longer block of a device that ran out of room counts in days only."""


class Row(Protocol):
    """One closed window of a device, or a block of them, as the store has it."""

    @property
    def device(self) -> DeviceId: ...
    @property
    def epoch(self) -> int: ...
    @property
    def lo(self) -> int: ...
    @property
    def hi(self) -> int: ...
    @property
    def t0_ms(self) -> int: ...
    @property
    def t1_ms(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def c(self) -> int: ...
    @property
    def body(self) -> DriftWindow: ...


@dataclass(frozen=True, slots=True)
class Query:
    """Which windows: their middle in `from_ms` ≤ t < `to_ms`, stored up to transaction `upto`."""

    from_ms: int
    to_ms: int
    upto: int
    slot_ms: int
    by: str | None = None
    """The label that makes cohorts, and the value of this one (None: devices without it)."""
    value: str | None = None
    devices: tuple[DeviceId, ...] | None = None
    """None: all that have such windows, or too many to name."""
    left_out: tuple[DeviceId, ...] = ()
    """Devices that a cohort is judged without: their sensors are broken."""


def placed(query: Query, profile: Profile, rows: Iterable[Row]) -> list[Row]:
    """The rows that are asked for, by device and time; not those of other bins."""
    slots = [len(feature.counts) for feature in profile.features]
    wanted = frozenset(query.devices) if query.devices is not None else None
    out = frozenset(query.left_out)
    kept = [
        row
        for row in rows
        if 2 * query.from_ms <= row.t0_ms + row.t1_ms < 2 * query.to_ms
        and row.c <= query.upto
        and (wanted is None or row.device in wanted)
        and row.device not in out
        and [len(each) for each in row.body.counts] == slots
        and len(row.body.residual) in (0, _residual_slots(profile))
    ]
    return sorted(kept, key=lambda row: (row.device, row.t0_ms, row.epoch, row.lo))


def counts_of(rows: Sequence[Row]) -> Digest:
    """SHA-256 of the canonical JSON of [[device, epoch, lo, hi, n, counts, residual], …]."""
    found = sha256(b"[")
    ordered = sorted(rows, key=lambda row: (row.device, row.epoch, row.lo, row.hi))
    for number, row in enumerate(ordered):
        body = row.body
        one = [row.device, row.epoch, row.lo, row.hi, row.n, body.counts, body.residual]
        found.update((b"," if number else b"") + encode(one))
    found.update(b"]")
    return digest_from_hex(found.hexdigest())


def table_of(profile: Profile, body: DriftWindow) -> Table:
    """Counts of all streams; () for a residual that was not kept."""
    return body.counts if profile.residual is None else (*body.counts, body.residual)


def streams_of(profile: Profile) -> list[Feature]:
    return [profile.stream(index) for index in range(profile.streams)]


def by_slot(
    profile: Profile, query: Query, rows: Iterable[Row]
) -> dict[int, dict[DeviceId, Table]]:
    """Per slot of time what each device counted; blocks longer than `LONGEST` slots are in none."""
    slots: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.t1_ms - row.t0_ms <= LONGEST * query.slot_ms:
            slots[(row.t0_ms + row.t1_ms) // 2 // query.slot_ms].append(row)
    return {slot: by_device(profile, here) for slot, here in slots.items()}


def by_device(profile: Profile, rows: Iterable[Row]) -> dict[DeviceId, Table]:
    """What each device counted in all its rows."""
    found: dict[DeviceId, Table] = {}
    for row in rows:
        table = table_of(profile, row.body)
        known = found.get(row.device)
        found[row.device] = _plus(known, table) if known is not None else table
    return found


def added(profile: Profile, rows: Iterable[Row]) -> Table:
    """What all rows come to; () without any."""
    found: Table | None = None
    for row in rows:
        table = table_of(profile, row.body)
        found = _plus(found, table) if found is not None else table
    return found or ()


def _plus(first: Table, second: Table) -> Table:
    return tuple(add(a, b) for a, b in zip(first, second, strict=True))


def total(counts: Iterable[Counts]) -> Counts:
    found: Counts = ()
    for each in counts:
        found = add(found, each)
    return found


def _residual_slots(profile: Profile) -> int:
    return len(profile.residual.feature.counts) if profile.residual is not None else 0
