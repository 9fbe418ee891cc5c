"""Each invariant's check fails on a made-up violation, and on nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.soak.evidence import (
    Evidence,
    Failure,
    Model,
    Outcome,
    RunnerLife,
    Sample,
    Span,
)
from tests.soak.invariants import (
    CHECKS,
    MEMORY_BYTES,
    PER_WISH,
    QUIET_MESSAGES,
    lost_at_most,
    violations,
)

GOOD = Evidence(
    answered=100,
    versions={"v1": 60, "g1": 40},
    runners=(RunnerLife(10, 0.0, Span(8.0, 8.0), True), RunnerLife(11, 7.0, None, False)),
    samples=(
        Sample(1.0, 10, 12, {"timestamp": 5, "plan": 0}),
        Sample(2.0, 20, 22, {"timestamp": 6, "plan": 3}),
        Sample(9.0, 80, 90, {"timestamp": 6, "plan": 4}),
    ),
    peaks={"supervisor": 80_000_000, "runner": 90_000_000},
    approved=frozenset({"v0", "v1", "g1", "x1"}),
    wanted="g1",
    model=Model("g1", "g1", "g1"),
    counted=100,
    stored=100,
    outcomes=(Outcome(1, "committed", None), Outcome(2, "rejected", "OUT-D301")),
    outcomes_stored=frozenset({1, 2}),
    published={"tuf": 20, "plans": 2},
    payload_bytes=1000,
    wishes=1,
    lasted_s=12.0,
)
DIED = replace(
    GOOD,
    runners=(RunnerLife(10, 0.0, Span(5.0, 5.0), False), RunnerLife(11, 5.5, None, False)),
    failures=(Failure(4.9, 5.05, "reset"),),
    counted=80,
    stored=80,
)
"""A runner was killed in the middle of a request, with what it had counted since 2.0."""


@pytest.mark.parametrize("seen", [GOOD, DIED], ids=["good", "a runner died"])
def test_what_may_happen_is_no_violation(seen):
    assert violations(seen) == ()


BROKEN: dict[str, tuple[int, Evidence]] = {
    "an answer that is not the version's": (1, replace(GOOD, wrong=("v1: [0.1]",))),
    "answers of a version nobody approved": (1, replace(GOOD, versions={"d1": 1})),
    "an unapproved version is served": (1, replace(GOOD, model=Model("d1", "v1", "g1", "x"))),
    "an unapproved version is committed": (1, replace(GOOD, model=Model("g1", "d1", "g1"))),
    "no answer at all": (2, replace(GOOD, answered=0, counted=0, stored=0)),
    "a request fails for no reason": (2, replace(GOOD, failures=(Failure(3.0, 3.1, "503"),))),
    "a request fails with a runner that was drained": (
        2,
        replace(GOOD, failures=(Failure(7.9, 8.1, "reset"),)),
    ),
    "a request fails after the death": (
        2,
        replace(DIED, failures=(Failure(5.3, 5.4, "refused"),)),
    ),
    "the model does not answer in the end": (2, replace(GOOD, answers_now=False)),
    "it serves nothing": (2, replace(GOOD, model=Model())),
    "it serves what was revoked": (2, replace(GOOD, revoked=frozenset({"g1"}))),
    "it serves what is denied": (2, replace(GOOD, denied=frozenset({"g1"}))),
    "the agent ends by itself": (2, replace(GOOD, surprises=("the agent ended",))),
    "two contents of one record": (3, replace(GOOD, conflicts=1)),
    "records that nobody confirms": (3, replace(GOOD, held=2)),
    "more stored than answered": (3, replace(GOOD, stored=101, counted=101)),
    "stored is not what was counted": (3, replace(GOOD, stored=99)),
    "counts are lost without a death": (3, replace(GOOD, stored=99, counted=99)),
    "a death takes more than was not counted": (3, replace(DIED, stored=10, counted=10)),
    "more than answered, after a loss that was said": (
        3,
        replace(GOOD, loss_said=True, stored=101),
    ),
    "trust goes back": (
        4,
        replace(GOOD, samples=(*GOOD.samples, Sample(10.0, 90, 99, {"timestamp": 5}))),
    ),
    "trust goes back over a gap": (
        4,
        replace(
            GOOD,
            samples=(
                *GOOD.samples,
                Sample(10.0, 90, 99, {"plan": 0}),
                Sample(11.0, 90, 99, {"plan": 3}),
            ),
        ),
    ),
    "a confirmed wish is forgotten": (4, replace(GOOD, forgotten=("the pin",))),
    "the control plane shows something else": (4, replace(GOOD, agreed=False)),
    "not where it should be, without a reason": (
        4,
        replace(GOOD, model=Model("v1", "v1", "g1", reasons={"x1": "OUT-D301"})),
    ),
    "a trial that never ends": (4, replace(GOOD, model=Model("g1", "v1", "g1"))),
    "too many messages": (5, replace(GOOD, published={"tuf": QUIET_MESSAGES + PER_WISH + 1})),
    "frames are published again and again": (5, replace(GOOD, frame_bytes=2001)),
    "it heads for what nobody approved": (6, replace(GOOD, model=Model("g1", "g1", "d1"))),
    "orders leave nothing": (6, replace(GOOD, model=Model())),
    "a request fails while the cable is cut": (
        7,
        replace(GOOD, failures=(Failure(3.0, 3.1, "503"),), harmless=(Span(2.0, 4.0),)),
    ),
    "a verdict cannot be replayed": (8, replace(GOOD, verdicts=("toy-3",))),
    "an end without a reason": (8, replace(GOOD, outcomes=(Outcome(2, "rolled_back", None),))),
    "an end that nobody heard of": (8, replace(GOOD, outcomes_stored=frozenset({1}))),
    "inputs in a record": (9, replace(GOOD, leaks=("a stored record",))),
    "memory without bounds": (10, replace(GOOD, peaks={"runner": MEMORY_BYTES + 1})),
}


@pytest.mark.parametrize("number, seen", BROKEN.values(), ids=BROKEN.keys())
def test_a_violation_is_found(number, seen):
    found = [text for text in violations(seen) if text.startswith(f"invariant {number}: ")]
    assert found, violations(seen)


def test_every_invariant_has_a_violation_that_is_found():
    assert {number for number, _ in BROKEN.values()} == set(CHECKS) == set(range(1, 11))


def test_requests_may_fail_while_neither_agent_nor_runner_is_there():
    killed = replace(
        GOOD,
        runners=(RunnerLife(10, 0.0, Span(5.0, 5.0), False), RunnerLife(11, 7.5, None, False)),
        absences=(Span(4.0, 7.0),),
        failures=(Failure(6.0, 6.1, "refused"),),
    )
    assert not list(CHECKS[2](killed))
    # The runner serves on while only its agent is gone.
    served: Any = replace(killed, failures=(Failure(4.4, 4.5, "refused"),))
    assert list(CHECKS[2](served))
    back: Any = replace(killed, failures=(Failure(7.3, 7.4, "refused"),))
    assert list(CHECKS[2](back))


def test_a_reason_excuses_a_device_that_is_not_on_what_is_wanted():
    stays = Model("v1", "v1", "g1", reasons={"g1": "OUT-D310"})
    waits = Model("v1", "v1", "g1", waiting="OUT-D340")
    ended = Model("v1", "v1", "v1", last=("g1", "OUT-D316"))
    for model in (stays, waits, ended):
        assert not list(CHECKS[4](replace(GOOD, model=model)))


def test_what_dies_with_a_runner_is_what_came_after_the_last_count():
    # At 2.0 the outbox had 20; at 9.0, the first look after the death, 90 were answered.
    assert lost_at_most(DIED) == 70
    assert lost_at_most(GOOD) == 0


def test_lost_records_are_no_violation_once_the_device_says_so():
    assert not list(CHECKS[3](replace(GOOD, loss_said=True, stored=40, counted=5)))
