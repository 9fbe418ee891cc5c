"""Does drift that is there get noticed, and what is not there leave people alone?

Three parts in one table. `streams`: 5,000 streams of 2,000 windows in which nothing changes, seen
by the device's e-detector (drift_mirror.py). `rules`: streams in which something changes, or whose
rows depend on each other, or that are real rows in the order of their file (drift_streams.py), seen
by the e-detector and by the rules of others (drift_rivals.py). `fleets`: who is blamed among a
hundred devices, by the control plane's own rules (drift_fleets.py).

A fleet is 5,000 streams with a window an hour; its false alarms are windows that alarm although
nothing changed. A rule that alarms all the time finds everything at once, so above a share of
`USELESS` windows no delay is given for it.

`python tests/bench/drift_quality.py [--quick] [--parts streams,rules,fleets] [--workers 1]`

Long because the scenarios, the goals and the rows are one table.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import inf, log
from pathlib import Path
from typing import Final

import numpy as np
from scipy.special import betaincinv

sys.path.insert(0, str(Path(__file__).parents[2]))

from protocol.edetector import BURN_IN, DEFAULT_THRESHOLD
from tests.bench import drift_rivals as rivals
from tests.bench.drift_fleets import FLEETS, HOURS_A_YEAR, QUICK_FLEETS, fleet_rows, terms
from tests.bench.drift_mirror import Mirror, ln_e
from tests.bench.drift_rivals import RIVER, RULES
from tests.bench.drift_streams import (
    CHANGES,
    FAMILY,
    Array,
    Counted,
    Mask,
    Streams,
    autoregressive,
    changed,
    class_mix,
    counted,
    in_file_order,
    normal,
    null_counts,
    seasonal,
    sklearn_sets,
)
from tests.bench.report import Row, publish

PARTS: Final = ("streams", "rules", "fleets")
SEED: Final = 20_261_121

STREAMS: Final = 5000
WINDOWS: Final = 2000
CHUNK: Final = 1000
QUICK_CHUNK: Final = 100
ALPHA: Final = 0.05
AT_FLEET: Final = terms(STREAMS).ln_threshold
"""ln e that a budget of one false alarm a year asks of 5,000 streams."""
AT_ALPHA: Final = -log(ALPHA)
ALL: Final = 1e-4
"""Of 5,000 detectors: half a false alarm, their part of the budget, over all their lives."""

DEVICES: Final = 100
"""Per scenario, of `FAMILY` streams each."""
QUICK_DEVICES: Final = 5
SHOWN: Final = 400
"""Windows per scenario: `ONSET` before the change, and as many after it as its delay may need."""
QUICK_SHOWN: Final = 160
MOST_ROWS: Final = 8_000_000
"""In memory at once."""
RIVER_SEES: Final = (5, 200)
"""Streams and windows: one row of KSWIN takes as long as a thousand of ours."""
QUICK_RIVER_SEES: Final = (1, 130)
LATE: Final = 1000
USELESS: Final = 0.2

OURS: Final = "ours"
ALONE: Final = "ours, 15.4"
LOOSE: Final = "ours, alpha .05"
DETECTORS: Final = {OURS: AT_FLEET, ALONE: DEFAULT_THRESHOLD, LOOSE: AT_ALPHA}

SHIFT_GOAL: Final = 6
GROSS_GOAL: Final = 2
PROMISED: Final = "AR(1) .9"
"""Rows that depend on each other as much as this keep the budget."""
GOALS: Final = {
    ("+0.6 sd", 50): SHIFT_GOAL,
    ("stuck", 50): GROSS_GOAL,
    ("unit x1000", 50): GROSS_GOAL,
}
"""Median windows from the change to the alarm."""

Make = Callable[[int, np.random.Generator], Streams]
"""Streams of so many devices."""


# --- nothing changes --------------------------------------------------------------------------


def highest(streams: int, windows: int, n: int, seed: Sequence[int]) -> tuple[Array, Array]:
    """Largest ln e that each of so many streams ever has; and that it has after burn-in."""
    references, drawn = null_counts(streams, windows, n, np.random.default_rng(list(seed)))
    mirror = Mirror(references)
    ever, settled = np.full(streams, -inf), np.full(streams, -inf)
    for number, window in enumerate(drawn):
        said = mirror.step(window)
        np.maximum(ever, said, out=ever)
        if number >= BURN_IN:
            np.maximum(settled, said, out=settled)
    return ever, settled


def null_rows(streams: int, windows: int, chunk: int, workers: int) -> Iterator[Row]:
    for n in (50, 200):
        job = partial(_null_chunk, chunk, windows, n)
        numbers = range(-(-streams // chunk))
        if workers > 1:
            with ProcessPoolExecutor(workers) as pool:
                parts = list(pool.map(job, numbers))
        else:
            parts = [job(number) for number in numbers]
        ever = np.concatenate(parts)
        what = f"{len(ever):,} streams x {windows:,} windows of {n} rows"
        for name, level, most in ((LOOSE, AT_ALPHA, ALPHA), (OURS, AT_FLEET, ALL)):
            seen = int((ever >= level).sum())
            yield Row(
                f"share that ever alarms, ln e >= {level:.1f}: {what}",
                seen / len(ever),
                f"of {len(ever):,}",
                goal=f"<= {most:g} (95 %: below {at_most(seen, len(ever)):.2g})",
                ok=seen / len(ever) <= most,
                against="" if name == OURS else f"alpha = {ALPHA:g}",
            )
        yield Row(f"highest ln e: {what}", float(ever.max()), "ln e")


def _null_chunk(chunk: int, windows: int, n: int, number: int) -> Array:
    return highest(chunk, windows, n, (SEED, n, number))[0]


def at_most(seen: int, of: int) -> float:
    """Upper 95 % bound of a share (Clopper and Pearson)."""
    return 1.0 if seen >= of else float(betaincinv(seen + 1, of - seen, 0.95))


# --- what rules say -----------------------------------------------------------------------------


@dataclass(slots=True)
class Said:
    """What one rule said of all streams of one scenario."""

    streams: int = 0
    windows: int = 0
    """Of all streams, in which an alarm is false."""
    alarmed: int = 0
    ever: int = 0
    """Streams with a false alarm."""
    settled: int = 0
    """Streams whose first false alarm is after the detectors' burn-in."""
    delays: list[float] = field(default_factory=list)
    """Per changed device, in windows, the first being 1; infinite where it is not found."""

    def add(self, streams: Streams, alarms: Mask) -> None:
        """Alarms [streams, windows], of all of them or of the first changed ones."""
        false = alarms if streams.onset is None else alarms[:, : streams.onset]
        self.streams += len(false)
        self.windows += false.size
        self.alarmed += int(false.sum())
        self.ever += int(false.any(axis=1).sum())
        early = false[:, :BURN_IN].any(axis=1)
        self.settled += int((false[:, BURN_IN:].any(axis=1) & ~early).sum())
        if streams.onset is None:
            return
        late = alarms[:, streams.onset :]
        if len(late) == len(streams.rows):
            by_device = late[streams.changed].reshape(streams.devices, -1, late.shape[1])
            late = np.asarray(by_device.any(axis=1))
        found = late.any(axis=1)
        self.delays += np.where(found, late.argmax(axis=1) + 1.0, inf).tolist()

    @property
    def a_year(self) -> float:
        return self.alarmed / self.windows * STREAMS * HOURS_A_YEAR

    @property
    def delay(self) -> float | None:
        """Median; None where it is not found, or where alarms say nothing."""
        if not self.delays or self.alarmed > USELESS * self.windows:
            return None
        middle = float(np.median(self.delays))
        return middle if middle < inf else None

    @property
    def found(self) -> float:
        return sum(delay < inf for delay in self.delays) / len(self.delays)


@dataclass(frozen=True, slots=True)
class Peers:
    """River, and how many streams and windows it is shown."""

    python: Path
    sees: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scenario:
    what: str
    n: int
    make: Make
    devices: int
    windows: int
    rivals: bool = True
    river: bool = False
    wide: int = FAMILY
    """Streams per device, to make no more of them at once than there is room for."""


def said(scenario: Scenario, rng: np.random.Generator, peers: Peers | None) -> dict[str, Said]:
    """By rule."""
    found: dict[str, Said] = {}
    chunk = max(1, MOST_ROWS // (scenario.wide * scenario.windows * scenario.n))
    for first in range(0, scenario.devices, chunk):
        streams = scenario.make(min(chunk, scenario.devices - first), rng)
        counts = counted(streams)
        for rule, alarms in _alarms(streams, counts, scenario.rivals).items():
            found.setdefault(rule, Said()).add(streams, alarms)
        if first == 0 and scenario.river and peers is not None:
            each = rivals.river(peers.python, RIVER, streams, *peers.sees)
            for rule, alarms in zip(RIVER, each, strict=True):
                found.setdefault(rule, Said()).add(streams, alarms)
    return found


def _alarms(streams: Streams, counts: Counted, others: bool) -> dict[str, Mask]:
    said = ln_e(counts.references, counts.windows, counts.slots)
    alarms = {name: np.asarray(said >= level) for name, level in DETECTORS.items()}
    if others:
        alarms |= {name: rule(streams, counts) for name, rule in RULES.items()}
    return alarms


def rows_of(scenario: Scenario, found: Mapping[str, Said]) -> Iterator[Row]:
    what = f"{scenario.what}, n = {scenario.n}"
    ours = found[OURS]
    others = [name for name in found if name not in DETECTORS]
    if ours.delays:
        goal = GOALS.get((scenario.what, scenario.n))
        yield Row(
            f"windows to the alarm, {what}",
            ours.delay,
            f"median of {len(ours.delays)}",
            goal=f"<= {goal}" if goal else "",
            ok=(ours.delay or inf) <= goal if goal else None,
        )
        yield Row(f"found at all, {what}", ours.found, f"of {len(ours.delays)}")
        for name in [*list(DETECTORS)[1:], *others]:
            its = found[name]
            unit = f"median of {len(its.delays)}"
            if its.delay is None:
                unit += f", {its.found:.2g} found, {its.alarmed / its.windows:.2g} of before alarm"
            yield Row(f"windows to the alarm, {what}", ours.delay, unit, its.delay, _named(name))
        return
    loose = found[LOOSE]
    goal = scenario.what == PROMISED
    bound = f"95 %: below {at_most(loose.ever, loose.streams):.2g}"
    yield Row(
        f"streams that ever alarm at alpha .05, {what}",
        loose.ever / loose.streams,
        f"of {loose.streams:,}, {bound}",
        goal=f"<= {ALPHA:g}" if goal else "",
        ok=loose.ever / loose.streams <= ALPHA if goal else None,
    )
    yield Row(
        f"streams that first alarm after burn-in at alpha .05, {what}",
        loose.settled / loose.streams,
        f"of {loose.streams:,}",
    )
    yield Row(
        f"false alarms a fleet-year, {what}",
        ours.a_year,
        f"{ours.ever / ours.streams:.2g} of {ours.streams:,} streams ever",
        goal="0 seen" if goal else "",
        ok=ours.alarmed == 0 if goal else None,
    )
    for name in others:
        its = found[name]
        unit = f"{its.ever / its.streams:.2g} of {its.streams:,} streams ever"
        yield Row(f"false alarms a fleet-year, {what}", ours.a_year, unit, its.a_year, name)


def _named(rule: str) -> str:
    return rule if rule not in DETECTORS else f"{rule} (ln e >= {DETECTORS[rule]:.1f})"


# --- scenarios ----------------------------------------------------------------------------------


def scenarios(devices: int, windows: int) -> Iterator[Scenario]:
    """All but the tables, with 50 and with 200 rows per window."""
    for n in (50, 200):
        river = n == 50
        null = partial(_null, windows, n)
        yield Scenario("nothing changes", n, null, devices, windows, river=river)
        for phi in (0.5, 0.9, 0.98):
            make = partial(_dependent, phi, windows, n)
            yield Scenario(f"AR(1) {_short(phi)}", n, make, devices, windows, river=river)
        daily = partial(_daily, windows, n)
        yield Scenario("a day's season of 0.7 sd", n, daily, devices, windows, river=river)
        for what in CHANGES:
            make = partial(_change, what, windows, n)
            yield Scenario(what, n, make, devices, windows, river=river)
        mix = partial(_mix, windows, n)
        yield Scenario(
            "class mix: twice as many zeros", n, mix, max(1, devices // 10), windows, wide=64
        )
        for phi in (0.5, 0.9):
            make = partial(_dependent_shift, phi, windows, n)
            what = f"+0.6 sd on AR(1) {_short(phi)}"
            yield Scenario(what, n, make, devices, windows, rivals=False)
    late = partial(_late, 50)
    yield Scenario(f"+0.6 sd after {LATE:,} windows", 50, late, devices, LATE + 100, rivals=False)


def _null(windows: int, n: int, devices: int, rng: np.random.Generator) -> Streams:
    return normal(devices, windows, n, rng)


def _dependent(phi: float, windows: int, n: int, devices: int, rng: np.random.Generator) -> Streams:
    return autoregressive(phi, devices, windows, n, rng)


def _dependent_shift(
    phi: float, windows: int, n: int, devices: int, rng: np.random.Generator
) -> Streams:
    return changed(autoregressive(phi, devices, windows, n, rng), CHANGES["+0.6 sd"], rng)


def _daily(windows: int, n: int, devices: int, rng: np.random.Generator) -> Streams:
    return seasonal(devices, windows, n, rng)


def _change(what: str, windows: int, n: int, devices: int, rng: np.random.Generator) -> Streams:
    return changed(normal(devices, windows, n, rng), CHANGES[what], rng)


def _mix(windows: int, n: int, devices: int, rng: np.random.Generator) -> Streams:
    return class_mix(devices, windows, n, rng)


def _late(n: int, devices: int, rng: np.random.Generator) -> Streams:
    return changed(normal(devices, LATE + 100, n, rng), CHANGES["+0.6 sd"], rng, LATE)


def _short(phi: float) -> str:
    return f"{phi:g}".removeprefix("0")


def file_scenarios(windows: int, peers: Peers | None) -> Iterator[Scenario]:
    sets = sklearn_sets() | (rivals.river_sets(peers.python) if peers else {})
    for name, table in sets.items():
        make = partial(_file, table, windows, 50)
        what = f"{name} in file order"
        yield Scenario(what, 50, make, 1, windows, river=True, wide=table.shape[1])


def _file(table: Array, windows: int, n: int, _: int, __: np.random.Generator) -> Streams:
    return in_file_order(table, windows, n)


def rule_rows(devices: int, windows: int, peers: Peers | None) -> Iterator[Row]:
    every = [*scenarios(devices, windows), *file_scenarios(windows, peers)]
    for number, scenario in enumerate(every):
        rng = np.random.default_rng([SEED, 7, number])
        print(f"{scenario.what}, n = {scenario.n}", file=sys.stderr)
        yield from rows_of(scenario, said(scenario, rng, peers))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few streams, devices and fleets")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of streams,rules,fleets")
    parser.add_argument("--devices", type=int, help=f"per scenario of the rules; {DEVICES}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-peer", action="store_true", help="without river's rules and tables")
    given = parser.parse_args(arguments)
    parts = given.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"no part named {unknown[0]}; there are {', '.join(PARTS)}")
    rows: list[Row] = []
    if "streams" in parts:
        sizes = (2 * QUICK_CHUNK, 300, QUICK_CHUNK) if given.quick else (STREAMS, WINDOWS, CHUNK)
        rows += null_rows(*sizes, given.workers)
    if "rules" in parts:
        python = None if given.no_peer else rivals.python()
        peers = Peers(python, QUICK_RIVER_SEES if given.quick else RIVER_SEES) if python else None
        devices = given.devices or (QUICK_DEVICES if given.quick else DEVICES)
        rows += rule_rows(devices, QUICK_SHOWN if given.quick else SHOWN, peers)
    if "fleets" in parts:
        rows += fleet_rows(QUICK_FLEETS if given.quick else FLEETS, SEED)
    return publish("drift-quality", rows)


if __name__ == "__main__":
    sys.exit(main())
