"""What the control plane said it has: suppresses sending, and is never a reason to delete.

Kept in memory only, and forgotten on reconnect, on a new ingester's hello and after six hours,
so that a control plane restored from a backup gets again what it lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge_agent.outgoing import RowKey, is_covered
from protocol.telemetry import Range, StreamAck, merge_ranges

_STREAMS: Final = 4096
"""Remembered at most, with as many ranges each; beyond it all is forgotten and sent again."""


@dataclass(frozen=True, slots=True)
class _Known:
    have: tuple[Range, ...] = ()
    parts: tuple[tuple[int, int], ...] = ()


class Coverage:
    """Sum of all acks since it was last forgotten. Late and repeated ones take nothing away."""

    def __init__(self) -> None:
        self._streams: dict[tuple[int, str], _Known] = {}

    def forget(self) -> None:
        self._streams = {}

    def learn(self, acks: Iterable[StreamAck]) -> None:
        for ack in acks:
            known = self._streams.get((ack.e, ack.s), _Known())
            have = merge_ranges((*known.have, *ack.have))
            parts = dict(known.parts)
            for window, part, _ in ack.part:
                parts[window] = max(part, parts.get(window, 0))
            if max(len(self._streams), len(have), len(parts)) >= _STREAMS:
                self.forget()
            self._streams[ack.e, ack.s] = _Known(have, tuple(parts.items()))

    def has(self, row: RowKey) -> bool:
        epoch, stream, lo, hi, part = row
        known = self._streams.get((epoch, stream))
        return known is not None and is_covered(known.have, known.parts, lo, hi, part)
