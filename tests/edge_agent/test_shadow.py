"""A candidate that runs beside what serves: rows of the table, then devices.

Long because the table and the devices that follow it belong together.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.desired import Hindrance, Run
from edge_agent.journal import Journal, Note
from edge_agent.observed import Observed, Serving, Standby
from edge_agent.reconcile import reconcile
from edge_agent.reporter import Reporter
from edge_agent.shadow import ENOUGH_S, MOVE_S, Asked, Beside, news
from edge_agent.state import model_state
from edge_agent.steps import (
    Activate,
    Collect,
    Commit,
    Fetch,
    Kill,
    Mark,
    Probe,
    Reject,
    Step,
    Wait,
)
from protocol.identifiers import digest_of
from protocol.members import Policy
from protocol.plan import Candidate, HealthOverride
from protocol.reported import ModelState, ReportedState, Shadow
from protocol.telemetry import PRIVATE_BELOW
from tests.simulation.device import (
    NEIGHBOUR,
    SHADOWED,
    Device,
    FakeMeter,
    Killed,
    PowerCut,
    bundle,
)

NOW = 1_900_000_000_000
A, Z, B, C = (digest_of(name) for name in (b"A", b"Z", b"B", b"C"))
SHADOW_B = Run(Candidate(B, "rollout", "r"), shadow=True)
LIFTED = replace(SHADOW_B, shadow=False)
BESIDE = (Standby("r9", B),)
SO_FAR = Shadow(B, rows=120, agreed=118, of=200)


def device(**rest: object) -> Observed:
    """A serves and is committed; B is here, and there is memory for both."""
    fields: dict[str, object] = {
        "journal": Journal("m", 1, A, Z).with_note(B, Note(loads=1)),
        "complete": frozenset({A, Z, B}),
        "verified": frozenset({A, Z, B}),
        "serving": (Serving("r1", A),),
        "free_bytes": 10**9,
        "room": "roomy",
        "keeps_warm": True,
    }
    return Observed("m", **(fields | rest))  # type: ignore[arg-type]  # fields of Observed


def away(reason: str) -> Wait:
    return Wait(22, None, "OUT-D344", reason)


@pytest.mark.parametrize(
    "desired, observed, step",
    [
        pytest.param(SHADOW_B, device(), Probe(B, 17), id="loaded beside what serves"),
        pytest.param(
            SHADOW_B,
            device(standby=BESIDE, shadow=SO_FAR),
            away("shadowed 120 of 200 rows"),
            id="and not activated",
        ),
        pytest.param(
            LIFTED, device(standby=BESIDE), Activate(B, 14), id="activated once that is lifted"
        ),
        pytest.param(
            SHADOW_B,
            device(room="tight", short_of_memory="needs 50 MB of memory, 20 MB can be had"),
            away("no memory for both: needs 50 MB of memory, 20 MB can be had"),
            id="not where only one more would fit for a moment",
        ),
        pytest.param(
            SHADOW_B, device(room="scarce"), away("no memory for both"), id="nothing is let go"
        ),
        pytest.param(
            SHADOW_B, device(room="none"), away("no memory for both"), id="nor is it given up"
        ),
        pytest.param(
            SHADOW_B,
            device(standby=BESIDE, keeps_warm=False),
            Kill("r9", 11),
            id="it goes when memory becomes short",
        ),
        pytest.param(
            SHADOW_B,
            device(serving=(Serving("r1", A, answering="rules"),), journal=Journal("m", 1, A, Z)
                   .with_note(A, Note(answering="rules", reason="OUT-D318", until_ms=NOW + 1))),
            away("no model answers here that it could be compared with"),
            id="not beside rules",
        ),
        pytest.param(
            SHADOW_B,
            device(journal=Journal("m"), serving=(), complete=frozenset({B}),
                   verified=frozenset({B})),
            away("no model answers here that it could be compared with"),
            id="nor beside nothing",
        ),
        pytest.param(
            SHADOW_B,
            device(complete=frozenset({A, Z}), verified=frozenset({A, Z}),
                   journal=Journal("m", 1, A, Z)),
            Fetch(B, 21),
            id="first it is fetched",
        ),
        pytest.param(
            replace(SHADOW_B, hindrance=Hindrance("OUT-T121")),
            device(standby=BESIDE),
            Kill("r9", 11),
            id="expired trust loads nothing new, for nobody either",
        ),
        pytest.param(
            SHADOW_B,
            device(standby=BESIDE, garbage=(C,)),
            Collect(C, 19),
            id="garbage is collected meanwhile",
        ),
        pytest.param(
            SHADOW_B,
            device(standby=BESIDE, shadow_settled=True,
                   journal=Journal("m", 1, A, Z).with_note(B, Note(loads=2))),
            Mark(B, 12),
            id="what has run beside for a while counts as loaded once",
        ),
        pytest.param(
            SHADOW_B,
            device(standby=BESIDE, shadow=SO_FAR, shadow_settled=True),
            away("shadowed 120 of 200 rows"),
            id="which is written down once",
        ),
        pytest.param(
            SHADOW_B,
            device(journal=Journal("m", 1, A, Z).with_note(B, Note(loads=1, crashes=3))),
            Reject(B, "OUT-D311", "", 7),
            id="as many deaths as a trial may have end it",
        ),
        pytest.param(
            SHADOW_B,
            device(journal=Journal("m", 1, A, Z).with_note(B, Note(loads=3))),
            Reject(B, "OUT-D312", "entered a process 3 times without running well", 15),
            id="and as many loads",
        ),
        pytest.param(
            SHADOW_B,
            device(serving=(), making_way=B),
            Activate(A, 5),
            id="what was let go for its trial comes back",
        ),
    ],
)  # fmt: skip
def test_the_first_row_that_matches_decides(desired: Run, observed: Observed, step: Step):
    assert reconcile(desired, observed, NOW) == step


# --- devices --------------------------------------------------------------------------------------

POLICY = Policy(health_window_s=10, min_requests=100, max_duration_s=100)


def shadowing(
    natures: dict[str, str] | None = None, fits: float = 3, neighbour: str | None = None
) -> Device:
    """Settled on A; a rollout wants B beside it."""
    made = [bundle(name, policy=POLICY) for name in "AZBC"]
    made += [bundle(name, NEIGHBOUR) for name in "PQ"]
    found = Device(tuple(made), natures or {})  # type: ignore[arg-type]  # names of natures
    found.meter = FakeMeter(fits)
    found.install("A", "Z", neighbour)
    found.settle()
    found.candidate, found.shadow = "B", True
    return found


def idle(found: Device, seconds: float) -> ModelState:
    """So long nothing but what the agent does by itself; then the state of the first model."""
    until_s = found.now_s + seconds
    while True:
        decision, observed, step = found.turn()
        if found.now_s >= until_s and observed.model == "m":
            return model_state(decision, observed, step, plan=None, fetch=found.fetch, serving=None)


def until(found: Device, kind: type[Step], turns: int = 300) -> Step:
    for _ in range(turns):
        step = found.turn()[2]
        if isinstance(step, kind):
            return step
    raise AssertionError("\n".join(found.trace[-20:]))


def journal(found: Device) -> Journal:
    stored = found.peek_journal()
    assert stored is not None
    return stored


def serving(found: Device) -> list[str]:
    return [found.by_digest[digest].name for digest in found.runners.serving()]


def steps(found: Device, kind: type[Step]) -> int:
    return sum(line.startswith(f"{kind.__name__}(") for line in found.trace)


def test_a_candidate_runs_beside_what_serves_and_its_counts_are_reported():
    found = shadowing()
    state = idle(found, 30)
    assert serving(found) == ["A"]
    assert (state.phase, state.waiting) == ("standby", "OUT-D344")
    shadow = state.shadow
    assert shadow is not None
    assert shadow.digest == found.digest("B")
    assert (shadow.of, shadow.rows - shadow.agreed) == (100, 1)
    assert shadow.rows >= 100
    assert sum(shadow.confidence) == sum(shadow.base_confidence) == shadow.rows
    assert state.waiting_detail.startswith(f"shadowed {shadow.rows - SHADOWED:,} of 100 rows") or (
        state.waiting_detail == f"shadowed {shadow.rows:,} of 100 rows"
    )


def test_the_plan_may_say_how_many_rows():
    found = shadowing()
    found.shadow_rows = 7_000
    state = idle(found, 20)
    assert state.shadow is not None
    assert state.shadow.of == 7_000


def test_nothing_of_it_is_durable():
    found = shadowing()
    until(found, Probe)
    idle(found, 3)
    before, seq = found.files.version, journal(found).seq
    idle(found, 60)
    assert (found.files.version, journal(found).seq) == (before, seq)


def test_what_serves_keeps_copies_only_while_a_candidate_wants_them():
    found = shadowing()
    idle(found, 20)
    assert found.runners.sampling == {"r-1"}
    found.candidate = None
    idle(found, 5)
    assert found.runners.sampling == set()


def test_once_lifted_it_is_activated_without_another_load_and_tried_as_always():
    found = shadowing()
    idle(found, 30)
    loads = dict(found.loads)
    found.shadow = False
    until(found, Activate)
    assert found.loads == loads
    until(found, Commit)
    idle(found, 3)
    assert serving(found) == ["B"]
    assert found.runners.sampling == set()


def test_its_counts_are_told_until_it_is_committed():
    found = shadowing()
    idle(found, 30)
    found.shadow = False
    until(found, Activate)
    on_trial = idle(found, 2)
    assert on_trial.phase == "probation"
    assert on_trial.shadow is not None
    assert on_trial.shadow.rows >= 100
    until(found, Commit)
    assert idle(found, 2).shadow is None


@pytest.mark.parametrize("nature", ["crashing_beside", "hanging_beside"])
def test_one_that_takes_its_runner_down_is_denied_and_never_touches_what_serves(nature):
    found = shadowing({"B": nature})
    until(found, Reject)
    note = journal(found).note(found.by_name["B"].digest)
    assert (note.reason, note.definite, note.activated) == ("OUT-D311", True, False)
    assert found.loads["B"] == 3
    idle(found, 5)
    assert serving(found) == ["A"]
    assert found.loads["A"] == 1
    assert found.runners.sampling == set()


def test_a_runner_that_the_system_took_is_nobodys_fault():
    found = shadowing()
    idle(found, 20)
    view = next(view for view in found.runners.processes if view.role == "standby")
    found.runners.crash(view.id, view.loads[0])
    idle(found, 5)
    assert journal(found).note(found.by_name["B"].digest).crashes == 0
    assert found.loads["B"] == 2


def test_counts_go_on_in_the_next_runner():
    found = shadowing()
    before = idle(found, 20).shadow
    view = next(view for view in found.runners.processes if view.role == "standby")
    found.runners.crash(view.id, None)
    after = idle(found, 20).shadow
    assert before is not None
    assert after is not None
    assert after.rows > before.rows


def test_a_supervisor_that_was_killed_counts_anew():
    found = shadowing()
    before = idle(found, 60).shadow
    found.after(Killed())
    after = idle(found, 2).shadow
    assert before is not None
    assert after is not None
    assert after.rows < before.rows
    assert serving(found) == ["A"]


def test_another_attempt_counts_anew():
    found = shadowing()
    idle(found, 40)
    found.attempt = 2
    state = idle(found, 1).shadow
    assert state is not None
    assert state.rows <= 2 * SHADOWED


def test_a_machine_that_is_switched_off_every_evening_gets_there():
    """Each start is a load, and three in a row without running well end a candidate."""
    found = shadowing()
    found.shadow_rows = 10**6
    for _ in range(6):
        idle(found, 20)
        found.after(PowerCut())
        found.served_before = set()
    idle(found, 20)
    assert journal(found).note(found.by_name["B"].digest).reason is None
    assert any(view.role == "standby" for view in found.runners.processes)


def test_without_memory_for_both_it_says_so_and_serves():
    found = shadowing(fits=2.2)
    state = idle(found, 30)
    assert serving(found) == ["A"]
    assert found.loads.get("B") is None
    assert (state.phase, state.waiting) == ("staged", "OUT-D344")
    assert state.waiting_detail.startswith("no memory for both: needs ")
    assert state.shadow == Shadow(found.by_name["B"].digest, of=100)


def test_without_memory_for_both_the_trial_begins_once_it_is_lifted():
    found = shadowing(fits=2.2)
    idle(found, 30)
    found.shadow = False
    until(found, Commit)


def test_another_models_update_goes_first():
    found = shadowing(neighbour="P")
    idle(found, 40)
    assert any(view.role == "standby" for view in found.runners.processes)
    found.neighbour = "Q"
    until(found, Commit, 600)
    assert found.runners.serving(NEIGHBOUR) == [found.by_name["Q"].digest]
    assert serving(found) == ["A"]
    state = idle(found, 60)
    assert state.phase == "standby"
    assert state.shadow is not None
    assert state.shadow.rows > 100


def test_a_device_without_a_model_begins_with_what_is_stable():
    made = tuple(bundle(name, policy=POLICY) for name in "AB")
    found = Device(made, {})
    found.meter = FakeMeter(3)
    found.install(None, None)
    found.stable, found.candidate, found.shadow = "A", "B", True
    until(found, Commit)
    assert serving(found) == ["A"]
    state = idle(found, 30)
    assert (state.target, state.phase) == (found.digest("B"), "standby")


def test_a_trial_that_runs_is_not_stopped_by_a_plan_that_wants_a_shadow():
    found = shadowing()
    found.shadow = False
    until(found, Activate)
    found.shadow = True
    until(found, Commit)
    assert steps(found, Kill) == 0


def test_what_serves_is_compared_with_what_serves_now():
    """After a return the counts were of another comparison."""
    found = shadowing()
    idle(found, 40)
    found.denied = frozenset({found.by_name["A"].digest})
    idle(found, 5)
    assert serving(found) == ["Z"]
    state = idle(found, 1)
    assert state.shadow is not None
    assert state.shadow.rows < 40 * SHADOWED


# --- what leaves the device -----------------------------------------------------------------------


def beside(rows: int) -> Beside:
    kept = Beside(Asked(B, A, "r", 1), 200)
    kept.held_by("r-1", 0.0)
    kept.moved(Shadow(B, rows, rows, (rows,), (rows,), (rows,)), 0.0)
    return kept


def test_histograms_of_few_rows_stay_on_the_device():
    few, enough = beside(PRIVATE_BELOW - 1).told, beside(PRIVATE_BELOW).told
    assert (few.latency, few.confidence, few.base_confidence) == ((), (), ())
    assert few.rows == PRIVATE_BELOW - 1
    assert enough.confidence == (PRIVATE_BELOW,)


def test_once_there_are_enough_rows_it_goes_on_at_a_tenth_of_the_pace():
    assert beside(199).next_s == MOVE_S
    assert beside(200).next_s == ENOUGH_S == 10 * MOVE_S


def test_only_each_further_tenth_of_the_rows_is_news():
    steps = [news(replace(SO_FAR, rows=rows)).rows for rows in (0, 19, 20, 199, 200, 399, 400, 900)]
    assert steps == [0, 0, 1, 9, 10, 11, 12, 13]


def test_a_report_is_not_made_for_every_row():
    class Outbox:
        put = 0

        def put_state(self, state: ReportedState, now_ms: int) -> int:
            self.put += 1
            return 1

    outbox = Outbox()
    reporter = Reporter(outbox, 3600)
    for rows in range(201):
        shadow = replace(SO_FAR, rows=rows, agreed=rows)
        model = ModelState(waiting="OUT-D344", waiting_detail=f"shadowed {rows}", shadow=shadow)
        reporter.report(ReportedState(0, "0.1", models={"m": model}), 0, 0)
    assert outbox.put == 11


# --- what the plan may make stricter --------------------------------------------------------------


def test_a_plan_makes_a_trial_longer():
    found = shadowing()
    found.shadow, found.health = False, HealthOverride(health_window_s=40)
    until(found, Activate)
    began = found.now_s
    until(found, Commit)
    assert found.now_s - began >= 40


def test_a_plan_wants_more_requests():
    found = shadowing()
    found.shadow, found.health = False, HealthOverride(min_requests=101)
    step = until(found, Commit)
    assert step == Commit(found.by_name["B"].digest, unexercised=True, row=9)


def test_a_plan_allows_fewer_deaths():
    found = shadowing({"B": "crashing"})
    found.shadow, found.health = False, HealthOverride(crashes=1)
    until(found, Reject)
    assert found.loads["B"] == 1


def test_a_plan_allows_fewer_errors():
    found = shadowing()
    found.shadow, found.health = False, HealthOverride(error_share=0.001)
    _, observed, _ = found.turn()
    while observed.trial is None:
        _, observed, _ = found.turn()
    assert observed.trial.terms.limits.error_share == 0.001
