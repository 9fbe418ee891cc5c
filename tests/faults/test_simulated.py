"""The matrix in memory: the real step interpreter, cut before every operation.

`tests.simulation` has more scenarios and draws what a power cut leaves; here every prefix is tried,
with a kill and with a power cut where an update goes well, with one of several faults elsewhere.
"""

from __future__ import annotations

import random

import pytest

from tests.faults.table import STEPS_SIMULATED_ONLY
from tests.simulation.device import HalfWritten, Killed, Nothing, PowerCut, Zeroed
from tests.simulation.explore import SCENARIOS, Plan, Scenario, operations, play, writes

SEED = 20_261_121
PAIRS = 8
DEALS = 4
"""Parts of one scenario's prefixes, so that they run beside each other."""

FAULTS: dict[str, type[Killed]] = {
    "kill": Killed,
    "cut": Nothing,
    "half": HalfWritten,
    "zeros": Zeroed,
}
EVERYWHERE = [
    ("update", ("kill",)),
    ("update", ("cut", "half", "zeros")),
    ("first install", ("kill", "cut")),
    ("health fails", ("kill", "cut")),
    ("memory for one runner", ("kill", "cut")),
]
"""Scenarios, and the faults of which one, in turns, is met before every one of their operations."""


def scenario(name: str) -> Scenario:
    return next(found for found in SCENARIOS if found.name == name)


@pytest.mark.parametrize("deal", range(DEALS))
@pytest.mark.parametrize("name, faults", EVERYWHERE)
def test_it_ends_well_whichever_operation_is_the_last(
    name: str, faults: tuple[str, ...], deal: int
):
    found = scenario(name)
    for number, at in enumerate(range(1 + deal, operations(found) + 1, DEALS)):
        fault = FAULTS[faults[number % len(faults)]]
        play(found, Plan(((at, fault),), seed=at))


@pytest.mark.parametrize("name", ["update", "first install", "golden vectors fail", "health fails"])
@pytest.mark.parametrize("full_for", [1, 6])
def test_it_ends_well_whichever_write_finds_no_room(name: str, full_for: int):
    found = scenario(name)
    for write in range(1, writes(found) + 1):
        play(found, Plan(full_at=write, full_for=full_for))


@pytest.mark.parametrize(
    "name", ["update", "health fails", "two models at once", "kills its runner once committed"]
)
def test_it_ends_well_when_two_things_happen(name: str):
    found, rng = scenario(name), random.Random(f"{SEED} {name}")
    length = operations(found)
    for number in range(PAIRS):
        first = rng.randrange(1, length)
        second = first + rng.randrange(1, 20)
        faults = rng.choices(list(FAULTS.values()), k=2)
        play(found, Plan(((first, faults[0]), (second, faults[1])), seed=number))


WITHOUT_A_LINK = [found for found in SCENARIOS if found.name.endswith("without a link")]


@pytest.mark.parametrize("found", [pytest.param(s, id=s.name) for s in WITHOUT_A_LINK])
def test_crash_loops_end_without_a_link(found: Scenario):
    device = play(found, Plan())
    assert not device.linked
    ended = {(each.digest, each.reason) for each in device.outbox.outcomes if each.reason}
    (reason,) = {reason for _, reason in ended}
    assert ended == {(device.digest("B"), reason)}
    assert reason in found.reasons["B"]
    # Whatever kills the machine as well while it is at it.
    rng = random.Random(f"{SEED} {found.name}")
    for number in range(8):
        at = rng.randrange(1, operations(found))
        play(found, Plan(((at, rng.choice((Killed, PowerCut))),), seed=number))


def test_steps_that_no_reference_journey_takes_are_taken_here():
    names = [
        "stopped and started",
        "both journals lost",
        "small disk",
        "current revoked with fallback",
        "memory for one runner",
        "refuses once it kills its runner, then mended",
    ]
    plays = [(name, Plan()) for name in names]
    # A pin that is gone when its bundle has been probed, and not activated yet.
    plays += [("there and back", Plan(delays=(None, delay))) for delay in range(8, 24)]
    taken = {
        line.partition("(")[0] for name, plan in plays for line in play(scenario(name), plan).trace
    }
    assert taken >= STEPS_SIMULATED_ONLY
