"""Previous runners kept warm, and swaps without memory for two: rows of the table, then devices.

Long because the table and the devices that follow it belong together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from edge_agent.act import Actor
from edge_agent.denials import MEMORY_SHORT
from edge_agent.desired import Decision, Hindrance, Hold, Nothing, Run
from edge_agent.disk import Disk
from edge_agent.journal import Journal, Note
from edge_agent.observe import MAKES_WAY_S
from edge_agent.observed import Observed, Serving, Standby, Trial
from edge_agent.reconcile import reconcile
from edge_agent.room import MIB, RUNNER_BYTES, Memory
from edge_agent.runner.views import Role, RunnerView
from edge_agent.steps import Activate, Commit, Drain, Park, Probe, Reject, Step, Unload, Wait
from edge_agent.watch.health import Terms, Verdict
from protocol.identifiers import digest_of
from protocol.members import Limits
from protocol.plan import Candidate
from tests.simulation.device import (
    AGENT,
    HOME,
    Device,
    FakeRunners,
    Killed,
    PowerCut,
    Violation,
    bundle,
)

NOW = 1_900_000_000_000
A, Z, B, C = (digest_of(name) for name in (b"A", b"Z", b"B", b"C"))
TERMS = Terms(1800, 86_400, 50, Limits())
ON_B = Run(Candidate(B, "rollout", "r"))
ON_A = Run(Candidate(A, "rollout", "r"))
HINDERED = replace(ON_B, hindrance=Hindrance("OUT-T121"))


def on_trial(**rest: object) -> Observed:
    """B serves on trial, A is committed; everything of both verified."""
    fields: dict[str, object] = {
        "journal": Journal("m", 1, A, Z).with_note(B, Note(loads=1)),
        "complete": frozenset({A, Z, B}),
        "verified": frozenset({A, Z, B}),
        "serving": (Serving("r2", B),),
        "trial": Trial(B, "r2", TERMS),
        "free_bytes": 10**9,
    }
    return Observed("m", **(fields | rest))  # type: ignore[arg-type]


def settled(**rest: object) -> Observed:
    """A serves and is committed; B is here."""
    fields: dict[str, object] = {
        "journal": Journal("m", 1, A, Z),
        "serving": (Serving("r1", A),),
        "trial": None,
    }
    return on_trial(**(fields | rest))


BOTH = (Serving("r1", A, covered=True), Serving("r2", B))
PARKED = (Standby("r1", A, parked=True),)
FAILED = Trial(B, "r2", TERMS, verdict=Verdict("errors"))
REJECTED = Journal("m", 1, A, Z).with_note(B, Note(reason="OUT-D310", definite=True))
LET_GO = {"serving": (), "making_way": B, "journal": Journal("m", 1, A, Z)}


@pytest.mark.parametrize(
    "desired, observed, step",
    [
        pytest.param(ON_B, on_trial(serving=BOTH), Drain("r1", 8), id="without room it drains"),
        pytest.param(
            ON_B, on_trial(serving=BOTH, keeps_warm=True), Park("r1", 8), id="with room it parks"
        ),
        pytest.param(
            ON_B,
            on_trial(serving=BOTH, keeps_warm=True, standby=(Standby("r0", A, parked=True),)),
            Drain("r1", 8),
            id="one is enough",
        ),
        pytest.param(
            ON_B,
            on_trial(
                serving=(Serving("r1", None, covered=True), Serving("r2", B)), keeps_warm=True
            ),
            Drain("r1", 8),
            id="only what the trial would go back to",
        ),
        pytest.param(
            ON_B,
            on_trial(standby=PARKED, keeps_warm=True),
            Wait(10),
            id="it stays through the trial",
        ),
        pytest.param(
            ON_B, on_trial(standby=PARKED), Drain("r1", 11), id="until memory becomes short"
        ),
        pytest.param(
            ON_B,
            on_trial(standby=(Standby("r1", A, fit=False, parked=True),), keeps_warm=True),
            Drain("r1", 11),
            id="or another model has moved on without it",
        ),
        pytest.param(
            ON_B,
            on_trial(standby=PARKED, keeps_warm=True, trial=FAILED),
            Reject(B, "OUT-D310", "errors", 7),
            id="a failed trial is journalled first",
        ),
        pytest.param(
            ON_B,
            on_trial(standby=PARKED, keeps_warm=True, trial=None, journal=REJECTED),
            Activate(A, 6),
            id="then the parked one serves again",
        ),
        pytest.param(
            ON_B,
            on_trial(
                serving=(Serving("r2", B, covered=True), Serving("r1", A)),
                trial=None,
                journal=REJECTED,
            ),
            Drain("r2", 6),
            id="and the failed one goes",
        ),
        pytest.param(
            ON_B,
            on_trial(standby=PARKED, keeps_warm=True, serving=(), trial=None),
            Activate(A, 5),
            id="it also serves when the candidate's runner dies",
        ),
        pytest.param(
            ON_B,
            on_trial(
                standby=PARKED, keeps_warm=True, trial=None, journal=Journal("m", 2, B, A)
            ),
            Drain("r1", 11),
            id="a commit lets it go, and its last counts are taken",
        ),
        pytest.param(
            Nothing(),
            on_trial(standby=PARKED, keeps_warm=True, serving=()),
            Drain("r1", 1),
            id="nothing wanted lets it go as well",
        ),
        # unload first
        pytest.param(ON_B, settled(room="roomy"), Probe(B, 17), id="roomy: beside"),
        pytest.param(ON_B, settled(room="tight"), Probe(B, 17), id="tight: beside, for a moment"),
        pytest.param(ON_B, settled(room="scarce"), Unload(B, 17), id="scarce: one after the other"),
        pytest.param(
            ON_B,
            settled(room="none", short_of_memory="needs much"),
            Reject(B, MEMORY_SHORT, "needs much", 17),
            id="none: not now",
        ),
        pytest.param(
            ON_B,
            settled(**LET_GO, leaving=True),
            Wait(17, detail="the runner before is still answering"),
            id="what was let go answers what it has",
        ),
        pytest.param(ON_B, settled(**LET_GO), Probe(B, 17), id="then the candidate is loaded"),
        pytest.param(
            ON_B,
            settled(**LET_GO | {"journal": Journal("m", 1, A, Z).with_note(B, Note(loads=3))}),
            Probe(B, 17),
            id="also the third time: its load was counted before",
        ),
        pytest.param(
            ON_B,
            settled(**LET_GO, standby=(Standby("r2", B),)),
            Activate(B, 14),
            id="and serves at once",
        ),
        pytest.param(
            ON_B,
            settled(**LET_GO | {"journal": REJECTED}),
            Activate(A, 5),
            id="a candidate that failed alone gives way to the base",
        ),
        pytest.param(
            HINDERED, settled(**LET_GO), Activate(A, 5), id="one that may not start now too"
        ),
        pytest.param(
            Hold(),
            settled(**LET_GO, leaving=True),
            Wait(5, detail="the runner before is still answering"),
            id="but only when there is room again",
        ),
        pytest.param(Hold(), settled(**LET_GO), Activate(A, 5), id="and then it does"),
        pytest.param(
            ON_A,
            settled(serving=(), making_way=A),
            Activate(A, 5),
            id="way that was made for the base itself",
        ),
        pytest.param(
            ON_B,
            settled(serving=(), waits_for_another=True),
            Wait(5, detail="another model is loaded first"),
            id="way that was made for another model, which brings this one along",
        ),
        pytest.param(
            ON_B,
            on_trial(trial=None, journal=REJECTED, room_for_base="scarce"),
            Unload(A, 6),
            id="a failed trial makes way for the base where two do not fit",
        ),
        pytest.param(
            ON_B,
            on_trial(trial=None, journal=REJECTED, room_for_base="none"),
            Unload(A, 6),
            id="and where it seems that not even one does",
        ),
        pytest.param(
            ON_B,
            on_trial(
                trial=None, journal=REJECTED, room_for_base="scarce", start_after_ms=NOW + 5
            ),
            Wait(22, NOW + 5, "OUT-D310"),
            id="but serves on while the base would not start",
        ),
        pytest.param(
            Hold(),
            on_trial(trial=None, revoked={B: "stop"}, room_for_base="scarce"),
            Unload(A, 2),
            id="what must stop makes way as well",
        ),
    ],
)  # fmt: skip
def test_row(desired, observed, step):
    found = reconcile(desired, observed, NOW)
    if isinstance(found, Wait):
        # When to look again is another table's business.
        found = replace(found, until_ms=step.until_ms)
    assert found == step


# --- whole devices --------------------------------------------------------------------------------

ONE = RUNNER_BYTES
"""What a runner takes here: the models are a few bytes."""
NAMES = "AZBC"


class SlowRunners(FakeRunners):
    """A runner that drains is gone only when somebody looks again."""

    def drain(self, runner: str) -> None:
        self.device.tick("drain")
        self.become(runner, "draining")

    def become(self, runner: str, role: Role) -> None:
        self._become(runner, role)

    def gone(self) -> None:
        self.processes = [view for view in self.processes if view.role != "draining"]


class SmallDevice(Device):
    """Runners take memory here, and there is no more of it than `memory_bytes`."""

    def __init__(
        self,
        memory_bytes: int,
        natures: Mapping[str, str] | None = None,
        crashes: Iterable[int] = (),
    ) -> None:
        super().__init__(tuple(bundle(name) for name in NAMES), natures or {})  # type: ignore[arg-type]
        self.memory_bytes = memory_bytes
        self.slow = SlowRunners(self)
        self.runners = self.slow
        self.may_unload = memory_bytes < 2 * ONE + 16 * MIB
        self.kept_free = 0
        self.most = 0
        """Most runners at any time."""

    # --- the meter ---

    def memory(self, runners: Iterable[int]) -> Memory:
        # As small as to keep the least margin.
        return Memory(self.memory_bytes - ONE * len(list(runners)), 256 * MIB)

    def held(self, pid: int) -> int:
        return ONE

    # --- running it ---

    def turn(self) -> tuple[Decision, Observed, Step]:
        if self.actor is None:
            self.disk = Disk(HOME, self.files)
            self.actor = Actor(
                self.disk,
                self.runners,
                self.fetch,
                self.outbox,
                agent=AGENT,
                dev=False,
                random=self.rng.random,
                meter=self,
                kept_free=lambda: self.kept_free,
            )
        result = super().turn()
        # A runner that drains needs a moment: the next look finds it, the one after does not.
        if not isinstance(result[2], Drain | Unload | Park):
            self.slow.gone()
        return result

    def check_service(self, operation: str) -> None:
        self.most = max(self.most, len(self.runners.processes))
        if ONE * len(self.runners.processes) > self.memory_bytes:
            raise Violation(f"out of memory before {operation!r}")
        if self.may_unload:
            self.served_before = self.served()
        super().check_service(operation)


def small(runners: float, natures: Mapping[str, str] | None = None) -> SmallDevice:
    """With memory for so many runners (and small models) besides the margin."""
    found = SmallDevice(round(runners * (ONE + MIB)) + 16 * MIB, natures)
    found.install("A", "Z")
    found.settle()
    found.trace.clear()
    return found


def until(found: SmallDevice, kind: type) -> Observed:
    for _ in range(300):
        _, observed, step = found.turn()
        if isinstance(step, kind):
            return observed
    raise AssertionError("\n".join(found.trace[-20:]))


def steps(found: SmallDevice) -> list[str]:
    return [line.split("(")[0] for line in found.trace if not line.startswith("Wait")]


def roles(found: SmallDevice) -> list[tuple[Role, str]]:
    views: list[RunnerView] = found.runners.processes
    return sorted((v.role, found.by_digest[load.digest].name) for v in views for load in v.loads)


def committed(found: SmallDevice) -> str:
    journal = found.peek_journal()
    assert journal is not None
    assert journal.current is not None
    return found.by_digest[journal.current].name


def test_with_room_the_previous_stays_warm_and_goes_with_the_commit():
    found = small(3)
    found.stable = "B"
    until(found, Park)
    assert roles(found) == [("parked", "A"), ("serving", "B")]
    until(found, Commit)
    assert roles(found) == [("parked", "A"), ("serving", "B")]
    found.settle()
    assert roles(found) == [("serving", "B")]


def test_a_failed_trial_goes_back_to_the_warm_runner_without_a_load():
    found = small(3)
    loads = dict(found.loads)
    found.stable = "B"
    until(found, Park)
    found.natures["B"] = "health_bad"
    found.settle()
    assert roles(found) == [("serving", "A")]
    assert found.loads == loads | {"B": 1}
    assert committed(found) == "A"


def test_a_candidate_whose_runner_dies_is_replaced_by_the_warm_one():
    found = small(3)
    found.stable = "B"
    until(found, Park)
    view = next(view for view in found.runners.processes if view.role == "serving")
    found.served_before = set()
    found.runners.crash(view.id, view.loads[0])
    loads = dict(found.loads)
    until(found, Activate)
    assert roles(found) == [("serving", "A")]
    assert found.loads == loads


def test_a_death_right_after_the_activation_is_one_of_a_bundle_that_served():
    """What lifts a denial depends on it, and deaths are noticed before anything was marked."""
    found = small(3)
    found.stable = "B"
    until(found, Activate)
    view = next(v for v in found.runners.processes if v.loads[0].digest == found.digest("B"))
    found.runners.crash(view.id, view.loads[0])
    found.turn()
    journal = found.peek_journal()
    assert journal is not None
    note = journal.note(view.loads[0].digest)
    assert (note.crashes, note.activated) == (1, True)


def test_the_death_of_a_parked_runner_is_nobodys_fault():
    found = small(3)
    found.stable = "B"
    until(found, Park)
    view = next(view for view in found.runners.processes if view.role == "parked")
    found.runners.crash(view.id, view.loads[0])
    found.settle()
    assert committed(found) == "B"
    journal = found.peek_journal()
    assert journal is not None
    assert journal.note(view.loads[0].digest).crashes == 0


def test_when_memory_becomes_short_the_parked_runner_goes_and_the_trial_goes_on():
    found = small(3)
    found.stable = "B"
    until(found, Park)
    found.memory_bytes = 2 * ONE + 15 * MIB
    until(found, Drain)
    found.settle()
    assert committed(found) == "B"


def test_a_supervisor_that_was_killed_goes_on_without_the_warm_runner():
    found = small(3)
    found.stable = "B"
    until(found, Park)
    found.natures["B"] = "health_bad"
    found.after(Killed())
    assert roles(found) == [("serving", "B")]
    found.settle()
    assert (roles(found), committed(found)) == ([("serving", "A")], "A")


def test_with_memory_for_two_the_previous_goes_when_the_candidate_serves():
    found = small(2)
    found.stable = "B"
    found.settle()
    assert (found.most, committed(found)) == (2, "B")
    assert "Park" not in steps(found)


@pytest.mark.parametrize(
    "nature, ends_on",
    [
        ("good", "B"),
        ("probe_bad", "A"),
        ("load_bad", "A"),
        ("slow", "A"),
        ("health_bad", "A"),
        ("crashing", "A"),
    ],
)
def test_with_memory_for_one_they_follow_each_other(nature, ends_on):
    found = small(1, {"B": nature})
    found.stable = "B"
    found.settle()
    assert (found.most, committed(found)) == (1, ends_on)
    assert roles(found) == [("serving", ends_on)]
    assert "Unload" in steps(found)


def test_the_load_is_journalled_before_anything_is_let_go():
    found = small(1)
    found.stable = "B"
    seen: list[int] = []
    right = found.slow.drain

    def drain(runner: str) -> None:
        journal = found.peek_journal()
        assert journal is not None
        seen.append(journal.note(found.by_name["B"].digest).loads)
        right(runner)

    found.slow.drain = drain  # type: ignore[method-assign]  # looks over the fake's shoulder
    until(found, Unload)
    assert seen == [1]


def test_without_memory_for_one_it_is_put_off_and_the_base_serves():
    found = small(1)
    found.memory_bytes = ONE + MIB
    found.stable = "B"
    observed = until(found, Reject)
    assert observed.room == "none"
    journal = found.peek_journal()
    assert journal is not None
    note = journal.note(found.by_name["B"].digest)
    assert (note.reason, note.definite) == (MEMORY_SHORT, False)
    assert note.until_ms is not None
    assert roles(found) == [("serving", "A")]
    found.memory_bytes = 3 * ONE
    found.settle()
    assert committed(found) == "B"


def test_room_that_the_outbox_will_need_is_no_room_for_a_bundle():
    found = small(3)
    found.kept_free = 10**9
    found.stable = "B"
    assert until(found, Reject).free_bytes == 0
    journal = found.peek_journal()
    assert journal is not None
    assert journal.note(found.by_name["B"].digest).reason == "OUT-D201"
    found.kept_free = 0
    found.settle()
    assert committed(found) == "B"


def test_what_was_let_go_comes_back_if_nothing_follows():
    found = small(1)
    found.stable = "B"
    until(found, Unload)
    # Whatever keeps the draining runner there.
    found.slow.gone = lambda: None  # type: ignore[method-assign]
    found.memory_bytes += ONE
    began = found.now_s
    until(found, Activate)
    assert found.now_s - began > MAKES_WAY_S
    assert found.runners.serving() == [found.by_name["A"].digest]


SEED = 20_261_121
SECONDS = 0.4
"""Per case; `python -m tests.edge_agent.test_swaps` tries every operation of every case."""

NATURES = ("good", "probe_bad", "health_bad", "crashing", "poison")
MEMORIES = (1, 2, 3)


@pytest.mark.parametrize("nature", NATURES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_it_ends_well_wherever_it_is_cut(memory, nature):
    """Kills and power cuts before the operations of a swap, with memory for one, two and three."""
    places = [(at, crash) for at in operations(memory, nature) for crash in (Killed, PowerCut)]
    random.Random(SEED).shuffle(places)
    until_s = time.monotonic() + SECONDS
    for tried, place in enumerate(places):
        if tried >= 2 and time.monotonic() > until_s:
            break
        cut(memory, nature, *place)


def operations(memory: int, nature: str) -> range:
    """Of everything between the wish for B and its end."""
    found = small(memory, {"B": nature})
    found.stable = "B"
    before = found.operations
    found.settle()
    return range(before + 1, found.operations + 1)


def cut(memory: int, nature: str, at: int, crash: type[Killed]) -> None:
    found = small(memory, {"B": nature})
    found.stable = "B"
    found.crashes[at] = crash
    ends_on = "B" if nature == "good" else "A"
    try:
        found.settle()
        if (committed(found), roles(found)) != (ends_on, [("serving", ends_on)]):
            raise Violation(f"ends on {committed(found)} with {roles(found)}")
    except Violation as violation:
        trace = "\n".join(found.trace[-30:])
        raise AssertionError(f"{crash.__name__} before {at}: {violation}\n{trace}") from violation


def main() -> None:
    for memory in MEMORIES:
        for nature in NATURES:
            places = operations(memory, nature)
            for at in places:
                cut(memory, nature, at, Killed)
                cut(memory, nature, at, PowerCut)
            print(f"memory for {memory}, {nature}: {2 * len(places)} cuts", flush=True)


if __name__ == "__main__":
    main()
