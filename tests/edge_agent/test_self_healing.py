"""A committed bundle that works no longer, on a device without network: what the real machine does,
step by step, over simulated files and runners.

Long because one device tells all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from edge_agent.aftercare import LOOK_S
from edge_agent.journal import Journal
from edge_agent.observed import Observed
from edge_agent.runner.views import Load
from edge_agent.state import model_state
from edge_agent.steps import Activate, Commit, Degrade, Resume, Rollback, Step
from protocol.identifiers import Digest
from protocol.members import Policy
from protocol.reported import ModelState
from protocol.rules import Rules
from protocol.telemetry import InferenceWindow
from tests.simulation import device
from tests.simulation.device import Device, FakeBundle, FakeRunners

BASIC = Policy(health_window_s=10, min_requests=1, max_duration_s=100)
CONSTANT = Rules({"y": (1.0, 0.0)})
MINUTE_MS = 60_000


def bundle(name: str, policy: Policy = BASIC) -> FakeBundle:
    return device.bundle(name, policy=policy)


class Counting(FakeRunners):
    """Ten requests between two looks; what they come to is the bundle's nature."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.counted: dict[tuple[str, Digest], InferenceWindow] = {}

    def peek(self, runner: str) -> Mapping[str, InferenceWindow]:
        return {load.model: self._count(runner, load) for load in self._view(runner).loads}

    def _count(self, runner: str, load: Load) -> InferenceWindow:
        nothing = InferenceWindow(load.manifest, load.manifest)
        window = self.counted.get((runner, load.digest), nothing)
        bad = self.device.nature_of(load.digest) == "health_bad"
        window = replace(
            window,
            answers=window.answers + (0 if bad else 10),
            errors=window.errors + (10 if bad else 0),
        )
        if load.answering != "model":
            window = nothing
        self.counted[runner, load.digest] = window
        return window


class Watched(Device):
    """Nothing is cut short here: faults of models, not of machines."""

    def __init__(self, *bundles: FakeBundle) -> None:
        super().__init__(bundles, {})
        self.runners = Counting(self)

    def break_runners(self) -> None:
        """Only a model that is loaded can take its runner down."""
        for view in self.runners.processes:
            for load in view.loads:
                crashes = self.nature_of(load.digest) == "crashing" and load.answering == "model"
                if view.role == "serving" and crashes:
                    self.runners.crash(view.id, load)
                    self.served_before = set()
                    return

    def check(self) -> None:
        """A slot's bundle may have turned bad: that is what is looked at."""

    def until(self, kind: type[Step], turns: int = 400) -> Step:
        for _ in range(turns):
            _, _, step = self.turn()
            if isinstance(step, kind):
                return step
        raise AssertionError("\n".join(self.trace[-30:]))

    def idle(self, seconds: float) -> Observed:
        """So long nothing but what the agent does by itself."""
        until_s = self.now_s + seconds
        while True:
            _, observed, _ = self.turn()
            if self.now_s >= until_s:
                return observed

    def later(self, minutes: float) -> None:
        self.now_ms += int(minutes * MINUTE_MS)

    def journal(self) -> Journal:
        stored = self.peek_journal()
        assert stored is not None
        return stored

    def state(self) -> ModelState:
        decision, observed, step = self.turn()
        return model_state(decision, observed, step, plan=None, fetch=self.fetch, serving=None)

    def answering(self) -> list[tuple[str, str]]:
        return [
            (self.by_digest[load.digest].name, load.answering)
            for view in self.runners.processes
            if view.role == "serving"
            for load in view.loads
        ]


def settled(*bundles: FakeBundle, previous: str | None = "Z") -> Watched:
    """A is committed and serves, after Z where there is one; then A's model breaks."""
    found = Watched(*bundles)
    found.install("A", previous)
    found.idle(5 * LOOK_S)
    assert found.answering() == [("A", "model")]
    return found


A, Z, F = (bundle(name) for name in "AZF")


def with_policy(**fields: object) -> FakeBundle:
    return bundle("A", replace(BASIC, **fields))  # type: ignore[arg-type]  # fields of a Policy


# --- back to the version before -----------------------------------------------------------------


def test_a_committed_bundle_that_begins_to_fail_gives_way_to_the_one_before():
    found = settled(A, Z)
    found.natures["A"] = "health_bad"
    step = found.until(Rollback)
    found.idle(1)
    assert isinstance(step, Rollback)
    assert (step.reason, step.detail) == ("OUT-D318", "errors 10 of the last 50 requests")
    assert found.answering() == [("Z", "model")]
    outcome = found.outbox.outcomes[-1]
    assert (outcome.digest, outcome.result, outcome.reason) == (A.digest, "rolled_back", "OUT-D318")


def test_what_happened_before_the_agent_looked_is_not_held_against_it():
    found = settled(A, Z)
    found.actor = None
    runner = found.runners.processes[0].id
    runners = found.runners
    assert isinstance(runners, Counting)
    load = found.runners.processes[0].loads[0]
    old = InferenceWindow(load.manifest, load.manifest, answers=10, errors=10_000)
    runners.counted[runner, load.digest] = old
    found.idle(10 * LOOK_S)
    assert found.answering() == [("A", "model")]


def test_a_bundle_is_left_for_longer_each_time_and_not_for_ever():
    found = settled(A, Z)
    holds = []
    for _ in range(3):
        found.natures["A"] = "health_bad"
        found.until(Rollback)
        note = found.journal().note(A.digest)
        assert note.until_ms is not None
        assert not note.definite
        holds.append((note.until_ms - found.now_ms) / MINUTE_MS)
        found.natures["A"] = "good"
        found.idle(3)
        assert found.answering() == [("Z", "model")]
        found.now_ms = note.until_ms
        found.until(Commit)
        assert found.journal().slots == (A.digest, Z.digest)
        found.idle(5 * LOOK_S)
    for hold, minutes in zip(holds, (10, 20, 40), strict=True):
        assert 0.8 * minutes <= hold <= 1.2 * minutes


def test_a_bundle_that_goes_back_and_forth_is_said_to_flap():
    found = settled(A, Z)
    for _ in range(2):
        found.natures["A"] = "health_bad"
        found.until(Rollback)
        found.natures["A"] = "good"
        found.idle(2)
        waiting = found.state().waiting
        found.now_ms = found.journal().note(A.digest).until_ms or 0
        if waiting == "OUT-D341":
            return
        assert waiting == "OUT-D318"
        found.until(Commit)
        found.idle(3 * LOOK_S)
    raise AssertionError("never said")


def test_an_operator_may_end_a_hold():
    found = settled(A, Z)
    found.natures["A"] = "health_bad"
    found.until(Rollback)
    found.natures["A"] = "good"
    found.idle(3)
    assert found.journal().current == Z.digest
    found.allow[A.digest] = 1
    found.until(Commit)
    assert found.journal().current == A.digest


def test_runner_deaths_far_apart_count_together():
    found = settled(A, Z)
    for _ in range(3):
        found.idle(100)
        view = next(view for view in found.runners.processes if view.role == "serving")
        found.served_before = set()
        found.runners.crash(view.id, view.loads[0])
        found.idle(2)
    assert found.journal().current == Z.digest
    assert found.outbox.outcomes[-1].detail == "3 runner deaths in 10 minutes"


def test_runner_deaths_much_further_apart_do_not():
    found = settled(A, Z)
    for _ in range(4):
        found.idle(400)
        view = next(view for view in found.runners.processes if view.role == "serving")
        found.served_before = set()
        found.runners.crash(view.id, view.loads[0])
        found.idle(2)
    assert found.journal().current == A.digest


def test_what_the_policy_does_not_watch_is_let_be():
    found = settled(with_policy(after_commit=()), Z)
    found.natures["A"] = "health_bad"
    found.idle(20 * LOOK_S)
    assert found.answering() == [("A", "model")]
    assert found.state().triggers["errors"] == "on probation only"


# --- rules, refusal, nothing better -------------------------------------------------------------


def test_without_a_version_before_the_signed_rules_answer():
    found = settled(with_policy(rules=CONSTANT), previous=None)
    found.natures["A"] = "health_bad"
    step = found.until(Degrade)
    found.idle(1)
    assert isinstance(step, Degrade)
    assert found.answering() == [("A", "rules")]
    assert found.journal().current == found.by_name["A"].digest
    assert found.outbox.outcomes[-1].result == "degraded"
    state = found.state()
    assert (state.answering, state.waiting) == ("rules", "OUT-D351")


def test_rules_answer_although_there_is_a_version_before_where_the_policy_says_so():
    found = settled(with_policy(rules=CONSTANT, actions={"errors": "rules"}), Z)
    found.natures["A"] = "health_bad"
    found.until(Degrade)
    found.idle(1)
    assert found.answering() == [("A", "rules")]


def test_the_model_is_tried_again_after_the_hold_and_the_next_hold_is_longer():
    found = settled(with_policy(rules=CONSTANT), previous=None)
    found.natures["A"] = "health_bad"
    found.until(Degrade)
    digest = found.by_name["A"].digest
    first = (found.journal().note(digest).until_ms or 0) - found.now_ms
    found.later(13)
    found.until(Resume)
    found.idle(1)
    assert found.answering() == [("A", "model")]
    found.until(Degrade)
    assert found.journal().note(digest).until_ms is not None
    assert (found.journal().note(digest).until_ms or 0) - found.now_ms > 1.3 * first


def test_rules_go_on_answering_after_the_agent_and_the_machine_came_back():
    found = settled(with_policy(rules=CONSTANT), previous=None)
    found.natures["A"] = "health_bad"
    found.until(Degrade)
    found.idle(1)
    found.actor, found.runners.processes, found.served_before = None, [], set()
    found.idle(70)
    assert found.answering() == [("A", "rules")]
    assert found.journal().note(found.by_name["A"].digest).loads == 0


def test_a_crash_loop_ends_with_the_rules():
    found = settled(with_policy(rules=CONSTANT), previous=None)
    found.natures["A"] = "crashing"
    for _ in range(400):
        found.served_before = set()
        found.turn()
    assert found.answering() == [("A", "rules")]


def test_a_policy_may_refuse_and_only_people_end_that():
    found = settled(with_policy(actions={"errors": "refuse"}), Z)
    found.natures["A"] = "health_bad"
    found.until(Degrade)
    found.idle(1)
    assert found.answering() == [("A", "refuses")]
    state = found.state()
    assert (state.answering, state.waiting) == ("refuses", "OUT-D352")
    found.later(100 * 24 * 60)
    found.idle(10)
    assert found.answering() == [("A", "refuses")]
    found.natures["A"] = "good"
    found.allow[found.by_name["A"].digest] = 1
    found.until(Resume)
    found.idle(1)
    assert found.answering() == [("A", "model")]


def test_with_nothing_better_it_serves_on_and_says_so_once():
    found = settled(A, previous=None)
    found.natures["A"] = "health_bad"
    found.idle(5 * LOOK_S)
    first, _ = found.state(), found.idle(5 * LOOK_S)
    assert found.answering() == [("A", "model")]
    assert first.waiting == "OUT-D318"
    assert first == found.state()


def test_a_new_version_takes_over_from_rules_and_they_are_what_it_returns_to():
    found = settled(with_policy(rules=CONSTANT), bundle("B"), previous=None)
    found.natures["A"] = "health_bad"
    found.until(Degrade)
    found.candidate, found.natures["B"] = "B", "health_bad"
    found.idle(30)
    assert found.answering() == [("A", "rules")]
    assert found.outbox.outcomes[-1].result == "rejected"
    found.natures["B"], found.allow[found.by_name["B"].digest] = "good", 1
    found.until(Commit)
    found.idle(1)
    assert found.answering() == [("B", "model")]


# --- the named fallback -------------------------------------------------------------------------


def falling_back(*others: FakeBundle, previous: str | None) -> Watched:
    policy = {"fallback": F.digest, "actions": {"errors": "fallback"}}
    return settled(with_policy(**policy), F, *others, previous=previous)


@pytest.mark.parametrize("previous", ["Z", None])
def test_the_named_fallback_takes_over_by_a_trial_of_its_own(previous):
    found = falling_back(*([Z] if previous else []), previous=previous)
    found.natures["A"] = "health_bad"
    found.until(Activate)
    while not isinstance(found.turn()[2], Commit):
        assert len(found.trace) < 600
    assert found.journal().current == F.digest


def test_until_the_fallback_is_proven_the_version_before_is_what_returns():
    found = falling_back(Z, previous="Z")
    found.natures["A"], found.natures["F"] = "health_bad", "probe_bad"
    found.until(Rollback)
    found.idle(30)
    assert found.answering() == [("Z", "model")]


def test_an_unproven_fallback_that_fails_leaves_what_was_there():
    found = falling_back(previous=None)
    found.natures["A"], found.natures["F"] = "health_bad", "probe_bad"
    found.idle(60)
    assert found.answering() == [("A", "model")]
    assert found.state().waiting == "OUT-D318"


def test_a_fallback_that_approvers_took_back_is_none():
    found = falling_back(Z, previous="Z")
    found.revoked["F"] = "fallback"
    found.natures["A"] = "health_bad"
    found.until(Rollback)
    found.idle(30)
    assert found.answering() == [("Z", "model")]
    assert found.journal().note(found.by_name["A"].digest).toward is None


def test_a_fallback_is_no_destination_of_a_device_that_runs_well():
    found = falling_back(previous=None)
    found.assigned = False
    found.idle(30)
    assert found.answering() == [("A", "model")]


# --- a first version ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, answering",
    [
        pytest.param({"rules": CONSTANT}, ("A", "rules"), id="rules answer in its place"),
        pytest.param({"actions": {"errors": "refuse"}}, ("A", "refuses"), id="or nothing does"),
        pytest.param({}, ("A", "model"), id="without either it is all there is"),
    ],
)
def test_a_first_version_that_fails_on_trial(fields, answering):
    found = Watched(with_policy(**fields))
    found.install(None, None)
    found.stable = "A"
    found.until(Activate)
    found.natures["A"] = "health_bad"
    found.idle(20)
    assert found.answering() == [answering]
    assert found.journal().current is None


def test_rules_of_a_first_version_that_failed_outlive_a_power_cut():
    found = Watched(with_policy(rules=CONSTANT))
    found.install(None, None)
    found.stable = "A"
    found.until(Activate)
    found.natures["A"] = "health_bad"
    found.idle(20)
    found.actor, found.runners.processes, found.served_before = None, [], set()
    found.idle(10)
    assert found.answering() == [("A", "rules")]
