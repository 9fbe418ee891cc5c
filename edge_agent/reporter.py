"""Says what is true here, completely: on change, on connect, and every now and then."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from edge_agent.denials import SHADOWING
from edge_agent.shadow import news
from protocol.reported import BufferState, DriftState, ModelState, ReportedState


class States(Protocol):
    """The part of the outbox that this needs."""

    def put_state(self, state: ReportedState, now_ms: int) -> int: ...


class Reporter:
    """Puts states into the outbox. Used by the supervisor's thread."""

    def __init__(self, outbox: States, interval_s: float) -> None:
        self._outbox = outbox
        self._interval_s = interval_s
        self._last: ReportedState | None = None
        self._last_s = 0.0

    def forget(self) -> None:
        """Report at the next occasion even if nothing changed: the link is back."""
        self._last = None

    def every(self, interval_s: float) -> None:
        self._interval_s = interval_s

    def report(self, state: ReportedState, now_s: float, now_ms: int) -> bool:
        """Record the state if it is news. Raises `Unavailable` (OUT-D50x)."""
        essence = _essence(state)
        if essence == self._last and now_s - self._last_s < self._interval_s:
            return False
        self._outbox.put_state(state, now_ms)
        self._last, self._last_s = essence, now_s
        return True


def _essence(state: ReportedState) -> ReportedState:
    """What makes a state news: gauges that move all the time do not."""
    models = {name: _settled(model) for name, model in state.models.items()}
    return replace(
        state, order=0, models=models, buffer=BufferState(), disk_free_bytes=0, counters={}
    )


def _settled(model: ModelState) -> ModelState:
    guards, shadow, drift = model.guards, model.shadow, model.drift
    counts_rows = model.waiting == SHADOWING and shadow is not None
    return replace(
        model,
        progress=None,
        guards=replace(guards, looks=0, requests=0, marks=0) if guards is not None else None,
        shadow=news(shadow) if shadow is not None else None,
        drift=_found(drift) if drift is not None else None,
        waiting_detail="" if counts_rows else model.waiting_detail,
    )


def _found(drift: DriftState) -> DriftState:
    """Whether it says so, and from what on; evidence moves with every window."""
    return DriftState(threshold=drift.threshold, since_ms=int(drift.since_ms > 0))
