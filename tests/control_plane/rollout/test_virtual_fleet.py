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
    Pause,
    Position,
    StartSoak,
    decide,
)
from control_plane.rollout.evidence import Evidence, Silence, WaveEvidence
from control_plane.rollout.gate import Judgement, replay
from control_plane.rollout.phase import Asked, Counts, Phase, phase_of
from control_plane.rollout.phase_table import AHEAD, HEARD
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
        self.phases: dict[str, Phase] = {d.document.device: "targeted" for d in devices}
        self.now_ms = 0
        self.at = Position("preparing", 0, 0)
        self.stables: tuple[Stable, ...] = (Stable(None, V1),)
        self.ended: Ended | None = None
        self.plan: Plan | None = None
        self.why = ""
        self.began: dict[int, int] = {}
        self.silences: dict[int, list[Silence]] = defaultdict(list)
        self.quiet: set[str] = set()
        """Who has been found silent in this wave, as a candidate or as a control."""
        self.judgement: Judgement | None = None
        self.plans_published = 0
        self._publish()

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.now_ms += TICK_MS
            for device in self.devices:
                state = device.step(self.plan, APPROVALS, self.now_ms)
                if state is None:
                    continue
                name = device.document.device
                self.heard[name] = self.now_ms
                if state is not self.states[name]:
                    self.states[name] = state
                    self.phases[name], _ = phase_of(Asked("digits-1", MODEL, V2, 1), state)
            self._decide()

    def counts(self) -> dict[int, Counts]:
        quiet_before_ms = self.now_ms - self.spec.silent_after_s * 1000
        found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for name, wave in self.member.items():
            assert wave is not None
            phase = self.phases[name]
            away = self.heard[name] < quiet_before_ms
            found[wave]["silent" if away and phase in HEARD else phase] += 1
            found[wave]["unlinked"] += away and phase in AHEAD
        return {wave: Counts(**numbers) for wave, numbers in found.items()}

    def _sweep(self) -> None:
        """Who of the wave's candidates and of control has been quiet for too long by now."""
        quiet_before_ms = self.now_ms - self.spec.silent_after_s * 1000
        labels, at_risk = "", {"a": 0, "b": 0}
        for name, wave in self.member.items():
            assert wave is not None
            if wave < self.at.wave or name in self.quiet:
                continue
            side = "a" if wave == self.at.wave else "b"
            at_risk[side] += 1
            if self.heard[name] < quiet_before_ms:
                labels += side
                self.quiet.add(name)
        if labels and self.at.wave:
            found = Silence(at_risk["a"], at_risk["b"], labels, self.now_ms)
            self.silences[self.at.wave].append(found)

    def _evidence(self) -> Evidence:
        counts = self.counts()
        return Evidence(
            None,
            tuple(
                WaveEvidence(
                    wave,
                    self.began[wave],
                    counts.get(wave, Counts()),
                    silences=tuple(self.silences[wave]),
                )
                for wave in range(1, self.at.wave + 1)
            ),
        )

    def _begin(self, wave: int) -> None:
        self.at = dataclasses.replace(
            self.at, status="running", wave=wave, wave_ms=self.now_ms, soak_ms=None
        )
        self.began[wave] = self.now_ms
        # Who is away as a wave begins says nothing about it, whatever side it is on.
        quiet_before_ms = self.now_ms - self.spec.silent_after_s * 1000
        self.quiet = {name for name, heard in self.heard.items() if heard < quiet_before_ms}

    def _decide(self) -> None:
        self._sweep()
        decision, judgement = decide(
            self.spec, self.at, self._evidence(), now_ms=self.now_ms, ready=True
        )
        if judgement is not None and judgement != self.judgement:
            assert replay(judgement.inputs) == judgement
            self.judgement = judgement
        match decision:
            case Begin():
                self._begin(1)
            case Advance(wave):
                self._begin(wave)
            case StartSoak():
                self.at = dataclasses.replace(self.at, soak_ms=self.now_ms)
            case Abort(why):
                self.at = dataclasses.replace(self.at, status="aborted")
                self.ended, self.why = Ended("digits-1", V2, "aborted"), why
            case Pause(why):
                self.at, self.why = dataclasses.replace(self.at, status="paused"), why
            case Complete():
                self.at = dataclasses.replace(self.at, status="completed")
                self.ended = Ended("digits-1", V2, "completed")
                self.stables = completed(self.stables, None, V2)
        self._publish()

    def _publish(self) -> None:
        going = []
        if self.at.status in ("running", "paused") and self.at.wave:
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
    assert it.why.startswith("12 of 12 devices fell silent")


def test_an_outage_of_everybody_is_not_held_against_the_model():
    it = fleet({"silent_after": "10 min", "soak": "25 min"})
    it.run(30)
    for device in it.devices[::2]:
        device.linked = False
    statuses = []
    for ticks in (100, 600):
        it.run(ticks)
        statuses.append(it.at.status)
        for device in it.devices:
            device.linked = True
    assert statuses == ["running", "completed"]
    assert it.on(V2) == 500


def test_a_few_devices_that_fail_are_asked_about_and_the_others_stay_as_they_are():
    it = fleet({})
    first = [d for d in it.devices if it.member[d.document.device] == 1]
    for device in first[:2]:
        device.bad = frozenset({V2})
    it.run(200)
    assert (it.at.status, it.at.wave) == ("paused", 1)
    assert "2 of 12 failed" in it.why
    assert it.on(V2) == 10


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
