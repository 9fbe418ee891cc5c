"""Crash explorer: scenarios of the update machine, cut short everywhere, must always end well.

    python -m tests.simulation.explore [name]       every operation of every scenario, for long

The test suite runs a sample of it with a fixed seed.

Long because every scenario is told in one place.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from edge_agent.disk import ROOM_TO_SPARE, SLOTS
from edge_agent.journal import SLOT_BYTES, Journal
from tests.simulation.device import (
    HOME,
    MODEL,
    NEIGHBOUR,
    REFUSES,
    Device,
    FakeBundle,
    FakeMeter,
    Killed,
    Nature,
    PowerCut,
    Violation,
    bundle,
)

BUNDLES: tuple[FakeBundle, ...] = (
    *(bundle(name) for name in "AZBC"),
    bundle("R", policy=REFUSES),
    *(bundle(name, NEIGHBOUR) for name in "PQ"),
)
Event = Callable[[Device], None]


def small_disk() -> int:
    """Room for two bundles and for fetching a third only once one of them has gone."""
    one = sum(len(data) for data in BUNDLES[0].files.values())
    members = [len(d) for name, d in BUNDLES[0].files.items() if not name.endswith(".json")]
    fetching = sum(members) + round(1.02 * max(members)) + 64 * 1024 + ROOM_TO_SPARE
    documents = one - sum(members)
    return 2 * SLOT_BYTES + 2 * one + documents + fetching - one // 2


def wants(name: str, pin: bool = False) -> Event:
    def event(device: Device) -> None:
        if pin:
            device.pin = name
        else:
            device.stable = name

    return event


def rolls_out(name: str) -> Event:
    def event(device: Device) -> None:
        device.candidate = name

    return event


def both(stable: str, candidate: str) -> Event:
    """Assigned for the first time while a rollout is on."""

    def event(device: Device) -> None:
        device.stable, device.candidate = stable, candidate

    return event


def shadows(name: str) -> Event:
    """A rollout that wants its candidate to run beside what serves first."""

    def event(device: Device) -> None:
        device.candidate, device.shadow = name, True

    return event


def lift_shadow(device: Device) -> None:
    device.shadow = False


def aborted(device: Device) -> None:
    device.candidate = None


def unpin(device: Device) -> None:
    device.pin = None


def unassign(device: Device) -> None:
    device.assigned = False


def assign(device: Device) -> None:
    device.assigned = True


def stop(device: Device) -> None:
    device.stopped = True


def go_on(device: Device) -> None:
    device.stopped = False


def revoke(name: str, how: str) -> Event:
    def event(device: Device) -> None:
        device.revoked[name] = "stop" if how == "stop" else "fallback"

    return event


def deny(*names: str) -> Event:
    def event(device: Device) -> None:
        device.denied = frozenset(device.by_name[name].digest for name in names)

    return event


def mend(name: str, number: int) -> Event:
    """The operator allows another attempt, and this time the bundle works."""

    def event(device: Device) -> None:
        device.natures[name] = "good"
        device.allow[device.by_name[name].digest] = number

    return event


def neighbour_wants(name: str) -> Event:
    def event(device: Device) -> None:
        device.neighbour = name

    return event


def everything(*events: Event) -> Event:
    """At once."""

    def event(device: Device) -> None:
        for each in events:
            each(device)

    return event


def link_ends(device: Device) -> None:
    """What is fetched now is the last that comes."""
    device.link_ends = True


def upgrade(mends: str = "") -> Event:
    """Another agent version takes over, and gets along with a bundle that its predecessor could
    not load or probe."""

    def event(device: Device) -> None:
        device.agent = "0.2.0"
        device.after(Killed())
        if mends:
            device.natures[mends] = "good"

    return event


def quiet(device: Device) -> None:
    device.traffic = False


def lose_journals(device: Device) -> None:
    device.damaged = True
    for slot in SLOTS:
        device.files.damage(HOME / "state" / f"{MODEL}.{slot}")
    device.after(PowerCut())


def damage_current(device: Device) -> None:
    journal = device.peek_journal()
    assert journal is not None
    assert journal.current is not None
    device.files.damage(HOME / "bundles" / journal.current / "model.bin")


@dataclass(frozen=True)
class Scenario:
    name: str
    events: tuple[Event, ...]
    natures: Mapping[str, Nature] = field(default_factory=dict)
    current: str | None = "A"
    previous: str | None = "Z"
    room: int = 10**9
    ends_on: str | None = "B"
    """What serves and is committed in the end."""
    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Bundles that are given up, and the reasons of which one must have been reported."""
    neighbour: str | None = None
    """What another model on the same device runs in the beginning."""
    neighbour_ends_on: str | None = None
    fits: float = 3
    """Runners that memory has room for: with two and some, the one before stays loaded."""
    steady: bool = True
    """Whether events only come once the device has settled, and never in between."""


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("update", (wants("B"),)),
    Scenario("update without traffic", (quiet, wants("B"))),
    Scenario("first install", (wants("A"),), current=None, previous=None, ends_on="A"),
    Scenario(
        "golden vectors fail",
        (wants("B"),),
        {"B": "probe_bad"},
        ends_on="A",
        reasons={"B": ("OUT-D301",)},
    ),
    Scenario(
        "cannot be loaded",
        (wants("B"),),
        {"B": "load_bad"},
        ends_on="A",
        reasons={"B": ("OUT-D302",)},
    ),
    Scenario(
        "loads too slowly",
        (wants("B"),),
        {"B": "slow"},
        ends_on="A",
        reasons={"B": ("OUT-D313", "OUT-D312")},
    ),
    Scenario(
        "health fails",
        (wants("B"),),
        {"B": "health_bad"},
        ends_on="A",
        reasons={"B": ("OUT-D310",)},
    ),
    Scenario(
        "kills its runner",
        (wants("B"),),
        {"B": "crashing"},
        ends_on="A",
        reasons={"B": ("OUT-D311", "OUT-D312")},
    ),
    Scenario(
        "kills the machine",
        (wants("B"),),
        {"B": "poison"},
        ends_on="A",
        reasons={"B": ("OUT-D312",)},
    ),
    Scenario(
        "another version during the trial", (wants("B"), wants("C")), ends_on="C", steady=False
    ),
    Scenario(
        "bad, then good",
        (wants("B"), wants("C")),
        {"B": "health_bad"},
        ends_on="C",
        steady=False,
    ),
    Scenario("there and back", (wants("B"), wants("A")), ends_on="A", steady=False),
    Scenario("back to previous", (wants("Z"),), ends_on="Z"),
    Scenario(
        "pinned, unpinned, pinned",
        (wants("B", pin=True), unpin, wants("B", pin=True)),
        steady=False,
    ),
    Scenario("assignment lost and back", (wants("B"), unassign, assign), steady=False),
    Scenario(
        "trial revoked with stop", (wants("B"), revoke("B", "stop")), ends_on="A", steady=False
    ),
    Scenario(
        "trial revoked with fallback",
        (wants("B"), revoke("B", "fallback")),
        ends_on="A",
        steady=False,
    ),
    Scenario("current revoked with fallback", (revoke("A", "fallback"),), ends_on="Z"),
    Scenario("current revoked with stop, then a new one", (revoke("A", "stop"), wants("B"))),
    Scenario("denied, then not", (wants("B"), deny("B"), deny()), steady=False),
    Scenario(
        "mended and allowed",
        (wants("B"), mend("B", 1)),
        {"B": "health_bad"},
        reasons={"B": ("OUT-D310",)},
    ),
    Scenario("a rollout", (rolls_out("B"),)),
    Scenario("a rollout, aborted", (rolls_out("B"), aborted), ends_on="A", steady=False),
    Scenario(
        "first install in a rollout whose candidate is bad",
        (both("A", "B"),),
        natures={"B": "health_bad"},
        current=None,
        previous=None,
        ends_on="A",
        reasons={"B": ("OUT-D310",)},
    ),
    Scenario("shadowed, then activated", (shadows("B"), lift_shadow)),
    Scenario("shadowed, then activated, at any time", (shadows("B"), lift_shadow), steady=False),
    Scenario("only shadowed", (shadows("B"),), ends_on="A"),
    Scenario("shadowed, then aborted", (shadows("B"), aborted), ends_on="A", steady=False),
    Scenario(
        "shadowed, then asked for again in the trial",
        (rolls_out("B"), shadows("B")),
        ends_on=None,
        steady=False,
    ),
    Scenario(
        "kills its runner while it shadows",
        (shadows("B"),),
        {"B": "crashing_beside"},
        ends_on="A",
        reasons={"B": ("OUT-D311", "OUT-D312")},
    ),
    Scenario(
        "hangs while it shadows",
        (shadows("B"),),
        {"B": "hanging_beside"},
        ends_on="A",
        reasons={"B": ("OUT-D311", "OUT-D312")},
    ),
    Scenario("no memory to shadow", (shadows("B"), lift_shadow), fits=2.2),
    Scenario(
        "shadowed while another model is updated",
        (shadows("B"), neighbour_wants("Q"), lift_shadow),
        neighbour="P",
        neighbour_ends_on="Q",
        steady=False,
    ),
    Scenario("stopped and started", (stop, go_on, wants("B"))),
    Scenario("current damaged", (damage_current,), ends_on="A"),
    Scenario("both journals lost", (lose_journals,), ends_on=None),
    Scenario("both journals lost in an update", (wants("B"), lose_journals), steady=False),
    Scenario(
        "kills its runner once committed",
        (wants("B"),),
        {"B": "tiring"},
        ends_on="A",
        reasons={"B": ("OUT-D311", "OUT-D312")},
    ),
    Scenario(
        "kills the machine, without a link",
        (everything(wants("B"), link_ends),),
        {"B": "poison"},
        ends_on="A",
        reasons={"B": ("OUT-D312",)},
    ),
    Scenario(
        "kills its runner, without a link",
        (everything(wants("B"), link_ends),),
        {"B": "crashing"},
        ends_on="A",
        reasons={"B": ("OUT-D311", "OUT-D312")},
    ),
    Scenario(
        "kills its runner once committed, without a link",
        (everything(wants("B"), link_ends),),
        {"B": "tiring"},
        ends_on="A",
        reasons={"B": ("OUT-D311", "OUT-D312")},
    ),
    Scenario(
        "a later agent can probe it",
        (wants("B"), upgrade(mends="B")),
        {"B": "probe_bad"},
        reasons={"B": ("OUT-D301",)},
    ),
    Scenario(
        "a later agent does not lift what health said",
        (wants("B"), upgrade()),
        {"B": "health_bad"},
        ends_on="A",
        reasons={"B": ("OUT-D310",)},
    ),
    Scenario(
        "two models at once",
        (everything(wants("B"), neighbour_wants("Q")),),
        neighbour="P",
        neighbour_ends_on="Q",
    ),
    Scenario(
        "two models, of which one is bad",
        (everything(wants("B"), neighbour_wants("Q")),),
        {"B": "crashing"},
        neighbour="P",
        neighbour_ends_on="Q",
        ends_on="A",
        reasons={"B": ("OUT-D311", "OUT-D312")},
    ),
    Scenario("memory for two runners, and no more", (wants("B"),), fits=2.2),
    Scenario("memory for one runner", (wants("B"),), fits=1.5),
    Scenario(
        "memory for one runner, and the new one is bad",
        (wants("B"),),
        {"B": "health_bad"},
        fits=1.5,
        ends_on="A",
        reasons={"B": ("OUT-D310",)},
    ),
    Scenario(
        "refuses once it kills its runner, then mended",
        (wants("R"), mend("R", 1)),
        {"R": "tiring"},
        ends_on="R",
        reasons={"R": ("OUT-D311", "OUT-D312")},
    ),
    Scenario("small disk", (wants("B"),), room=small_disk()),
    Scenario("small disk, two versions", (wants("B"), wants("C")), room=small_disk(), ends_on="C"),
    Scenario(
        "small disk, to and fro",
        (wants("B"), wants("Z"), wants("C")),
        room=small_disk(),
        ends_on="C",
        steady=False,
    ),
)


@dataclass(frozen=True)
class Plan:
    """One run: where it is cut, and when the events come (in steps after the one before)."""

    crashes: tuple[tuple[int, type[Killed]], ...] = ()
    """Operation, and what happens before it."""
    delays: tuple[int | None, ...] = ()
    full_at: int | None = None
    """Number of the first data write, from 1, that finds no room."""
    full_for: int = 1
    seed: int = 0


def play(scenario: Scenario, plan: Plan) -> Device:
    """Raises `Violation` with the whole trace."""
    device = Device(BUNDLES, scenario.natures, scenario.room)
    device.meter = FakeMeter(scenario.fits)
    device.install(scenario.current, scenario.previous, scenario.neighbour)
    device.rng = random.Random(plan.seed)
    if plan.full_at is not None:
        device.files.full = range(plan.full_at, plan.full_at + plan.full_for)
    device.crashes = dict(plan.crashes)
    try:
        for number, event in enumerate(scenario.events):
            delay = plan.delays[number] if number < len(plan.delays) else None
            if delay is None:
                device.settle()
            else:
                for _ in range(delay):
                    device.survive()
            event(device)
            device.trace.append(f"  EVENT {number + 1}")
        device.settle()
        judge(scenario, device)
    except Violation as error:
        raise Violation(f"{scenario.name}, {plan}: {error}\n" + "\n".join(device.trace)) from error
    return device


def judge(scenario: Scenario, device: Device) -> None:
    """What must be true once everything has come to rest."""
    journal = _judge_model(device, MODEL, scenario.ends_on)
    kept = set(journal.slots)
    if scenario.neighbour is not None:
        kept |= set(_judge_model(device, NEIGHBOUR, scenario.neighbour_ends_on).slots)
    said = {(device.by_digest[o.digest].name, o.reason) for o in device.outbox.outcomes}
    for name, reasons in scenario.reasons.items():
        if not any((name, reason) in said for reason in reasons):
            raise Violation(
                f"{name} was given up without a reported reason: {sorted(said, key=str)}"
            )
    if any(outcome not in device.outbox.outcomes for outcome in journal.outcomes):
        raise Violation("an outcome was not reported")
    names = {device.pin, device.candidate, device.stable, device.neighbour}
    wanted = {device.digest(name) for name in names} - {None}
    left = set(device.files.names(HOME / "bundles"))
    extra = left - kept - wanted - {f".{name}" for name in wanted}
    if extra and device.assigned:
        raise Violation(f"garbage left: {extra}")


def _judge_model(device: Device, model: str, ends_on: str | None) -> Journal:
    journal = device.peek_journal(model)
    serving = [device.by_digest[digest].name for digest in device.runners.serving(model)]
    if journal is None or not serving:
        raise Violation(f"{model} serves {serving}, journal {journal}")
    current = device.by_digest[journal.current].name if journal.current else None
    if ends_on is not None and (current, serving) != (ends_on, [ends_on]):
        raise Violation(f"{model} ends with {current}, serving {serving}, not {ends_on}")
    return journal


def operations(scenario: Scenario) -> int:
    return play(scenario, Plan()).operations


def writes(scenario: Scenario) -> int:
    return play(scenario, Plan()).files.writes


def single_faults(scenario: Scenario) -> Iterator[Plan]:
    """Every operation, killed once and cut several ways; every write without room, for a while."""
    for at in range(1, operations(scenario) + 1):
        yield Plan(((at, Killed),), seed=at)
        for seed in range(3):
            yield Plan(((at, PowerCut),), seed=1000 * seed + at)
    for at in range(1, writes(scenario) + 1):
        for full_for in (1, 6):
            yield Plan(full_at=at, full_for=full_for)


def random_plan(scenario: Scenario, rng: random.Random, length: int) -> Plan:
    """One or two crashes, events at any step, perhaps a full disk."""
    crashes = tuple(
        (rng.randrange(1, length + 20), PowerCut if rng.random() < 0.7 else Killed)
        for _ in range(rng.choice((1, 2, 2)))
    )
    delays = tuple(
        None if scenario.steady or rng.random() < 0.2 else rng.randrange(80)
        for _ in scenario.events
    )
    full_at = rng.randrange(1, 60) if rng.random() < 0.3 else None
    return Plan(crashes, delays, full_at, rng.choice((1, 4)), rng.randrange(2**32))


def main() -> int:
    """Returns the number of runs that ended badly, at most 1."""
    every = 0
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    started = time.monotonic()
    for scenario in SCENARIOS:
        if only in scenario.name:
            length = operations(scenario)
            plans = [*single_faults(scenario)]
            rng = random.Random(scenario.name)
            plans += [random_plan(scenario, rng, length) for _ in range(300)]
            bad = 0
            for plan in plans:
                try:
                    play(scenario, plan)
                except Violation as error:
                    bad += 1
                    if bad == 1:
                        print(error)
            every += bad
            seconds = time.monotonic() - started
            print(
                f"{scenario.name:45} {length:4} ops {len(plans):5} runs {bad:4} bad {seconds:.0f} s"
            )
    return min(every, 1)


if __name__ == "__main__":
    sys.exit(main())
