"""Fleets of `make bench NAME=drift-quality`: who is blamed among a hundred devices, and what is
called of all of them, by the control plane's own rules and a budget of one false alarm a year.

A device's rows are normal, with an offset and a spread of its own that stay; the reference is
`REFERENCE` rows without offset. One monitored column per device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr

from control_plane.catalog.profile import count, make_edges
from control_plane.drift import budget, cohort, family, heterogeneity, peers, robust, verdicts
from control_plane.drift.distance import corrected_psi
from protocol.members import Feature
from tests.bench.drift_mirror import ln_e
from tests.bench.drift_streams import REFERENCE, Array, Counts
from tests.bench.report import Row

HOURS_A_YEAR: Final = 8766.0
DAYS_A_YEAR: Final = 365.25
FLEETS: Final = 200
QUICK_FLEETS: Final = 10
DEVICES: Final = 100
SLOTS: Final = 3
BLAMED_GOAL: Final = 0.3
"""Healthy devices per 100, with offsets of `GOAL_OFFSET`."""
GOAL_OFFSET: Final = 0.2
STUDY_P: Final = 1e-4
"""Of a single slot, whatever the budget."""
WINDOWS: Final = 300
"""That detectors see before what has fired is looked at."""
DAY: Final = 24


@dataclass(frozen=True, slots=True)
class Kind:
    what: str
    offset: float = 0.0
    """Standard deviation of the devices' offsets, which mean nothing."""
    broken: int = 0
    shift: float = 0.0
    """Of the broken ones."""
    spread: float = 1.0
    """Of the broken ones."""
    all_by: float = 0.0
    """By how much every device has moved."""
    devices: int = DEVICES
    rows: int = 500
    """Per device and slot."""

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Mean and standard deviation per device; the broken ones come first."""
        means = self.offset * rng.normal(size=self.devices) + self.all_by
        means[: self.broken] += self.shift
        spreads = np.ones(self.devices)
        spreads[: self.broken] = self.spread
        return means, spreads


@dataclass(slots=True)
class Fleet:
    feature: Feature
    shares: Array
    """[devices, slots]."""

    @classmethod
    def of(cls, kind: Kind, rng: np.random.Generator) -> Fleet:
        sample = rng.standard_normal(REFERENCE, np.float32)
        edges = make_edges(sample)
        means, spreads = kind.draw(rng)
        reached = ndtr((edges.astype(float) - means[:, None]) / spreads[:, None])
        ends = np.zeros((len(means), 1)), np.ones((len(means), 1))
        bins = np.diff(np.concatenate([ends[0], reached, ends[1]], axis=1), axis=1)
        shares = np.concatenate([bins, np.zeros((len(means), 2))], axis=1)
        feature = Feature("x", tuple(map(float, edges)), count(sample, edges))
        return cls(feature, shares)

    def window(self, rows: int, rng: np.random.Generator) -> Counts:
        """Counts [devices, slots] of one span of time."""
        return np.asarray(rng.multinomial(rows, self.shares))


PEERS: Final = (
    Kind("nothing differs"),
    Kind("offsets of 0.2 sd", 0.2),
    Kind("offsets of 0.3 sd", 0.3),
    Kind("offsets of 0.2 sd, 50 rows", 0.2, rows=50),
    Kind("offsets of 0.2 sd, 5,000 rows", 0.2, rows=5000),
    Kind("offsets of 0.2 sd, 6 devices", 0.2, devices=6),
    Kind("one at +2 sd", 0.2, 1, 2.0),
    Kind("one with half the spread", 0.2, 1, spread=0.5),
    Kind("one with twice the spread", 0.2, 1, spread=2.0),
    Kind("five at +1 sd", 0.2, 5, 1.0),
    Kind("half of them at +0.6 sd", 0.2, 50, 0.6),
)
COHORTS: Final = (
    Kind("nothing differs", rows=50 * DAY),
    Kind("offsets of 0.3 sd", 0.3, rows=50 * DAY),
    Kind("all at +0.1 sd", all_by=0.1, rows=50 * DAY),
    Kind("all at +0.2 sd, offsets of 0.3 sd", 0.3, all_by=0.2, rows=50 * DAY),
    Kind("one at +2 sd", 0.2, 1, 2.0, rows=50 * DAY),
    Kind("half of 24 at +0.6 sd", 0.1, 12, 0.6, devices=24, rows=50 * DAY),
)
ALONE: Final = (
    Kind("nothing differs", rows=50),
    Kind("offsets of 0.2 sd", 0.2, rows=50),
    Kind("offsets of 0.2 sd, one at +0.6 sd", 0.2, 1, 0.6, rows=50),
)


@dataclass(slots=True)
class Blamed:
    """Of all fleets of one kind."""

    healthy: int = 0
    broken: int = 0
    once: int = 0
    """Healthy ones below `STUDY_P` in the last slot alone."""
    of_healthy: int = 0
    of_broken: int = 0


@dataclass(slots=True)
class Called:
    fleets: int = 0
    sure: int = 0
    """Fleets in which the trimmed test is below the day's cut-off."""
    called: int = 0
    """And far enough from the reference to matter."""
    parts: int = 0
    named: int = 0
    """Parts in which exactly the broken devices are named."""


@dataclass(slots=True)
class Alone:
    """Devices whose own detector fired, and what is told of them."""

    devices: int = 0
    fired: int = 0
    told: int = 0
    of_broken: int = 0
    broken_told: int = 0


def fleet_rows(fleets: int, seed: int) -> list[Row]:
    rng = np.random.default_rng([seed, 6])
    return [
        *_peer_rows(fleets, rng),
        *_cohort_rows(fleets, rng),
        *_alone_rows(max(1, fleets // 10), rng),
    ]


# --- against its peers ----------------------------------------------------------------------------


def blamed(kind: Kind, fleets: int, rng: np.random.Generator) -> Blamed:
    found = Blamed()
    names = [f"d{number:03}" for number in range(kind.devices)]
    limit = terms(kind.devices).peer_p
    few = kind.devices < peers.FITTED_FROM
    for _ in range(fleets):
        fleet = Fleet.of(kind, rng)
        slots = []
        for _ in range(SLOTS):
            table = fleet.window(kind.rows, rng).tolist()
            given = {name: (tuple(counts),) for name, counts in zip(names, table, strict=True)}
            compared = peers.compare([fleet.feature], given)
            slots.append({peer.device: peer.p for peer in compared.found})
        for number, name in enumerate(names):
            hits = [slot.get(name, 1.0) < limit for slot in slots]
            if number < kind.broken:
                found.broken += peers.broken(hits, few=few)
            else:
                found.healthy += peers.broken(hits, few=few)
                found.once += slots[-1].get(name, 1.0) < STUDY_P
        found.of_broken += kind.broken
        found.of_healthy += kind.devices - kind.broken
    return found


def terms(streams: int) -> budget.Terms:
    return budget.terms(
        1.0,
        streams=streams,
        starts=streams,
        slots_per_year=HOURS_A_YEAR,
        days_per_year=DAYS_A_YEAR,
    )


def _peer_rows(fleets: int, rng: np.random.Generator) -> Iterator[Row]:
    for kind in PEERS:
        found = blamed(kind, fleets, rng)
        goal = kind.offset == GOAL_OFFSET and not kind.broken and kind.devices == DEVICES
        per_100 = 100 * found.healthy / found.of_healthy
        yield Row(
            f"healthy devices blamed, {kind.what}",
            per_100,
            f"per 100, of {found.of_healthy:,}",
            goal=f"<= {BLAMED_GOAL:g}" if goal else "",
            ok=per_100 <= BLAMED_GOAL if goal else None,
        )
        once = 100 * found.once / found.of_healthy
        yield Row(
            f"healthy devices with p < {STUDY_P:g} in one slot, {kind.what}",
            once,
            f"per 100, of {found.of_healthy:,}",
        )
        if found.of_broken:
            yield Row(
                f"broken devices found, {kind.what}",
                found.broken / found.of_broken,
                f"of {found.of_broken:,}",
            )


# --- all of them ----------------------------------------------------------------------------------


def called(kind: Kind, fleets: int, rng: np.random.Generator) -> Called:
    found = Called()
    for _ in range(fleets):
        fleet = Fleet.of(kind, rng)
        devices = [(tuple(counts),) for counts in fleet.window(kind.rows, rng).tolist()]
        whole = robust.test([fleet.feature], devices)[0]
        parts = heterogeneity.parts([fleet.feature], devices)
        tests = {"all": whole.p, "part": parts[0].p}
        sure, _ = family.called(tests, terms(kind.devices).cohort_q)
        found.fleets += 1
        found.sure += "all" in sure
        found.called += "all" in sure and whole.psi > cohort.LEAST_PSI
        if "part" in sure:
            found.parts += 1
            found.named += parts[0].moved == tuple(range(kind.broken))
    return found


def _cohort_rows(fleets: int, rng: np.random.Generator) -> Iterator[Row]:
    for kind in COHORTS:
        found = called(kind, fleets, rng)
        unit = f"of {found.fleets} days"
        yield Row(f"cohort beyond chance, {kind.what}", found.sure / found.fleets, unit)
        yield Row(f"cohort called drifted, {kind.what}", found.called / found.fleets, unit)
        yield Row(f"cohort called in two parts, {kind.what}", found.parts / found.fleets, unit)
        if kind.what.startswith("half"):
            yield Row(f"exactly the moved ones named, {kind.what}", found.named / fleets, unit)


# --- detectors of devices that differ for good ----------------------------------------------------


def alone(kind: Kind, fleets: int, rng: np.random.Generator) -> Alone:
    """What becomes of detectors that fire because their device is unlike the reference for good."""
    found = Alone()
    agreed = terms(kind.devices)
    for _ in range(fleets):
        fleet = Fleet.of(kind, rng)
        windows = np.stack([fleet.window(kind.rows, rng) for _ in range(WINDOWS)], axis=1)
        references = np.tile(np.array(fleet.feature.counts), (kind.devices, 1))
        fired = ln_e(references, windows).max(axis=1) >= agreed.ln_threshold
        names = [f"d{number:03}" for number in range(kind.devices)]
        hits = dict[str, list[bool]]((name, []) for name in names)
        for slot in range(WINDOWS - SLOTS, WINDOWS):
            table = windows[:, slot].tolist()
            given = {name: (tuple(counts),) for name, counts in zip(names, table, strict=True)}
            p = {peer.device: peer.p for peer in peers.compare([fleet.feature], given).found}
            for name in names:
                hits[name].append(p.get(name, 1.0) < agreed.peer_p)
        days = windows[:, -DAY:].sum(axis=1).tolist()
        lately = {name: (tuple(day),) for name, day in zip(names, days, strict=True)}
        unlike = peers.compare([fleet.feature], lately, verdicts.APART_P).found
        apart = {peer.device for peer in unlike}
        for number, name in enumerate(names):
            word = verdicts.of_device(
                fired=bool(fired[number]),
                outlier=peers.broken(hits[name]),
                apart=name in apart,
                psi=corrected_psi(days[number], fleet.feature.counts),
                cohort_called=False,
            )
            healthy = number >= kind.broken
            found.devices += healthy
            found.fired += healthy and bool(fired[number])
            found.told += healthy and word is not None
            found.of_broken += not healthy
            found.broken_told += not healthy and word is not None
    return found


def _alone_rows(fleets: int, rng: np.random.Generator) -> Iterator[Row]:
    for kind in ALONE:
        found = alone(kind, fleets, rng)
        unit = f"per 100, of {found.devices:,}"
        yield Row(f"detectors fired, {kind.what}", 100 * found.fired / found.devices, unit)
        yield Row(f"healthy devices alarmed, {kind.what}", 100 * found.told / found.devices, unit)
        if found.of_broken:
            share = found.broken_told / found.of_broken
            yield Row(f"moved devices alarmed, {kind.what}", share, f"of {found.of_broken:,}")
