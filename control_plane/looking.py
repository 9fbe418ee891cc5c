"""Reads what one device did after its clock started, and at the same hours before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.rollout.clock import Span, Timing
from control_plane.rollout.exposure import Placed, most_classes, sums
from control_plane.rollout.score import Sums
from control_plane.store import Store
from control_plane.store.bets import REHEARSAL, Pending
from control_plane.store.rollouts import Rollout
from protocol.identifiers import Digest


@dataclass(frozen=True, slots=True)
class Seen:
    """`records`: first and last number of ingest of the windows; (0, 0) without any."""

    after: Sums
    before: Sums
    classes: int
    records: tuple[int, int]


class Windows:
    """Windows of one rollout's model, as the store has them now."""

    def __init__(self, store: Store, rollout: Rollout, timing: Timing) -> None:
        self._store = store
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
        after = self._within(pending, self._candidate if tried else self._every, [span])
        past = self._timing.past(span)
        before = self._within(pending, self._others if tried else self._every, past)
        if classes is None:
            classes = most_classes(len(each.body.classes) for each in (*after, *before))
        numbers = [each.number for each in (*after, *before)]
        records = (min(numbers, default=0), max(numbers, default=0))
        return Seen(sums(after, classes), sums(before, classes), classes, records)

    def _within(
        self, pending: Pending, manifests: frozenset[Digest], spans: Sequence[Span]
    ) -> list[Placed]:
        return [
            each
            for span in spans
            for each in self._store.records.inference_within(pending.device, manifests, span)
        ]
