"""Every answer is counted once and handed over once, whoever dies in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.views import ModelWindows
from edge_agent.watch.columns import Columns
from edge_agent.watch.fold import (
    FeatureFold,
    binned,
    class_counts,
    confidence_counts,
    counts_classes,
    has_confidence,
)
from edge_agent.watch.residual import Residuals
from edge_agent.watch.ring import Ring
from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS, Counts
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
        self._window = (profile.window_s, profile.window_rows)
        columns = Columns(contract, profile)
        self.columns: Columns | None = None if columns.plain or not profile.features else columns
        """What makes the first argument of `answered` out of inputs and outputs. None: the first
        input itself is that."""
        self._features = len(profile.features)
        self._streams = _streams(profile)
        self._residuals = _residuals(profile)
        self._scores = FeatureFold([profile.score]) if profile.score is not None else None
        self._ring = Ring(
            contract,
            self._fold_waiting,
            columns=self._streams is not None,
            width=self.columns.width if self.columns is not None else None,
            score=self._scores is not None,
        )
        self.answered = self._ring.push
        """`(what is monitored, outputs by name, rows, seconds)` of one answer. Raises `ValueError`
        for outputs that cannot be counted, and has then counted nothing."""
        self.shortcut = self._ring.shortcut if self.columns is None else None
        self._reset()

    def _reset(self) -> None:
        self._requests = self._rows = self._errors = self._refused = self._by_rules = 0
        self._nonfinite = self._outside = 0
        self._latency = np.zeros(LATENCY_SLOTS, np.int64)
        self._confidence = np.zeros(CONFIDENCE_BINS, np.int64)
        self._classes = np.zeros(len(self._contract.classes), np.int64)
        self._columns = np.zeros(self._streams.size if self._streams else 0, np.int64)
        self._score = np.zeros(self._scores.size if self._scores else 0, np.int64)
        self._labelled = self._correct = 0
        self._labelled_bins = np.zeros(CONFIDENCE_BINS, np.int64)
        self._correct_bins = np.zeros(CONFIDENCE_BINS, np.int64)

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

    def feedback(self, correct: NDArray[np.bool_], confidence: NDArray[np.float32] | None) -> None:
        """Count rows whose true label came: [rows] whether the prediction was right, and how sure
        it was, NaN where that is not known. They are not answers: those were counted before."""
        if confidence is None:
            confidence = np.full(len(correct), np.nan, np.float32)
        labelled, right = binned(confidence), binned(confidence[correct])
        with self._lock:
            self._labelled += len(correct)
            self._correct += int(correct.sum())
            self._labelled_bins += labelled
            self._correct_bins += right

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
            streams = self._streams.split(self._columns) if self._streams else ()
            drift = replace(
                self._no_drift,
                rows=inference.rows,
                counts=streams[: self._features],
                residual=streams[-1] if len(streams) > self._features else (),
            )
            self._before = _sum(self._before, inference)
            self._reset()
            return ModelWindows(self._model, self._digest, inference, drift, *self._window)

    def _open(self) -> InferenceWindow:
        self._fold()
        counted = self._requests or self._errors or self._refused or self._by_rules
        if not (counted or self._labelled):
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
            labelled=self._labelled,
            correct=self._correct,
            labelled_bins=_unless_empty(self._labelled_bins),
            correct_bins=_unless_empty(self._correct_bins),
            score=tuple(self._score.tolist()),
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
        if has_confidence(self._contract):
            self._confidence += confidence_counts(block.answers)
        if counts_classes(self._contract):
            self._classes += class_counts(block.answers, len(self._classes))
        if self._streams is not None and (watched := block.columns) is not None:
            if self._residuals is not None:
                watched = self._residuals.behind(watched)
            self._columns += self._streams(watched)
        if self._scores is not None and block.scores is not None:
            self._score += self._scores(block.scores)


def _streams(profile: Profile) -> FeatureFold | None:
    """Counts the features and, behind them, the residual."""
    if not profile.features:
        return None
    return FeatureFold([profile.stream(index) for index in range(profile.streams)])


def _residuals(profile: Profile) -> Residuals | None:
    """None also where the errors come with the coordinates of a projected output."""
    if profile.residual is None or profile.residual.basis is None:
        return None
    numbers = [n for n, feature in enumerate(profile.features) if feature.kind == "number"]
    return Residuals(profile.residual.basis, numbers)


def _unless_empty(bins: NDArray[np.int64]) -> Counts:
    return tuple(bins.tolist()) if bins.any() else ()


def _sum(first: InferenceWindow, second: InferenceWindow) -> InferenceWindow:
    merged = merge_bodies(first, second)
    assert isinstance(merged, InferenceWindow)
    return merged
