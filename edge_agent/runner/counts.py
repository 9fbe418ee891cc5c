"""Every answer is counted once and handed over once, whoever dies in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from edge_agent.runner.views import ModelWindows
from edge_agent.watch.fold import (
    FeatureFold,
    class_counts,
    confidence_counts,
    counts_classes,
    has_confidence,
)
from edge_agent.watch.ring import Ring
from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS
from protocol.identifiers import Digest
from protocol.members import Contract, Profile
from protocol.telemetry import DriftWindow, InferenceWindow, merge_bodies

T = TypeVar("T")


class Ledger(Generic[T]):
    """Gives what `collect` returns again and again until its number is acknowledged.

    Numbers start at 1. What was collected and not acknowledged is never mixed with what came
    later, so that a supervisor that committed it and then died can tell that it did.
    """

    def __init__(self) -> None:
        self._number = 0
        self._pending: T | None = None

    @property
    def number(self) -> int:
        """The number given last, 0 if none was."""
        return self._number

    def take(self, ack: int, collect: Callable[[], T | None]) -> tuple[int, T | None]:
        """`(number, content)`; without content there is nothing new and nothing to acknowledge.

        An `ack` below the pending number repeats it. Raises `ValueError` for a number that was
        never given.
        """
        if ack > self._number:
            raise ValueError(f"take {ack} was never given, the last one is {self._number}")
        if ack == self._number:
            self._pending = None
        if self._pending is None:
            self._pending = collect()
            if self._pending is not None:
                self._number += 1
        return self._number, self._pending


class Tally:
    """Counts of one loaded model. Answering and collecting may happen in different threads.

    An answer is only copied when it is given. It is counted when enough of them wait, and whenever
    somebody asks for the counts.
    """

    def __init__(
        self,
        model: str,
        digest: Digest,
        manifest: Digest,
        profile_digest: Digest,
        contract: Contract,
        profile: Profile,
    ) -> None:
        self._model = model
        self._digest = digest
        self._contract = contract
        self._nothing = InferenceWindow(manifest, profile_digest)
        self._no_drift = DriftWindow(manifest, profile_digest)
        self._before = self._nothing
        self._lock = threading.Lock()
        self._features = FeatureFold(profile.features) if profile.features else None
        self._ring = Ring(contract, self._fold_waiting, columns=self._features is not None)
        self.answered = self._ring.push
        """`(first input, outputs by name, rows, seconds)` of one answer. Raises `ValueError` for
        outputs that cannot be counted, and has then counted nothing."""
        self.shortcut = self._ring.shortcut
        self._reset()

    def _reset(self) -> None:
        self._requests = self._rows = self._errors = self._refused = self._by_rules = 0
        self._nonfinite = self._outside = 0
        self._latency = np.zeros(LATENCY_SLOTS, np.int64)
        self._confidence = np.zeros(CONFIDENCE_BINS, np.int64)
        self._classes = np.zeros(len(self._contract.classes), np.int64)
        self._columns = np.zeros(self._features.size if self._features else 0, np.int64)

    def failed(self) -> None:
        with self._lock:
            self._errors += 1

    def refused(self) -> None:
        with self._lock:
            self._refused += 1

    def answered_by_rules(self) -> None:
        """Counted apart: what rules answer says nothing about the model."""
        with self._lock:
            self._by_rules += 1

    def peek(self) -> InferenceWindow:
        """Everything since the model was loaded."""
        with self._lock:
            return _sum(self._before, self._open())

    def collect(self) -> ModelWindows | None:
        """What was counted since the last `collect`; None if that is nothing."""
        with self._lock:
            inference = self._open()
            if inference == self._nothing:
                return None
            drift = replace(
                self._no_drift,
                rows=inference.rows,
                counts=self._features.split(self._columns) if self._features else (),
            )
            self._before = _sum(self._before, inference)
            self._reset()
            return ModelWindows(self._model, self._digest, inference, drift)

    def _open(self) -> InferenceWindow:
        self._fold()
        if not (self._requests or self._errors or self._refused or self._by_rules):
            return self._nothing
        contract = self._contract
        return replace(
            self._nothing,
            answers=self._requests,
            rows=self._rows,
            errors=self._errors,
            refused=self._refused,
            by_rules=self._by_rules,
            nonfinite=self._nonfinite,
            outside=self._outside,
            latency=tuple(self._latency.tolist()),
            confidence=tuple(self._confidence.tolist()) if has_confidence(contract) else (),
            classes=tuple(self._classes.tolist()) if counts_classes(contract) else (),
        )

    def _fold_waiting(self) -> None:
        with self._lock:
            self._fold()

    def _fold(self) -> None:
        block = self._ring.drain()
        if block is None:
            return
        self._requests += block.requests
        self._rows += block.rows
        self._nonfinite += block.nonfinite
        self._outside += block.outside
        self._latency += block.latency
        self._confidence += confidence_counts(block.answers)
        self._classes += class_counts(block.answers, len(self._classes))
        if self._features is not None and block.columns is not None:
            self._columns += self._features(block.columns)


def _sum(first: InferenceWindow, second: InferenceWindow) -> InferenceWindow:
    merged = merge_bodies(first, second)
    assert isinstance(merged, InferenceWindow)
    return merged
