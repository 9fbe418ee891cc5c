"""500 devices in virtual time, driven by the pure modules alone: plan, waves, gate, decisions."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import pytest

from control_plane.rollout.advance import (
    Abort,
    Advance,
    Begin,
    Complete,
    Position,
    StartSoak,
    decide,
)
from control_plane.rollout.phase import HEARD, Asked, Counts, phase_of
from control_plane.rollout.plan import Going, Stable, completed, make_plan, numbered
from control_plane.rollout.spec import RolloutSpec, read_spec
from control_plane.rollout.waves import Target, plan_waves, wave_of
from protocol.device import DeviceDocument
from protocol.plan import Ended, Plan
from protocol.reported import ReportedState
from tests.fakes.virtual_fleet import MODEL, VirtualDevice, approve, bundle

SALT = "0123456789abcdef" * 2
V1, V2 = bundle("v1"), bundle("v2")
APPROVALS = approve("v1", "v2")
TICK_MS = 10_000


class Fleet:
    """The control plane's side, with nothing but the pure modules and dictionaries."""

    def __init__(self, devices: list[VirtualDevice], spec: RolloutSpec) -> None:
        self.devices = devices
        self.spec = spec
        targets = [Target(d.document.device, d.document.selectable) for d in devices]
        self.waves = plan_waves(spec.waves, targets, SALT)
        self.member = {
            d.document.device: wave_of(self.waves, SALT, d.document.device, d.document.selectable)
            for d in devices
        }
        self.heard = {d.document.device: 0 for d in devices}
        self.states: dict[str, ReportedState | None] = {d.document.device: None for d in devices}
        self.now_ms = 0
        self.at = Position("preparing", 0, 0)
        self.stables: tuple[Stable, ...] = (Stable(None, V1),)
        self.ended: Ended | None = None
        self.plan: Plan | None = None
        self.why = ""
        self.plans_published = 0
        self._publish()

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.now_ms += TICK_MS
            for device in self.devices:
                state = device.step(self.plan, APPROVALS, self.now_ms)
                if state is not None:
                    self.states[device.document.device] = state
                    self.heard[device.document.device] = self.now_ms
            self._decide()

    def counts(self) -> dict[int, Counts]:
        quiet_before_ms = self.now_ms - self.spec.silent_after_s * 1000
        found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for name, wave in self.member.items():
            assert wave is not None
            phase, _ = phase_of(Asked("digits-1", MODEL, V2, 1), self.states[name])
            away = self.heard[name] < quiet_before_ms
            found[wave]["silent" if away and phase in HEARD else phase] += 1
            found[wave]["unlinked"] += away and phase == "targeted"
        return {wave: Counts(**numbers) for wave, numbers in found.items()}

    def _decide(self) -> None:
        decision, _ = decide(self.spec, self.at, self.counts(), now_ms=self.now_ms, ready=True)
        match decision:
            case Begin():
                self.at = dataclasses.replace(self.at, status="running", wave=1)
            case Advance(wave):
                self.at = dataclasses.replace(self.at, wave=wave, soak_ms=None)
            case StartSoak():
                self.at = dataclasses.replace(self.at, soak_ms=self.now_ms)
            case Abort(why):
                self.at = dataclasses.replace(self.at, status="aborted")
                self.ended, self.why = Ended("digits-1", V2, "aborted"), why
            case Complete():
                self.at = dataclasses.replace(self.at, status="completed")
                self.ended = Ended("digits-1", V2, "completed")
                self.stables = completed(self.stables, None, V2)
        self._publish()

    def _publish(self) -> None:
        going = []
        if self.at.status == "running":
            wave = self.waves[self.at.wave - 1].wave
            going = [Going(None, "digits-1", 1, V2, SALT, 0, wave)]
        made = make_plan("north", MODEL, self.stables, going, self.ended)
        after = numbered(made, self.plan, self.now_ms)
        if after is not None:
            self.plan = after
            self.plans_published += 1

    def on(self, digest: str) -> int:
        return sum(device.current == digest for device in self.devices)


def fleet(spec: dict[str, object], count: int = 500, **behaviour: object) -> Fleet:
    devices = [
        VirtualDevice(
            DeviceDocument("north", f"north-cam-{n}", 1, labels={"site": "ab"[n % 2]}),
            current=V1,
            disk={V1},
            **behaviour,  # type: ignore[arg-type]
        )
        for n in range(count)
    ]
    body = {"version": "digits/v2", "waves": ["12", "25%", "100%"], "soak": "5 min", **spec}
    return Fleet(devices, read_spec(body))


def test_a_good_version_reaches_everyone_in_waves_and_becomes_stable():
    it = fleet({})
    it.run(4)
    assert it.at.wave == 1
    assert sum(V2 in device.ever for device in it.devices) == 12
    it.run(40)
    assert it.at.wave == 2 or it.at.wave == 3
    it.run(200)
    assert it.at.status == "completed"
    assert it.on(V2) == 500
    assert it.stables == (Stable(None, V2),)
    # Nothing, three waves, the end: the number of documents has nothing to do with the fleet.
    assert it.plans_published == 5


def test_a_bad_version_is_aborted_in_its_first_wave_and_nobody_downloads_to_return():
    it = fleet({}, bad=frozenset({V2}))
    it.run(200)
    assert it.at.status == "aborted"
    assert "rolled back" in it.why
    assert it.on(V1) == 500
    assert all(device.serving == V1 for device in it.devices)
    assert sum(V2 in device.ever for device in it.devices) == 12
    assert sum(device.downloads for device in it.devices) == 12


def test_devices_that_were_fine_return_from_their_own_disk_when_others_fail():
    it = fleet({})
    first = [d for d in it.devices if it.member[d.document.device] == 1]
    for device in first[:6]:
        device.bad = frozenset({V2})
        device.trial_s = 200.0
    it.run(200)
    assert it.at.status == "aborted"
    assert it.on(V1) == 500
    assert all(device.downloads == 1 for device in first)


def test_devices_that_vanish_after_activation_count_as_failed():
    it = fleet({"silent_after": "10 min"}, kills=frozenset({V2}))
    statuses = []
    for ticks in (30, 100):
        it.run(ticks)
        statuses.append(it.at.status)
    assert statuses == ["running", "aborted"]
    assert "fell silent" in it.why


def test_devices_without_traffic_never_let_a_rollout_pass():
    it = fleet({}, quiet=frozenset({V2}))
    it.run(500)
    assert (it.at.status, it.at.wave) == ("running", 1)


def test_devices_that_are_away_get_the_new_version_when_they_return():
    it = fleet({"silent_after": "10 min"})
    away = it.devices[::10]
    for device in away:
        device.linked = False
    it.run(600)
    assert it.at.status == "completed"
    assert it.on(V2) == 450
    for device in away:
        device.linked = True
    it.run(20)
    assert it.on(V2) == 500


@pytest.mark.parametrize("ticks", [1, 5, 60, 150])
def test_the_control_plane_predicts_what_each_device_runs(ticks):
    it = fleet({})
    it.run(ticks)
    wave = it.at.wave
    for device in it.devices:
        mine = it.member[device.document.device]
        assert mine is not None
        should = V2 if (it.at.status == "completed" or mine <= wave) else V1
        device.step(it.plan, APPROVALS, it.now_ms)
        assert device.serving == should
