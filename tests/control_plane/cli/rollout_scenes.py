"""Fleets for transcripts of rollouts: what devices do between two commands, and the ticker with it.

    $ meanwhile healthy=3 rolled_back=1 hours=6

is no command of ours: three devices of the waves that have begun report that they keep the version,
one that it went back, and six hours pass.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from control_plane.judging import Judge
from control_plane.moving import Moving
from control_plane.rollout import starting
from control_plane.store.plans import Assignment
from control_plane.store.rollouts import Rollout
from protocol.bundle import Facts, Needs
from protocol.reported import ModelState, Note, Outcome, ReportedState, Result
from tests.control_plane.web.conftest import Api
from tests.fakes.bundles import BundleOnDisk

HOUR_S: Final = 3600
NEEDS: Final = Needs(("aarch64", "x86_64"), "1.17", 96_000_000)
OPEN: Final = ("targeted", "reached", "downloading", "staged", "activated")
GOOD: Final = Facts("x86_64", "1.17.1", 512_000_000, "0.4")


def without_chance(monkeypatch: Any) -> None:
    """The same devices in the same waves each time; only rollouts are without chance."""
    same = types.SimpleNamespace(token_hex=lambda length: "5a" * length)
    monkeypatch.setattr(starting, "secrets", same)


@dataclass
class FleetOfTwelve:
    """cam-0001 to cam-0012 at two sites, all on digits/v1, which is stable; cam-0012 is away."""

    api: Api
    versions: dict[str, BundleOnDisk] = field(default_factory=dict)
    order: int = 1
    linked: tuple[str, ...] = tuple(f"north-cam-{number:04}" for number in range(1, 12))

    def __post_init__(self) -> None:
        api, store = self.api, self.api.store
        self.moving = Moving(store, Judge(store), lambda: 0)
        for version in ("v1", "v2", "v3"):
            self.versions[version] = api.approved(version, needs=NEEDS)
        one = self.versions["v1"].digest
        store.plans.assign("digits", [Assignment(None, one)])
        for number in range(1, 13):
            name = f"cam-{number:04}"
            api.enrol(name, site="york" if number % 3 else "leeds")
            self.report(name, ModelState(current=one, serving=one, target=one))
        api.parts = replace(api.parts, wake=self.move)
        app: Any = api.client.app
        app.state.parts = api.parts

    def report(self, name: str, digits: ModelState, **more: Any) -> None:
        self.order += 1
        said = {"facts": GOOD, "models": {"digits": digits}, **more}
        state = ReportedState(self.order, "0.4", **said)
        now_ms = self.api.clock[0]
        self.api.store.devices.put_state(f"north-{name}", state, now_ms)
        self.api.store.devices.contact(f"north-{name}", now_ms)

    def move(self, seconds: float = 1.0) -> None:
        """What the ticker does, `seconds` later."""
        self.api.clock[0] += int(seconds * 1000)
        ready = {each.digest for each in self.versions.values()}
        self.moving.collect(self.api.clock[0])
        with self.api.store.write():
            self.moving.move(self.api.parts.repository.approvals(), ready, self.api.clock[0])

    def meanwhile(self, words: Sequence[str]) -> int:
        """`STATE=N ...`, then `hours=N`: the command of that name in transcripts."""
        asked = {name: int(number) for name, _, number in (word.partition("=") for word in words)}
        hours = asked.pop("hours", 0)
        rollout = self.api.store.rollouts.page("digits", None, 1).items[0]
        waiting = [
            member
            for member in self.api.store.rollouts.members.of(rollout.id)
            if member.wave <= rollout.wave and member.phase in OPEN
        ]
        for state, number in asked.items():
            for member in waiting[:number]:
                name = member.device.removeprefix("north-")
                self.report(name, self.state(state, rollout))
            waiting = waiting[number:]
        self.move()
        for _ in range(hours // 2):
            self.move(2 * HOUR_S)
            for device in self.linked:
                self.api.store.devices.contact(device, self.api.clock[0])
        return 0

    def state(self, state: str, rollout: Rollout) -> ModelState:
        one, candidate, attempt = self.versions["v1"].digest, rollout.candidate, rollout.attempt
        trial: dict[str, Any] = {
            "target": candidate, "origin": "rollout", "rollout": rollout.id, "attempt": attempt,
        }  # fmt: skip
        match state:
            case "downloading":
                return ModelState(current=one, serving=one, phase="fetching", **trial)
            case "activated":
                return ModelState(current=one, serving=candidate, phase="probation", **trial)
            case "healthy":
                return ModelState(current=candidate, serving=candidate, previous=one, **trial)
            case "back":
                return ModelState(current=one, serving=one, target=one, origin="stable")
        why = ("OUT-D310", "confidence 0.31, was 0.97")
        served = state == "rolled_back"
        note = Note(*why, definite=True, activated=served, attempt=attempt)
        result: Result = "rolled_back" if served else "rejected"
        last = Outcome(self.order, "digits", candidate, result, *why)
        return ModelState(current=one, serving=one, notes={candidate: note}, last=last, **trial)


def planning(api: Api) -> FleetOfTwelve:
    """Six of the twelve cannot take part, for five reasons; one is away."""
    fleet = FleetOfTwelve(api)
    one, two = fleet.versions["v1"].digest, fleet.versions["v2"].digest
    runs_one = ModelState(current=one, serving=one, target=one)
    api.put("devices/cam-0001/pins/digits", {"version": "v1"})
    fleet.report("cam-0002", runs_one, facts=replace(GOOD, ram_bytes=64_000_000))
    fleet.report("cam-0003", runs_one, facts=replace(GOOD, onnxruntime="1.16.3"))
    fleet.report("cam-0004", ModelState(current=two, serving=two, target=two))
    fleet.report("cam-0005", runs_one, facts=replace(GOOD, arch="riscv64"))
    fleet.report("cam-0006", runs_one, features=("delta/1",))
    fleet.report("cam-0007", runs_one, features=("delta/1",))
    api.clock[0] += 9 * 24 * HOUR_S * 1000
    for number in range(1, 12):
        api.store.devices.contact(f"north-cam-{number:04}", api.clock[0])
    (api.folder / "canary.yaml").write_text(CANARY)
    return fleet


CANARY: Final = """\
kind: rollout
version: digits/v2
to: site in (leeds, york)
waves:
- {devices: 2, soak: 24h}
- {percent: 50, soak: 24h, approve: true}
- {percent: 100}
maintenance_windows: ["01:00-05:00"]
error_condition: {bad: "> 10 %", denominator: activated, min_completed: 2}
"""
