"""The seven scenes of the demo one by one, on a smaller fleet and with shorter waits.

One fleet serves all of them, since starting one takes longer than most scenes. Each test says
what it needs (`v1`, or everybody on `v2`) and gets it, whichever tests ran before.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from control_plane.demo import scenes
from control_plane.demo.fleet import wait_until
from control_plane.demo.play import APPROVERS
from control_plane.demo.stage import MODEL, Stage
from control_plane.demo.transcript import Check, Transcript
from protocol.errors import OutriderError
from tests.fakes.whole_fleet import NearFleet, short_folder, tails

pytestmark = pytest.mark.e2e

SITES = {"a": ("a-1", "a-2"), "b": ("b-1",)}
ON_A_CABLE = "a-2"
WAVES = ("1", "100%")
SETTLED_S = 60.0


@dataclass
class Theatre:
    """A stage, and the checks of each scene that was played on it."""

    stage: Stage
    said: io.StringIO
    played: dict[str, list[Check]] = field(default_factory=dict)

    def play(self, name: str, scene: Callable[[], None]) -> list[Check]:
        """The checks that a scene notes. It is played once, also if it breaks off."""
        if name not in self.played:
            before = len(self.stage.checks)
            try:
                scene()
            except OutriderError as error:
                missing = f"{error}\n{self.said.getvalue()}\n{tails(self.stage.fleet)}"
                self.stage.note(0, f"{name} went through", "yes", "no", ok=False, missing=missing)
            self.played[name] = self.stage.checks[before:]
        return self.played[name]

    def v1(self) -> list[Check]:
        return self.play("first model", lambda: scenes.first_model(self.stage, WAVES))

    def v2(self) -> list[Check]:
        self.v1()
        return self.play("better model", lambda: scenes.better_model(self.stage, ("100%",)))

    def everybody_on(self, version: str) -> None:
        """An earlier scene may have left another version behind."""
        stage = self.stage
        if self.runs() != {f"{MODEL}/{version}"}:
            stage.follow(stage.start(version, ["100%"]), scenes.ROLLOUT_S)
        wait_until(lambda: self.runs() == {f"{MODEL}/{version}"}, version, SETTLED_S)

    def runs(self) -> set[str]:
        """What devices run: one name, when all run the same."""
        shown = self.stage.fleet.client.items("devices")
        return {model["runs"] for device in shown for model in device["models"]}


def all_kept(checks: list[Check]) -> None:
    assert checks
    broken = [
        f"{check.what}: expected {check.expected}, seen {check.seen}; missing: {check.missing}"
        for check in checks
        if not check.ok
    ]
    assert not broken, "\n".join(broken)


@pytest.fixture(scope="module")
def theatre() -> Iterator[Theatre]:
    with short_folder() as folder, NearFleet(folder) as fleet:
        said = io.StringIO()
        fleet.initialise(APPROVERS)
        fleet.start_control_plane()
        fleet.enrol(SITES)
        fleet.lay_cable(fleet.devices[ON_A_CABLE])
        fleet.start_agents()
        yield Theatre(Stage(fleet, Transcript(said)), said)


@pytest.fixture
def v1(theatre: Theatre) -> list[Check]:
    return theatre.v1()


@pytest.fixture
def v2(theatre: Theatre) -> list[Check]:
    return theatre.v2()


@pytest.fixture
def on_v2(theatre: Theatre, v2: list[Check]) -> Stage:
    theatre.everybody_on("v2")
    return theatre.stage


def test_a_first_model_reaches_every_device_and_leaves_the_origin_once(v1):
    all_kept(v1)


def test_a_better_model_replaces_it_without_a_failed_request(v2):
    all_kept(v2)


def test_scenes_say_what_they_sent_full_and_as_deltas(theatre, v2):
    lines = [each for each in theatre.said.getvalue().splitlines() if each.startswith("  sent ")]
    assert "full; fetched " in lines[0]
    assert any("delta; fetched " in each for each in lines)
    assert all(len(each) <= 80 for each in lines)


def test_a_bad_model_is_given_up_by_its_canary_and_seen_by_nobody_else(theatre, on_v2):
    all_kept(theatre.play("bad model", lambda: scenes.bad_model(on_v2, canaries=1)))


def test_a_cut_link_loses_no_answer_and_no_record(theatre, v1):
    stage = theatre.stage
    device = stage.fleet.devices[ON_A_CABLE]
    assert device.cable is not None
    try:
        checks = theatre.play("cut link", lambda: scenes.cut_link(stage, device, cut_s=3))
    finally:
        device.cable.restore()
    all_kept(checks)


def test_drift_is_found_at_the_site_that_has_it(theatre, v1):
    all_kept(theatre.play("drift", lambda: scenes.drift_at_one_site(theatre.stage, "b")))


def test_a_pinned_device_returns_and_an_unpinned_one_comes_back(theatre, on_v2):
    device = on_v2.fleet.devices["a-1"]
    all_kept(theatre.play("pin", lambda: scenes.pin(on_v2, device)))


def test_a_power_cut_in_the_middle_of_a_rollout_only_delays_it(theatre, on_v2):
    all_kept(theatre.play("power cut", lambda: scenes.power_cut(on_v2, WAVES)))
