"""Sums of one device's windows over a span of time, and which windows are in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control_plane.rollout.clock import Span
from control_plane.rollout.score import Sums
from protocol.histogram import Counts
from protocol.telemetry import InferenceWindow


@dataclass(frozen=True, slots=True)
class Placed:
    """A closed window, or a block of them, with its times by the device's clock.

    `number` is that of the transaction that stored it.
    """

    t0_ms: int
    t1_ms: int
    number: int
    body: InferenceWindow


def within(span: Span, t0_ms: int, t1_ms: int) -> bool:
    """Whether the middle of a window is in the span, and it is no longer than that.

    A longer one, of a device that ran out of room, says too little of the span itself.
    """
    return t1_ms - t0_ms <= span.length_ms and 2 * span.from_ms <= t0_ms + t1_ms < 2 * span.to_ms


def latest_end(span: Span) -> int:
    """No window that is within a span ends later."""
    return span.to_ms + span.length_ms // 2 + 1


def sums(windows: Sequence[Placed], classes: int | None) -> Sums:
    """All these windows together.

    Class counts of another number of `classes` are left out, since mixes of different classes do
    not compare. None: those of most windows count.
    """
    bodies = [each.body for each in windows]
    if classes is None:
        classes = most_classes(len(each.classes) for each in bodies)
    return Sums(
        sum(each.answers for each in bodies),
        sum(each.rows for each in bodies),
        sum(each.errors for each in bodies),
        sum(each.outside for each in bodies),
        _together(each.latency for each in bodies),
        _together(each.confidence for each in bodies),
        _together(each.classes for each in bodies if len(each.classes) == classes),
        labelled=sum(each.labelled for each in bodies),
        correct=sum(each.correct for each in bodies),
    )


def most_classes(numbers: Iterable[int]) -> int:
    """The number of classes that occurs most, of several the largest; 0 without any."""
    found = Counter(number for number in numbers if number)
    return max(found, key=lambda number: (found[number], number), default=0)


def _together(histograms: Iterable[Counts]) -> Counts:
    """Their sum, slot by slot; all that are not empty have the same bins."""
    return tuple(map(sum, zip(*(each for each in histograms if each), strict=True)))
