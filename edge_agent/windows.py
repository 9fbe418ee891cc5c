"""Windows that are still open: what the outbox keeps in memory beside their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from protocol.identifiers import Digest, ModelName
from protocol.telemetry import (
    DriftWindow,
    InferenceWindow,
    merge_bodies,
    stream_name,
)

Counted = InferenceWindow | DriftWindow


class ModelCounts(Protocol):
    """What one model did since the last take; the runner's `ModelWindows` has this form."""

    @property
    def model(self) -> ModelName: ...
    @property
    def digest(self) -> Digest: ...
    @property
    def inference(self) -> InferenceWindow: ...
    @property
    def drift(self) -> DriftWindow: ...
    @property
    def window_s(self) -> float: ...
    @property
    def window_rows(self) -> int: ...


class TakenCounts(Protocol):
    """Counts handed over by a runner, repeated until acknowledged; `runners.Take` has this form.

    Runner ids never repeat on a device: `seq` counts from 1 in each.
    """

    @property
    def runner(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def windows(self) -> Sequence[ModelCounts]: ...


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """One window number of one stream, and the sum of what was committed to it so far."""

    stream: str
    number: int
    opened_s: float
    """Monotonic."""
    t0_ms: int
    t1_ms: int
    body: Counted
    model: ModelName
    window_s: float
    """How long it stays open at least."""
    least: int
    """And until it holds so many answers or rows."""
    part: int = 1
    slot: int | None = None
    """Its row in the baseline; only inference windows have one."""

    @property
    def n(self) -> int:
        return answers_of(self.body)

    def plus(self, counts: Counted, now_ms: int) -> OpenWindow:
        total = merge_bodies(self.body, counts)
        if not isinstance(total, InferenceWindow | DriftWindow):
            raise TypeError("counts and counts give counts")
        return replace(self, body=total, part=self.part + 1, t1_ms=max(self.t0_ms, now_ms))

    def due(self, now_s: float) -> bool:
        return now_s - self.opened_s >= self.window_s and self.n >= self.least


def answers_of(body: Counted) -> int:
    """The record's `n`: answers of an inference window, rows of a drift window."""
    return body.answers if isinstance(body, InferenceWindow) else body.rows


def bodies_of(counts: ModelCounts) -> Iterator[tuple[str, Counted]]:
    """`(stream, body)` of everything that has something in it."""
    inference, drift = counts.inference, counts.drift
    asked = inference.answers or inference.errors or inference.refused or inference.nonfinite
    if asked or inference.labelled:
        yield stream_name("inference", inference.manifest, inference.profile), inference
    if drift.rows:
        yield stream_name("drift", drift.manifest, drift.profile), drift
