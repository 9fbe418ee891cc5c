"""What one device counted of its inputs within a span of time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from typing import Final

from control_plane.rollout.clock import Span
from control_plane.rollout.exposure import latest_end, within
from protocol.codec import MAX_UP_UNPACKED, decode
from protocol.identifiers import DeviceId, Digest, digest_hex
from protocol.telemetry import FINAL, DriftWindow

_CLOSED: Final = (
    # The first three terms are those of the index `record_drift_device`.
    "stream >= 'drift/' AND stream < 'drift0' AND device = ?"
    f" AND part = {FINAL} AND substr(stream, 7, 16) IN (SELECT value FROM json_each(?))"
)


class DriftSpans:
    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect

    def within(
        self, device: DeviceId, manifests: Collection[Digest], span: Span
    ) -> list[DriftWindow]:
        """Its closed windows of these variants whose middle is in the span.

        Reads no others, however long the device has been there.
        """
        digits = json.dumps(sorted({digest_hex(each)[:16] for each in manifests}))
        rows = self._connect().execute(
            f"SELECT t0, t1, body FROM record WHERE {_CLOSED} AND t1 BETWEEN ? AND ?"
            " ORDER BY t1, epoch, stream, lo",
            (device, digits, span.from_ms, latest_end(span)),
        )
        bodies = [
            decode(body.encode(), DriftWindow, limit=MAX_UP_UNPACKED)
            for t0, t1, body in rows
            if within(span, t0, t1)
        ]
        return [each for each in bodies if each.manifest in manifests]
