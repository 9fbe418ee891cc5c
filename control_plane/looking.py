"""Reads what one device did after its clock started, and at the same hours before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control_plane.drift.distance import drift_score
from control_plane.rollout.clock import Span, Timing
from control_plane.rollout.exposure import Placed, most_classes, sums
from control_plane.rollout.score import Sums
from control_plane.store import Store
from control_plane.store.bets import REHEARSAL, Pending
from control_plane.store.drift_spans import DriftSpans
from control_plane.store.rollouts import Rollout
from control_plane.watched_fleet import ProfileOf
from protocol.histogram import Counts, add
from protocol.identifiers import Digest
from protocol.members import Profile
from protocol.telemetry import DriftWindow


@dataclass(frozen=True, slots=True)
class Seen:
    """`records`: first and last number of ingest of the windows; (0, 0) without any."""

    after: Sums
    before: Sums
    classes: int
    records: tuple[int, int]


class Windows:
    """Windows of one rollout's model, as the store has them now."""

    def __init__(
        self, store: Store, rollout: Rollout, timing: Timing, profile_of: ProfileOf
    ) -> None:
        """Windows of inputs are read only if the rollout's gates look at drift."""
        self._store = store
        self._profile_of = profile_of
        self._drift = rollout.spec.gates.drift is not None
        self._spans = DriftSpans(store.connection)
        self._timing = timing
        variants = store.bundles.variants(rollout.model)
        self._every = frozenset[Digest]().union(*variants.values())
        self._candidate = variants.get(rollout.candidate, frozenset())
        # Of other bundles: one that shares a variant with the candidate is told apart by time.
        self._others = frozenset[Digest]().union(
            *(each for bundle, each in variants.items() if bundle != rollout.candidate)
        )

    def complete(self, pending: Pending) -> bool:
        """Whether the device's windows reach past the end of its exposure."""
        return self._store.records.reaches(pending.device, self._every, pending.end_ms)

    def seen(self, pending: Pending, classes: int | None) -> Seen:
        """A candidate's windows of the candidate, and of what it served before; everybody else's
        of whatever they serve. `classes` None: the number that most of its windows have."""
        tried = pending.side == "a" and pending.wave != REHEARSAL
        span = Span(pending.clock_ms, pending.end_ms)
        past = self._timing.past(span)
        mine, others = (
            self._candidate if tried else self._every,
            self._others if tried else self._every,
        )
        after, before = self._within(pending, mine, [span]), self._within(pending, others, past)
        if classes is None:
            classes = most_classes(len(each.body.classes) for each in (*after, *before))
        numbers = [each.number for each in (*after, *before)]
        records = (min(numbers, default=0), max(numbers, default=0))
        then, now = sums(before, classes), sums(after, classes)
        if self._drift and pending.exposure_ms == self._timing.exposures_ms[-1]:
            now += self._inputs(pending, mine, [span])
            then += self._inputs(pending, others, past)
        return Seen(now, then, classes, records)

    def _within(
        self, pending: Pending, manifests: frozenset[Digest], spans: Sequence[Span]
    ) -> list[Placed]:
        return [
            each
            for span in spans
            for each in self._store.records.inference_within(pending.device, manifests, span)
        ]

    def _inputs(
        self, pending: Pending, manifests: frozenset[Digest], spans: Sequence[Span]
    ) -> Sums:
        """How far the device's inputs are from the references that they were counted against."""
        windows = [
            each for span in spans for each in self._spans.within(pending.device, manifests, span)
        ]
        found = Sums()
        for profile in sorted({each.profile for each in windows}):
            reference = self._profile_of(profile)
            if reference is not None:
                mine = (each for each in windows if each.profile == profile)
                found += _distance(reference, mine)
        return found


def _distance(reference: Profile, windows: Iterable[DriftWindow]) -> Sums:
    """Windows of other bins than the reference's are left out."""
    slots = [len(feature.counts) for feature in reference.features]
    merged: tuple[Counts, ...] = tuple((0,) * each for each in slots)
    rows = 0
    for window in windows:
        if [len(each) for each in window.counts] == slots:
            merged = tuple(add(a, b) for a, b in zip(merged, window.counts, strict=True))
            rows += window.rows
    score = drift_score(reference, merged)
    return Sums() if score is None else Sums(drift=score, drift_rows=rows)
