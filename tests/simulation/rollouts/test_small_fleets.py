"""A short version of `make simulate`: a few seeds, and scenes that none of them need have."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from control_plane.rollout import operations
from protocol.membership import EVERYONE
from protocol.plan import Wave
from tests.simulation.rollouts.checks import Checks
from tests.simulation.rollouts.fleet import STEP_MS, V1, V2, Fleet, frail
from tests.simulation.rollouts.operators import Operators
from tests.simulation.rollouts.play import play

SEEDS = (2, 7, 20, 26)
"""Small ones; 20 and 26 once waited for the shadows of a wave that nobody was in any more."""


@pytest.fixture
def fleet(tmp_path):
    with frail():
        made = Fleet(tmp_path / "store.sqlite", random.Random(1))
        for n in range(5):
            made.enrol(f"d{n}", "a")
        made.step()
        made.step()
        yield made
        made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_to_a_small_fleet_nothing_that_must_hold_is_broken(seed):
    played = play(seed, twice=False)
    assert played.wrong == {}
    assert played.records > 0


def test_a_ticker_that_dies_again_and_again_comes_to_the_same_as_one_that_never_does():
    played = play(12, twice=True)
    assert played.wrong == {}
    assert played.crashed > 3


def go(fleet, checks, steps, ms=STEP_MS):
    for _ in range(steps):
        fleet.step(ms)
        checks.step()


def test_a_rollout_completes_for_reachable_devices_while_others_are_pending(fleet):
    away = [fleet.devices["north-d0"], fleet.devices["north-d3"]]
    for device in away:
        device.linked = False
    go(fleet, Checks(fleet), 18)
    checks, operators = Checks(fleet), Operators(fleet, random.Random(2))
    id = operators.start(
        {"version": "digits/v2", "waves": ["2", "100 %"], "unproven": "proceed", "gates": "off"}
    )
    for _ in range(60):
        go(fleet, checks, 1, 3 * STEP_MS)
        operators.resume_all()
        if fleet.store.rollouts.get(id).ended:
            break
    rollout = fleet.store.rollouts.get(id)
    assert rollout.status == "completed"
    assert sum(each.unlinked for each in fleet.store.rollouts.members.counts(id).values()) == 2
    for device in away:
        assert device.current == V1
        device.linked = True
    go(fleet, checks, 12)
    assert {device.current for device in fleet.devices.values()} == {V2}
    checks.at_the_end(set())
    assert checks.wrong == {}


# --- the checks can fail --------------------------------------------------------------------------


def rolling(fleet, **more):
    checks, operators = Checks(fleet), Operators(fleet, random.Random(2))
    operators.start({"version": "digits/v2", "waves": ["2", "100 %"], "soak": "9 h", **more})
    go(fleet, checks, 3)
    (rollout,) = fleet.store.rollouts.active()
    assert rollout.wave == 1
    assert checks.wrong == {}
    return checks, rollout


def with_wave(plan, wave, **more):
    """The plan with another wave, as a later version."""
    rules = tuple(
        replace(rule, rollout=rule.rollout and replace(rule.rollout, wave=wave, **more))
        for rule in plan.rules
    )
    return replace(plan, rules=rules, version=plan.version + 1)


def test_a_plan_that_asks_too_many_is_noticed(fleet, monkeypatch):
    checks, _ = rolling(fleet)
    changed = with_wave(fleet.plan, Wave(2**52 + 2**51))
    monkeypatch.setattr(Fleet, "plan", property(lambda self: changed))
    checks.step()
    assert "budget" in checks.wrong


def test_a_counter_that_is_off_by_one_is_noticed(fleet):
    checks, rollout = rolling(fleet)
    fleet.store.connection().execute(
        "UPDATE phase_count SET n = n + 1 WHERE rollout = ? AND n > 0", (rollout.id,)
    )
    checks.step()
    assert "counters" in checks.wrong


def test_a_record_that_was_changed_is_noticed(fleet):
    checks, _ = rolling(fleet)
    go(fleet, checks, 12)
    fleet.store.connection().execute(
        "UPDATE evidence_record SET body = replace(body, 'insufficient', 'pass')"
    )
    again = Checks(fleet, targets=checks.targets)
    again.step()
    assert {"replay", "chain"} <= set(again.wrong)


def test_a_device_that_is_held_back_and_tries_it_all_the_same_is_noticed(fleet):
    checks, rollout = rolling(fleet, holdback="1")
    held = fleet.store.rollouts.members.of(rollout.id)
    (device,) = (each.device for each in held if each.wave > len(rollout.waves))
    trying = fleet.devices[device]
    trying.plan, trying.fetch_ms = with_wave(fleet.plan, Wave(EVERYONE), holdback=0), 0
    go(fleet, checks, 3)
    assert "holdback" in checks.wrong


def test_a_device_that_keeps_what_was_aborted_is_noticed(fleet):
    checks, rollout = rolling(fleet)
    go(fleet, checks, 10)
    tried = [each for each in fleet.devices.values() if each.current == V2]
    assert len(tried) == 2
    kept = with_wave(fleet.plan, Wave(EVERYONE))
    operations.abort(fleet.store, rollout.id, fleet.now_ms, "no", who="eva")
    tried[0].plan = replace(kept, version=kept.version + 1_000_000)
    go(fleet, checks, 4)
    assert tried[1].current == V1
    tried[0].plan = fleet.plan
    checks.at_the_end(set())
    assert "returned" in checks.wrong
