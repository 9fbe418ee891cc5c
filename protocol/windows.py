"""What windows count: bodies of records, how two of them merge, and what of one may leave a device.

Counts add exactly, in whatever order windows merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS, Counts, add
from protocol.identifiers import Count, Digest, digest
from protocol.reported import ReportedState

PRIVATE_BELOW: Final = 20
"""A closed window of fewer answers ships totals only."""

MAX_EVIDENCE: Final = 16
MAX_STREAM: Final = 4096
"""Index of the residual of a profile with as many features as there may be."""
MAX_TENTHS: Final = 400
"""A detector's evidence is capped at ln e = 40."""

Evidence = tuple[tuple[Count, Count], ...]
"""`(stream, floor(10 ln e))` of at most 16 of a profile's streams, by stream."""


@dataclass(frozen=True, slots=True)
class InferenceWindow:
    """What a bundle answered. Totals always; histograms are empty where they were given up."""

    manifest: Digest
    profile: Digest
    answers: Count = 0
    """Requests answered: the record's `n`."""
    rows: Count = 0
    errors: Count = 0
    """Requests that the model failed on."""
    refused: Count = 0
    """Requests that broke the contract: the caller's fault."""
    nonfinite: Count = 0
    """Answers with NaN or infinity in an output."""
    latency: Counts = ()
    """`histogram.LATENCY_EDGES_S` slots, per request."""
    confidence: Counts = ()
    """`histogram.CONFIDENCE_BINS` bins of the largest probability, per row."""
    classes: Counts = ()
    """Rows per predicted class, in the contract's order."""
    by_rules: Count = 0
    """Requests that signed rules answered in the model's place; not among `answers`."""
    outside: Count = 0
    """Rows with an input value outside of the contract's range, or NaN where it gives a range.
    Only of monitored inputs."""
    labelled: Count = 0
    """Rows whose true label arrived in this window's time, whenever they were answered."""
    correct: Count = 0
    """Of those: the model had said the same."""
    labelled_bins: Counts = ()
    """`labelled` per bin of the confidence that the answer had had; less where that is unknown."""
    correct_bins: Counts = ()
    score: Counts = ()
    """Rows per slot of the profile's score."""

    def __post_init__(self) -> None:
        digest(self.manifest)
        digest(self.profile)
        # A device cannot make others' counts unmergeable: lengths are fixed by the bins.
        if len(self.latency) not in (0, LATENCY_SLOTS):
            raise ValueError(f"latency has {LATENCY_SLOTS} slots or none")
        for bins in (self.confidence, self.labelled_bins, self.correct_bins):
            if len(bins) not in (0, CONFIDENCE_BINS):
                raise ValueError(f"confidence has {CONFIDENCE_BINS} bins or none")


@dataclass(frozen=True, slots=True)
class DriftWindow:
    """Input counts per feature and slot of the reference profile. `n` is rows."""

    manifest: Digest
    profile: Digest
    rows: Count = 0
    counts: tuple[Counts, ...] = ()
    residual: Counts = ()
    """Rows per slot of the profile's residual."""
    looks: Count = 0
    """Windows that the device's detectors have seen, this one included."""
    evidence: Evidence = ()
    """After this window, of the detectors that have the most."""

    def __post_init__(self) -> None:
        digest(self.manifest)
        digest(self.profile)
        if len(self.evidence) > MAX_EVIDENCE:
            raise ValueError(f"evidence of at most {MAX_EVIDENCE} streams")
        if any(a >= b for (a, _), (b, _) in pairwise(self.evidence)):
            raise ValueError("evidence is in the order of its streams, each once")
        if any(index > MAX_STREAM or tenths > MAX_TENTHS for index, tenths in self.evidence):
            raise ValueError(f"evidence is of streams 0 to {MAX_STREAM:,}, up to {MAX_TENTHS}")


@dataclass(frozen=True, slots=True)
class EventWindow:
    """Things that happened, counted per problem code, with the newest detail."""

    counts: dict[str, Count] = field(default_factory=dict)
    newest: dict[str, Any] = field(default_factory=dict)


Body = InferenceWindow | DriftWindow | EventWindow | ReportedState


def merge_bodies(first: Body, second: Body) -> Body:
    """Exact sum; of two states the one with the higher `order`. `first` is the older one.

    Evidence is no count: of two windows the larger is kept, stream by stream.

    Raises `ValueError` for bodies of different kinds, models or profiles.
    """
    match first, second:
        case InferenceWindow(), InferenceWindow():
            _same_source(first, second)
            return InferenceWindow(
                first.manifest,
                first.profile,
                first.answers + second.answers,
                first.rows + second.rows,
                first.errors + second.errors,
                first.refused + second.refused,
                first.nonfinite + second.nonfinite,
                add(first.latency, second.latency),
                add(first.confidence, second.confidence),
                add(first.classes, second.classes),
                first.by_rules + second.by_rules,
                first.outside + second.outside,
                first.labelled + second.labelled,
                first.correct + second.correct,
                add(first.labelled_bins, second.labelled_bins),
                add(first.correct_bins, second.correct_bins),
                add(first.score, second.score),
            )
        case DriftWindow(), DriftWindow():
            _same_source(first, second)
            return replace(
                first,
                rows=first.rows + second.rows,
                counts=_add_tables(first.counts, second.counts),
                residual=add(first.residual, second.residual),
                looks=max(first.looks, second.looks),
                evidence=_most_evidence(first.evidence, second.evidence),
            )
        case EventWindow(), EventWindow():
            codes = {*first.counts, *second.counts}
            counts = {c: first.counts.get(c, 0) + second.counts.get(c, 0) for c in sorted(codes)}
            return EventWindow(counts, {**first.newest, **second.newest})
        case ReportedState(), ReportedState():
            return max(first, second, key=lambda state: state.order)
    raise ValueError(f"{type(first).__name__} and {type(second).__name__} do not merge")


def without_histograms(body: Body) -> Body:
    """Totals only: what a window of fewer than `PRIVATE_BELOW` answers ships."""
    match body:
        case InferenceWindow():
            return replace(
                body,
                latency=(),
                confidence=(),
                classes=(),
                labelled_bins=(),
                correct_bins=(),
                score=(),
            )
        case DriftWindow():
            return replace(body, counts=(), residual=())
    return body


def private(body: Body, n: int) -> Body:
    """What of a closed window of `n` answers may leave the device.

    Below `PRIVATE_BELOW` totals only. Labels are fewer than answers and have a bound of their own:
    below as many of them, their bins would say of single rows how sure the model was.
    """
    if n < PRIVATE_BELOW:
        return without_histograms(body)
    if isinstance(body, InferenceWindow) and 0 < body.labelled < PRIVATE_BELOW:
        return replace(body, labelled_bins=(), correct_bins=())
    return body


def _same_source(a: InferenceWindow | DriftWindow, b: InferenceWindow | DriftWindow) -> None:
    if (a.manifest, a.profile) != (b.manifest, b.profile):
        raise ValueError("windows of different models or profiles do not merge")


def _add_tables(a: Sequence[Counts], b: Sequence[Counts]) -> tuple[Counts, ...]:
    if not a or not b:
        return tuple(a or b)
    if len(a) != len(b):
        raise ValueError(f"tables of {len(a)} and {len(b)} features do not merge")
    return tuple(add(x, y) for x, y in zip(a, b, strict=True))


def _most_evidence(a: Evidence, b: Evidence) -> Evidence:
    """The larger of each stream, then the `MAX_EVIDENCE` largest, of equal ones the lower stream.

    What one merge leaves out is below 16 others that only grow, so the order of merges is free.
    """
    if not a or not b:
        return a or b
    best = dict(a)
    for stream, tenths in b:
        best[stream] = max(best.get(stream, 0), tenths)
    largest = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:MAX_EVIDENCE]
    return tuple(sorted(largest))
