"""One seed, one story: a small fleet, its people, its bad network, and what did not hold."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from control_plane.store import Store
from tests.simulation.rollouts.checks import Checks, phases, told
from tests.simulation.rollouts.device import MINUTE_MS, MODEL, Fate
from tests.simulation.rollouts.fleet import STEP_MS, V2, V3, Fleet, Link, frail, ingest_of
from tests.simulation.rollouts.operators import SITES, Operators, some_spec

STEPS: Final = 60
"""In which anything may happen."""
QUIET: Final = 140
"""Steps of half an hour after that, in which all that is linked is heard."""
PATIENCE: Final = 130
"""Longer steps, where something is still waited for: a person is asked after seven days."""
SETTLING: Final = 3
"""Rounds after which another one at the same time would change nothing."""
RECORDED: Final = 10
"""Steps whose reports are told again in another order."""


@dataclass
class Played:
    seed: int
    devices: int
    wrong: dict[str, str]
    statuses: list[str]
    verdicts: set[str]
    records: int
    crashed: int
    done: list[str] = field(default_factory=list)
    told: dict[str, Any] | None = None
    pending: int = 0
    """Devices of completed rollouts that nobody waited for."""


def play(seed: int, *, twice: bool | None = None) -> Played:
    """`twice`: once with crashes and once without, which must come to the same; None: now and
    then."""
    if twice is None:
        twice = seed % 4 == 0
    with tempfile.TemporaryDirectory(prefix="rollouts-") as name, frail():
        rounds = SETTLING if twice else 1
        played = _play(seed, Path(name) / "one.sqlite", crashes=True, rounds=rounds)
        if twice:
            whole = _play(seed, Path(name) / "two.sqlite", crashes=False, rounds=rounds)
            assert played.told is not None
            assert whole.told is not None
            different = [key for key, rows in whole.told.items() if rows != played.told[key]]
            if different:
                played.wrong.setdefault(
                    "restart", f"after {played.crashed} crashes these differ: {different}"
                )
        played.told = None
        return played


def _play(seed: int, path: Path, *, crashes: bool, rounds: int) -> Played:
    rng = random.Random(seed)
    bad = rng.random() < 0.7
    link = Link(rng.choice((0.05, 0.2)), 0.2, rng.randrange(1, 4)) if bad else Link()
    fleet = Fleet(path, rng, random.Random(seed + 1) if crashes else None, link)
    fleet.rounds = rounds
    try:
        _people_it(fleet, rng)
        operators = Operators(fleet, rng)
        checks = Checks(fleet)
        busy = rng.choice((0.0, 0.1, 0.3))
        for _ in range(4):
            fleet.step()
        operators.start(some_spec(rng, "v2"))
        # Mostly while the first rollout is young: later there is little that reports change.
        recorded = 2 + rng.randrange(45) // 3 if rng.random() < 0.4 else STEPS
        for step in range(STEPS):
            if step == recorded:
                _in_another_order(fleet, checks, rng, path.with_suffix(".copy"))
            if not recorded <= step < recorded + RECORDED:
                operators.act(busy)
            if step < recorded or step >= recorded + RECORDED:
                fleet.step()
                checks.step()
        _calm(fleet, operators, checks, rng)
        checks.at_the_end(operators.pinned)
        rollouts = fleet.store.rollouts.page(MODEL, limit=100).items
        counts = [
            sum(each.unlinked for each in fleet.store.rollouts.members.counts(r.id).values())
            for r in rollouts
            if r.status == "completed"
        ]
        return Played(
            seed,
            len(fleet.devices),
            checks.wrong,
            [each.status for each in rollouts],
            checks.verdicts,
            checks.records,
            fleet.crashed,
            operators.done,
            told(fleet.store),
            sum(counts),
        )
    finally:
        fleet.close()


def _people_it(fleet: Fleet, rng: random.Random) -> None:
    """3 to 40 devices, mostly few; and what each version does to each of them."""
    count = rng.choice((3, 4, 5, 6, 8, 10, 12, 16, 24, 40))
    new = _fates(rng)
    for n in range(count):
        device = fleet.enrol(f"d{n}", rng.choice(SITES))
        device.skew_ms = rng.choice((0, 0, 0, -3600_000, 90_000, 7 * 86_400_000))
        device.fetch_ms = rng.randrange(1, 40) * MINUTE_MS
        device.trial_ms = rng.randrange(5, 60) * MINUTE_MS
        device.agreement = rng.choice((1.0, 1.0, 0.97, 0.5))
        device.shadows = rng.random() < 0.9
        device.linked = rng.random() < 0.9
        for version, (share, fate) in new.items():
            device.fates[version] = fate if rng.random() < share else "fine"


def _fates(rng: random.Random) -> dict[str, tuple[float, Fate]]:
    some: tuple[Fate, ...] = (
        "worse",
        "idle",
        "rejects",
        "rolls back",
        "dies staged",
        "dies serving",
    )
    return {version: (rng.choice((0.0, 0.05, 0.3, 1.0)), rng.choice(some)) for version in (V2, V3)}


def _calm(fleet: Fleet, operators: Operators, checks: Checks, rng: random.Random) -> None:
    """Nobody does anything but say yes; everybody who can be linked is, but for a few."""
    fleet.link = Link()
    if fleet.listening_since_ms is None:
        fleet.listening_since_ms = fleet.now_ms
    for device in fleet.devices.values():
        device.linked = device.linked or rng.random() < 0.7
    agrees = rng.random() < 0.5
    for number in range(QUIET):
        fleet.step(3 * STEP_MS)
        checks.step()
        if agrees and number % 8 == 0:
            operators.resume_all()
        active = fleet.store.rollouts.active()
        if number > 24 and all(each.status == "paused" for each in active) and not agrees:
            break
        if number > 24 and not active:
            break
    for _ in range(PATIENCE):
        if all(each.status == "paused" or each.accepted for each in fleet.store.rollouts.active()):
            break
        fleet.step(9 * STEP_MS)
        checks.step()
    for _ in range(12):
        fleet.step()
        checks.step()
    # What devices said in the last step.
    fleet.deliver()


def _in_another_order(fleet: Fleet, checks: Checks, rng: random.Random, path: Path) -> None:
    """What is said in the next steps, told to copies of the store in two orders."""
    copies = [path.with_suffix(f".{n}") for n in range(2)]
    for copy in copies:
        with contextlib.closing(sqlite3.connect(copy)) as into:
            fleet.store.connection().backup(into)
    fleet.delivered.clear()
    for _ in range(RECORDED):
        fleet.step()
        checks.step()
    said = list(fleet.delivered)
    shuffled = said + rng.choices(said, k=len(said) // 3) if said else []
    rng.shuffle(shuffled)
    found = []
    for copy, messages in zip(copies, (said, shuffled), strict=True):
        store = Store(copy)
        ingest = ingest_of(store, lambda: fleet.now_ms)
        for topic, data in messages:
            ingest.handle(topic, data)
        found.append(phases(store))
        store.close()
    for one, other in zip(*found, strict=True):
        if one != other:
            checks.say("order", f"{one} in order, {other} in another")
