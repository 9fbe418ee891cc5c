"""Every scenario without faults, and a sample of what the crash explorer tries (fixed seeds).

`python -m tests.simulation.explore` tries every operation of every scenario.
"""

import random
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from edge_agent import reconcile as table
from edge_agent.act import Actor
from edge_agent.disk import Disk
from edge_agent.journal import Journal, Note
from tests.simulation.device import Killed, PowerCut, Violation, Zeroed
from tests.simulation.explore import (
    SCENARIOS,
    Plan,
    Scenario,
    lose_journals,
    operations,
    play,
    random_plan,
    single_faults,
    wants,
)
from tests.simulation.files import SimulatedFiles

SEED = 20_261_120
SECONDS = 0.5
"""Per scenario; the explorer itself has no limit."""

each_scenario = pytest.mark.parametrize(
    "scenario", [pytest.param(scenario, id=scenario.name) for scenario in SCENARIOS]
)


@each_scenario
def test_it_ends_well_without_faults(scenario: Scenario):
    play(scenario, Plan())


@each_scenario
def test_it_ends_well_wherever_it_is_cut(scenario: Scenario):
    rng = random.Random(f"{SEED} {scenario.name}")
    length = operations(scenario)
    plans = [*single_faults(scenario)]
    rng.shuffle(plans)
    until = time.monotonic() + SECONDS
    tried = 0
    while tried < 4 or time.monotonic() < until:
        plan = plans.pop() if tried % 2 and plans else random_plan(scenario, rng, length)
        play(scenario, plan)
        tried += 1
    print(f"seed {SEED}: {tried} runs of {scenario.name!r}, {length} operations long")


def scenario(name: str) -> Scenario:
    return next(found for found in SCENARIOS if found.name == name)


def finds_a_violation(found: Scenario, plans: Iterable[Plan]) -> bool:
    try:
        for plan in plans:
            play(found, plan)
    except Violation:
        return True
    return False


def test_the_explorer_sees_a_bundle_that_appears_before_it_is_synced(monkeypatch):
    """Without the syncs of Stage and without hashing, torn bytes enter a process."""
    synced = SimulatedFiles.fsync
    monkeypatch.setattr(
        SimulatedFiles,
        "fsync",
        lambda files, path: None if "bundles" in path.parts else synced(files, path),
    )
    monkeypatch.setattr(Disk, "_is", lambda disk, path, member: True)
    update = scenario("update")
    length = operations(update)
    # While B is fetched and staged.
    cuts = (
        Plan(((at, cut),), seed=seed)
        for seed in range(20)
        for cut in (Zeroed, PowerCut)
        for at in range(length // 4, length // 2)
    )
    assert finds_a_violation(update, cuts)


def test_the_explorer_sees_a_load_that_is_not_counted(monkeypatch):
    """A machine-killer that is not counted never settles."""
    monkeypatch.setattr(table, "MAX_LOADS", 10**6)
    assert finds_a_violation(scenario("kills the machine"), [Plan()])


def test_the_explorer_sees_a_missing_sync_at_the_start(monkeypatch):
    """A kill inside a journal write, then a power cut in the next one: both slots are lost."""
    monkeypatch.setattr(Disk, "sync", lambda disk: None)
    pairs = (
        Plan(((first, Killed), (first + gap, PowerCut)), seed=seed)
        for seed in range(30)
        for first in range(2, 6)
        for gap in range(1, 5)
    )
    assert finds_a_violation(scenario("update"), pairs)


def test_the_explorer_sees_outcome_numbers_that_forget_the_outbox(monkeypatch):
    right = Journal.next_number
    monkeypatch.setattr(Journal, "next_number", lambda journal, reported: right(journal, 0))
    rescued = Scenario(
        "rescued after a report", (wants("B"), lose_journals), {"B": "health_bad"}, ends_on=None
    )
    assert finds_a_violation(rescued, [Plan()])


def test_the_explorer_sees_previous_overwritten_at_activation(monkeypatch):
    """What serves must never count as proven before its trial is over."""
    right = Actor._activate

    def overwrite(actor, bundle, observed, now_ms):
        right(actor, bundle, observed, now_ms)
        journal = actor.journal(observed.model)
        if bundle != journal.current:
            moved = replace(journal, current=bundle, previous=journal.current)
            actor._write(moved.with_note(bundle, Note()))

    monkeypatch.setattr(Actor, "_activate", overwrite)
    assert finds_a_violation(scenario("health fails"), [Plan()])
