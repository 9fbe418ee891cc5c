"""What a verdict is computed from. Frozen values, JSON both ways; nothing here decides.

A device bets once per series: its change against its own past goes into one of twelve slots, and
what is kept per hour is how many devices of the wave (`a`) and of the control cohort (`b`) fell
into each slot. So the evidence of a rollout grows with its hours, never with its fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from control_plane.rollout.phase import Counts
from control_plane.rollout.score import Metric
from protocol.codec import convert, to_wire
from protocol.identifiers import Digest

BACKGROUND: Final = 0.02
"""Share of devices that fails anyway, where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One series that devices bet in: a metric after an exposure.

    `margin` and `scale` are in the units of a change: ln ratio, confidence, share. `scale` None:
    too few devices before the start to measure how much changes scatter, so it is not judged.
    `alpha` is its part of .02, the chance that it ever calls a fine model worse.
    """

    key: str
    metric: Metric
    exposure_s: float
    margin: float
    scale: float | None
    alpha: float
    part: int | None = None
    """The class, for a class mix."""
    sign: int = 1
    """Confidence and shares may move both ways; each way is a series."""

    @property
    def score(self) -> tuple[Metric, int | None, int]:
        """What it measures, whatever the exposure."""
        return self.metric, self.part, self.sign


@dataclass(frozen=True, slots=True)
class Terms:
    """Frozen when the first wave begins: neither people nor data can move the bar afterwards.

    `devices` targeted by the rollout; `limit` share of devices that may fail; `background` share
    that failed before anything changed; the scales were measured from `aa_from_ms` to `aa_to_ms`.
    """

    gate: str
    salt: str
    devices: int
    candidate: Digest
    previous: Digest | None = None
    limit: float = 0.02
    background: float = BACKGROUND
    watched: tuple[Watched, ...] = ()
    aa_from_ms: int = 0
    aa_to_ms: int = 0
    row_sd: float | None = None
    """Standard deviation of the confidence of single rows."""
    alpha_failed: float = 0.025
    alpha_silent: float = 0.005


@dataclass(frozen=True, slots=True)
class Slots:
    """Devices of the wave (`a`) and of the control cohort (`b`) per slot, `SLOTS` numbers each.

    `centre`: median change of that hour, both arms together; slots count from it in scales.
    """

    centre: float
    a: tuple[int, ...]
    b: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """One closed hour: what was added to each series. `hour` counts from 1970.

    `records`: first and last number of ingest whose windows were looked at.
    """

    hour: int
    slots: dict[str, Slots]
    records: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Silence:
    """Who fell silent in one sweep: "a" of the wave, "b" a control; their order says nothing.

    `at_risk_a` and `at_risk_b` could have, just before the first of them did.
    """

    at_risk_a: int
    at_risk_b: int
    labels: str
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Exposed:
    """Devices that bet and whose exposure is over (`due_a`, `due_b`), and how many of them had
    enough traffic to be judged (`a`, `b`)."""

    due_a: int
    due_b: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class WaveEvidence:
    """What is known of one wave. `counts`: of its own devices, without those of other waves."""

    wave: int
    began_ms: int
    counts: Counts = Counts()
    eligible: tuple[int, int] = (0, 0)
    """Devices of the wave and of control that bet in scores, fixed when it began."""
    ticks: tuple[Tick, ...] = ()
    silences: tuple[Silence, ...] = ()
    judged: dict[str, Exposed] = field(default_factory=dict)
    """By exposure in whole seconds, as text: "21600"."""

    def hours(self) -> dict[str, list[Slots]]:
        """Of each series, the hours in which somebody bet, in the order of time."""
        found: dict[str, list[Slots]] = {}
        for tick in distinct(self.ticks):
            for key, each in tick.slots.items():
                found.setdefault(key, []).append(each)
        return found

    def totals(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """All hours of each series together: (wave, control)."""
        return {key: together(hours) for key, hours in self.hours().items()}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of the waves that have begun. `terms` None: nothing was frozen, so no score is judged."""

    terms: Terms | None = None
    waves: tuple[WaveEvidence, ...] = ()

    def of(self, wave: int) -> WaveEvidence:
        return next(
            (each for each in self.waves if each.wave == wave), WaveEvidence(wave, began_ms=0)
        )

    @property
    def counts(self) -> dict[int, Counts]:
        return {each.wave: each.counts for each in self.waves}


def together(hours: Iterable[Slots]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All hours of a series: (wave, control)."""
    known = list(hours)
    return _sum(each.a for each in known), _sum(each.b for each in known)


def _sum(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))


def distinct(ticks: Iterable[Tick]) -> tuple[Tick, ...]:
    """Each hour's records once, in the order of time: to have heard it twice adds nothing."""
    found: dict[tuple[int, tuple[int, int]], Tick] = {}
    for each in ticks:
        found.setdefault((each.hour, each.records), each)
    return tuple(found[key] for key in sorted(found))


def merged(silences: Iterable[Silence]) -> tuple[Silence, ...]:
    """Each sweep once, in the order of time; those without a time are all different."""
    found: dict[object, Silence] = {}
    for n, each in enumerate(silences):
        found.setdefault((each.at_ms, each.labels) if each.at_ms else n, each)
    return tuple(sorted(found.values(), key=lambda each: (each.at_ms, each.labels)))


def to_json(evidence: Evidence) -> dict[str, Any]:
    wire: dict[str, Any] = to_wire(evidence)
    return wire


def from_json(wire: Mapping[str, Any]) -> Evidence:
    """Raises `PeerError` OUT-N210 for anything that `to_json` does not write."""
    return convert(wire, Evidence)
