"""Evidence of sixty devices over five days is what a plain computation from lists finds."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from statistics import median, median_low

import numpy as np
import pytest

from control_plane.judging import Judge
from control_plane.rollout import score
from control_plane.rollout.evidence import Exposed
from control_plane.rollout.score import Sums
from tests.fakes.betting import (
    CLASSES,
    DAY_MS,
    HOUR_MS,
    START_MS,
    Fleet,
    Upload,
    World,
    a_world,
    manifest,
    times,
)

EXPOSURES_S = (6 * 3600.0, 24 * 3600.0)


class Brute:
    """The same from lists in memory, in the plainest way: every window is looked at each time."""

    def __init__(self, world: World, late: frozenset[str]) -> None:
        self.world, self.fleet = world, world.fleet
        self.uploads: dict[str, list[tuple[int, Upload]]] = defaultdict(list)
        for at, each in world.uploads:
            self.uploads[each.device].append((at, each))
        heard = {device for at, device in world.contacts if START_MS - DAY_MS <= at < START_MS}
        able = [each for each in self.fleet.devices if each in heard and each not in late]
        self.a = [each for each in able if self.fleet.wave_of[each] == 1]
        self.b = [each for each in able if self.fleet.wave_of[each] > 1]
        self.clocks: dict[str, int] = {}
        self.contacts: dict[str, int] = {}
        self.values: dict[int, list[tuple[str, str, dict[str, float], float]]] = defaultdict(list)
        self.done: set[tuple[str, float]] = set()
        self.closed: dict[int, dict[str, tuple[float, list[int], list[int]]]] = {}
        self.open = START_MS // HOUR_MS
        self.series: tuple[score.Series, ...] = ()
        self.scales: dict[str, float | None] = {}

    def sums(self, device: str, version: str | None, span: tuple[int, int], now: int) -> Sums:
        total = Sums()
        for at, each in self.uploads[device]:
            middle = (each.t0_ms + each.t1_ms) / 2
            of = version is None or each.body.manifest == manifest(version)
            if at <= now and span[0] <= middle < span[1] and of:
                total = total + Sums.of(each.body)
        return total

    def change(
        self, device: str, clock: int, exposure_s: float, now: int, versions: tuple[str | None, ...]
    ) -> tuple[Sums, Sums]:
        end = clock + int(exposure_s * 1000)
        after = self.sums(device, versions[0], (clock, end), now)
        before = self.sums(device, versions[1], (clock - DAY_MS, end - DAY_MS), now)
        before = before + self.sums(
            device, versions[1], (clock - 2 * DAY_MS, end - 2 * DAY_MS), now
        )
        return after, before

    def rehearse(self, now: int) -> None:
        found: dict[str, list[float]] = defaultdict(list)
        gates, all_rows = self.fleet.spec.gates, Sums()
        for exposure_s in EXPOSURES_S:
            series = score.series_of(gates, [exposure_s], CLASSES, 1.0)
            for device in self.fleet.devices:
                after, before = self.change(
                    device, START_MS - DAY_MS, exposure_s, now, (None, None)
                )
                all_rows = all_rows + after
                for key, value in score.changes(series, after, before).items():
                    found[key].append(value)
        self.row_sd = score.row_sd(all_rows.confidence)
        self.series = score.series_of(gates, EXPOSURES_S, CLASSES, self.row_sd)
        self.scales = {each.key: score.scale(each.metric, found[each.key]) for each in self.series}

    def round(self, now: int) -> None:
        if not self.series:
            self.rehearse(now)
        for device in self.a:
            reported = self.world.reports.get(device)
            if device not in self.clocks and reported is not None and reported[0] <= now:
                at, since = reported
                self.clocks[device] = since if START_MS <= since <= now else at
        for device in self.b:
            heard = [at for at, who in self.world.contacts if who == device and at <= now]
            if device not in self.contacts and heard and max(heard) >= START_MS:
                self.contacts[device] = max(heard)
        mine = [self.clocks[each] for each in self.a if each in self.clocks]
        if mine and (2 * len(mine) >= len(self.a) or now >= START_MS + 6 * HOUR_MS):
            for device, at in self.contacts.items():
                self.clocks.setdefault(device, at + median_low(mine) - START_MS)
        for device, clock in self.clocks.items():
            for exposure_s in EXPOSURES_S:
                self.judge(device, clock, exposure_s, now)
        self.close(now)

    def judge(self, device: str, clock: int, exposure_s: float, now: int) -> None:
        end = clock + int(exposure_s * 1000)
        if end > now or (device, exposure_s) in self.done:
            return
        there = any(each.t1_ms >= end and at <= now for at, each in self.uploads[device])
        if not there and now < end + 2 * HOUR_MS:
            return
        self.done.add((device, exposure_s))
        side = "a" if device in self.a else "b"
        versions = ("v2", "v1") if side == "a" else (None, None)
        after, before = self.change(device, clock, exposure_s, now, versions)
        series = [each for each in self.series if each.exposure_s == exposure_s]
        changes = score.changes(series, after, before)
        self.values[max(end // HOUR_MS, self.open)].append((side, device, changes, exposure_s))

    def close(self, now: int) -> None:
        for hour in sorted(self.values):
            ends = (hour + 1) * HOUR_MS
            waits = any(
                clock + int(exposure_s * 1000) < ends and (device, exposure_s) not in self.done
                for device, clock in self.clocks.items()
                for exposure_s in EXPOSURES_S
            )
            if hour in self.closed or now < ends or (waits and now < ends + HOUR_MS):
                continue
            self.closed[hour] = {}
            self.open = hour + 1
            for each in self.series:
                here, scale = self.of(each, [hour]), self.scales[each.key]
                if not here or scale is None:
                    continue
                so_far = self.of(each, [earlier for earlier in self.values if earlier <= hour])
                centre = median([v for _, v in (here if len(here) >= 20 else so_far)])
                slots: dict[str, list[int]] = {"a": [0] * 12, "b": [0] * 12}
                for side, value in here:
                    z = (value - centre) / scale
                    slots[side][int(np.searchsorted(score.EDGES, z))] += 1
                self.closed[hour][each.key] = (centre, slots["a"], slots["b"])

    def of(self, series: score.Series, hours: list[int]) -> list[tuple[str, float]]:
        return [
            (side, changes[series.key] - (series.margin if side == "a" else 0))
            for hour in hours
            for side, _, changes, _ in self.values[hour]
            if series.key in changes
        ]


def join_late(fleet: Fleet, device: str) -> None:
    """Somebody changes its labels after the rollout has started."""
    known = fleet.store.devices.need(device)
    changed = dataclasses.replace(known, labels={"site": "leeds"})
    fleet.store.devices.change(changed, START_MS)


def test_sixty_devices_over_days_give_the_ticks_that_a_plain_computation_gives(tmp_path):
    fleet = Fleet(tmp_path)
    judge = Judge(fleet.store)
    world = a_world(fleet)
    late = fleet.devices[20]
    fleet.start()
    join_late(fleet, late)
    fleet.begin(1, START_MS)
    brute = Brute(world, frozenset({late}))
    for now in times(world):
        judge.round(now, 500)
        brute.round(now)
    found = judge.evidence(fleet.id)
    (wave,) = found.waves
    assert found.terms is not None
    assert wave.eligible == (len(brute.a), len(brute.b)) == (11, 46)
    assert found.terms.row_sd == pytest.approx(brute.row_sd)
    assert {each.key: each.scale for each in found.terms.watched} == pytest.approx(brute.scales)
    closed = {hour: slots for hour, slots in brute.closed.items() if slots}
    assert [tick.hour for tick in wave.ticks] == sorted(closed)
    for tick in wave.ticks:
        slots = {key: (each.a, each.b) for key, each in tick.slots.items()}
        wanted = closed[tick.hour]
        assert slots == {key: (tuple(a), tuple(b)) for key, (_, a, b) in wanted.items()}
        centres = {key: each.centre for key, each in tick.slots.items()}
        assert centres == pytest.approx({key: centre for key, (centre, _, _) in wanted.items()})
    assert len(wave.ticks) > 8
    for exposure_s in EXPOSURES_S:
        over = [
            (side, bool(changes))
            for hour in brute.closed
            for side, _, changes, each_s in brute.values[hour]
            if each_s == exposure_s
        ]
        assert wave.judged[f"{exposure_s:g}"] == Exposed(
            over.count(("a", True)) + over.count(("a", False)),
            over.count(("b", True)) + over.count(("b", False)),
            over.count(("a", True)),
            over.count(("b", True)),
        )
    # One never activated; one has no past, one no traffic, and says nothing.
    assert wave.judged["21600"] == Exposed(10, 46, 9, 45)
    assert wave.judged["86400"].a == 9
    fleet.close()
