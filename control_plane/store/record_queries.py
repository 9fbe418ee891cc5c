"""Questions about stored records. Every answer is a sum over them at the time of asking."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

from control_plane.rollout.clock import Span
from control_plane.rollout.exposure import Placed, latest_end, within
from protocol.codec import MAX_UP_UNPACKED, decode
from protocol.identifiers import MAX_INT, DeviceId, Digest, digest_hex
from protocol.reported import ReportedState
from protocol.telemetry import (
    FINAL,
    STATE_STREAM,
    Body,
    DriftWindow,
    EventWindow,
    InferenceWindow,
    merge_bodies,
    stream_name,
)

Window = TypeVar("Window", InferenceWindow, DriftWindow)

_TYPES: Final[dict[str, type[Body]]] = {
    "inference": InferenceWindow,
    "drift": DriftWindow,
    "events": EventWindow,
    "state": ReportedState,
}


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """One stored record of a device, with its typed body."""

    device: DeviceId
    epoch: int
    stream: str
    lo: int
    hi: int
    final: bool
    t0_ms: int
    t1_ms: int
    n: int
    body: Body


@dataclass(frozen=True, slots=True)
class StoredEvent:
    device: DeviceId
    code: str
    """Problem code, or the result of a trial (`committed`, `rolled_back`, ...)."""
    count: int
    at_ms: int
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Merged(Generic[Window]):
    """The sum of all windows of a group of devices."""

    body: Window
    windows: int = 0
    devices: int = 0
    unfit: int = 0
    """Windows with other bins than asked for: not in the sum."""


class RecordQueries:
    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect

    def newest_states(
        self, devices: Collection[DeviceId] | None = None
    ) -> dict[str, ReportedState]:
        """The state with the highest `order` of each device (of all without `devices`)."""
        rows = self._connect().execute(
            "SELECT device, body, max(json_extract(body, '$.order')) FROM record"
            " WHERE stream=? AND (? OR device IN (SELECT value FROM json_each(?)))"
            " GROUP BY device",
            (STATE_STREAM, devices is None, json.dumps(sorted(devices or ()))),
        )
        return {device: _read(body, ReportedState) for device, body, _ in rows}

    def newest_state(self, device: DeviceId) -> ReportedState | None:
        return self.newest_states([device]).get(device)

    def answers_by_device(self, manifests: Collection[Digest] | None = None) -> dict[str, int]:
        """Σ n of inference records per device, of all bundles or of the given variants."""
        chosen = sorted({_source("inference", each) for each in manifests or ()})
        rows = self._connect().execute(
            "SELECT device, sum(n) FROM record WHERE stream LIKE 'inference/%' AND (? OR"
            " substr(stream, 1, 26) IN (SELECT value FROM json_each(?))) GROUP BY device",
            (manifests is None, json.dumps(chosen)),
        )
        return {device: int(n) for device, n in rows}

    def answers(
        self,
        devices: Collection[DeviceId] | None = None,
        manifests: Collection[Digest] | None = None,
    ) -> int:
        """Σ n of inference records."""
        every = self.answers_by_device(manifests)
        return sum(n for device, n in every.items() if devices is None or device in devices)

    def stored(self, device: DeviceId) -> dict[str, int]:
        """Σ n per kind of record."""
        rows = self._connect().execute(
            "SELECT substr(stream, 1, instr(stream, '/') - 1) AS kind, sum(n) FROM record"
            " WHERE device=? GROUP BY kind",
            (device,),
        )
        return {kind: int(n) for kind, n in rows}

    def inference(
        self,
        manifest: Digest,
        profile: Digest,
        groups: Mapping[str, Collection[DeviceId]],
        *,
        classes: int | None = None,
        since_ms: int = 0,
        until_ms: int = MAX_INT,
    ) -> dict[str, Merged[InferenceWindow]]:
        """Per group the sum of its devices' windows that overlap the time range, without scores.

        `classes` is the number of classes of the contract; None leaves them out of the sum. Times
        are the devices' own.
        """
        member = {device: name for name, devices in groups.items() for device in devices}
        empty = InferenceWindow(manifest, profile)
        sums = dict.fromkeys(groups, Merged(empty))
        seen: dict[str, set[str]] = {name: set() for name in groups}
        for device, window in self._bodies("inference", empty, since_ms, until_ms):
            name = member.get(device)
            if name is None:
                continue
            if (window.manifest, window.profile) != (manifest, profile) or (
                classes is not None and len(window.classes) not in (0, classes)
            ):
                sums[name] = replace(sums[name], unfit=sums[name].unfit + 1)
                continue
            seen[name].add(device)
            kept = replace(window, score=(), classes=window.classes if classes is not None else ())
            sums[name] = _plus(sums[name], kept)
        return {name: replace(sums[name], devices=len(seen[name])) for name in groups}

    def drift_by_device(
        self,
        manifest: Digest,
        profile: Digest,
        *,
        slots: Sequence[int],
        residual: int = 0,
        since_ms: int = 0,
        until_ms: int = MAX_INT,
    ) -> Iterator[tuple[DeviceId, Merged[DriftWindow]]]:
        """Per device the sum of its windows that overlap the time range, one device after another.

        `slots` per feature, and of the `residual` (0: there is none), are those of the profile.
        """
        shape = tuple(slots)
        empty = DriftWindow(manifest, profile)
        found = self._bodies("drift", empty, since_ms, until_ms)
        for device, windows in groupby(found, key=itemgetter(0)):
            merged = Merged(empty, devices=1)
            for _, window in windows:
                if (
                    (window.manifest, window.profile) != (manifest, profile)
                    or (window.counts and tuple(map(len, window.counts)) != shape)
                    or len(window.residual) not in (0, residual)
                ):
                    merged = replace(merged, unfit=merged.unfit + 1)
                else:
                    merged = _plus(merged, window)
            yield device, merged

    def windows(
        self,
        device: DeviceId,
        *,
        kinds: Collection[str] = ("inference", "drift"),
        since_ms: int = 0,
        until_ms: int = MAX_INT,
    ) -> list[StoredWindow]:
        """A device's records that overlap the time range, by their advisory start."""
        rows = self._connect().execute(
            "SELECT device, epoch, stream, lo, hi, part, t0, t1, n, body FROM record"
            " WHERE device=? AND t1>=? AND t0<=? ORDER BY t0, epoch, stream, lo",
            (device, since_ms, until_ms),
        )
        return [_window(row) for row in rows if row[2].split("/", 1)[0] in kinds]

    def inference_within(
        self, device: DeviceId, manifests: Collection[Digest], span: Span
    ) -> list[Placed]:
        """A device's closed inference windows of these variants whose middle is in the span.

        Reads no others, however long the device has been there.
        """
        rows = self._connect().execute(
            f"SELECT t0, t1, c, body FROM record WHERE {_CLOSED} AND t1 BETWEEN ? AND ?",
            (device, _digits(manifests), span.from_ms, latest_end(span)),
        )
        placed = [
            Placed(t0, t1, c, _read(body, InferenceWindow))
            for t0, t1, c, body in rows
            if within(span, t0, t1)
        ]
        return [each for each in placed if each.body.manifest in manifests]

    def reaches(self, device: DeviceId, manifests: Collection[Digest], at_ms: int) -> bool:
        """Whether a closed inference window of these variants ends at this time or later."""
        row = self._connect().execute(
            f"SELECT 1 FROM record WHERE {_CLOSED} AND t1 >= ? LIMIT 1",
            (device, _digits(manifests), at_ms),
        )
        return row.fetchone() is not None

    def events(
        self, device: DeviceId | None = None, *, since_ms: int = 0, code: str | None = None
    ) -> list[StoredEvent]:
        """What happened, oldest first; of one device, and of one code, if given."""
        rows = self._connect().execute(
            "SELECT device, t1, body FROM record WHERE stream LIKE 'events/%' AND t1>=?2"
            " AND (?1 IS NULL OR device=?1) ORDER BY t1, device, epoch, lo",
            (device, since_ms),
        )
        return [
            StoredEvent(owner, each, count, at_ms, _as_dict(window.newest.get(each)))
            for owner, at_ms, body in rows
            for window in [_read(body, EventWindow)]
            for each, count in window.counts.items()
            if code in (None, each)
        ]

    def _bodies(
        self, kind: str, empty: Window, since_ms: int, until_ms: int
    ) -> Iterator[tuple[DeviceId, Window]]:
        """By device."""
        rows = self._connect().execute(
            "SELECT device, body FROM record WHERE stream=? AND t1>=? AND t0<=? ORDER BY device",
            (stream_name(kind, empty.manifest, empty.profile), since_ms, until_ms),
        )
        for device, body in rows:
            yield device, _read(body, type(empty))


def both(first: Window, second: Window) -> Window:
    """Their sum. Raises `ValueError` for windows of other models, profiles or bins."""
    merged = merge_bodies(first, second)
    if not isinstance(merged, type(first)):
        raise TypeError("counts and counts give counts")
    return merged


def _plus(merged: Merged[Window], window: Window) -> Merged[Window]:
    return replace(merged, body=both(merged.body, window), windows=merged.windows + 1)


_CLOSED: Final = (
    # The first two terms are those of the index `record_inference`.
    "stream >= 'inference/' AND stream < 'inference0' AND device = ?"
    f" AND part = {FINAL} AND substr(stream, 11, 16) IN (SELECT value FROM json_each(?))"
)


def _digits(manifests: Collection[Digest]) -> str:
    return json.dumps(sorted({digest_hex(each)[:16] for each in manifests}))


def _source(kind: str, manifest: Digest) -> str:
    return stream_name(kind, manifest, manifest)[: len(kind) + 17]


def _window(row: tuple[Any, ...]) -> StoredWindow:
    device, epoch, stream, lo, hi, part, t0, t1, n, body = row
    typed = _read(body, _TYPES[stream.split("/", 1)[0]])
    return StoredWindow(device, epoch, stream, lo, hi, part == FINAL, t0, t1, n, typed)


T = TypeVar("T")


def _read(body: str, into: type[T]) -> T:
    return decode(body.encode(), into, limit=MAX_UP_UNPACKED)


def _as_dict(detail: object) -> dict[str, Any]:
    return detail if isinstance(detail, dict) else {}
