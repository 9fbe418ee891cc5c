"""The decision table, row by row, and the matrix of what is wanted by how far the device is.

Long because it is one table.
"""

from dataclasses import replace
from typing import Any

import pytest

from edge_agent.desired import Desired, Hindrance, Hold, Nothing, Run
from edge_agent.journal import MARKS, Journal, Note
from edge_agent.observed import Observed, Return, Serving, Standby, Trial
from edge_agent.reconcile import against, base, reconcile
from edge_agent.watch.health import Terms, Verdict
from protocol.identifiers import digest_of
from protocol.members import Limits
from protocol.plan import Candidate
from protocol.reported import Outcome

NOW = 1_900_000_000_000
A, Z, B, C = (digest_of(name) for name in (b"A", b"Z", b"B", b"C"))
NAMES = {A: "A", Z: "Z", B: "B", C: "C", f".{B}": ".B", f".{C}": ".C", None: "-"}
TERMS = Terms(1800, 86_400, 50, Limits())


def run(
    bundle: str, hindrance: Hindrance | None = None, *, attempt: int = 0, allow: int = 0
) -> Run:
    return Run(Candidate(bundle, "rollout", "r", attempt), allow, hindrance)


def device(**rest: object) -> Observed:
    """Settled on A, with Z before it; everything of both verified."""
    fields: dict[str, object] = {
        "journal": Journal("m", 1, A, Z),
        "complete": frozenset({A, Z}),
        "verified": frozenset({A, Z}),
        "serving": (Serving("r1", A),),
        "free_bytes": 10**9,
        "agent": "1.0",
    }
    have = rest.pop("also", ())
    fields["complete"] = fields["verified"] = frozenset({A, Z, *have})  # type: ignore[misc]
    return Observed("m", **(fields | rest))  # type: ignore[arg-type]


def noted(bundle: str, note: Note, journal: Journal | None = None) -> Journal:
    return (journal or Journal("m", 1, A, Z)).with_note(bundle, note)


def trying(**rest: object) -> Journal:
    return noted(B, Note(**{"loads": 1} | rest))  # type: ignore[arg-type]


def on_trial(
    note: Note | None = None,
    *,
    running_s: float = 0,
    requests: int = 0,
    failed: str | None = None,
    **rest: object,
) -> Observed:
    """B serves and is not committed; nothing else serves."""
    fields = {
        "also": (B,),
        "journal": noted(B, note or Note(loads=1)),
        "serving": (Serving("r2", B),),
        "trial": Trial(B, "r2", TERMS, running_s, requests, Verdict(failed)),
    }
    return device(**(fields | rest))


def said(desired: Desired, observed: Observed) -> str:
    """A step in a few words: row, kind, and what it is about."""
    step = reconcile(desired, observed, NOW)
    about = []
    for name in ("digest", "name", "runner", "reason", "unexercised"):
        value = getattr(step, name, None)
        if value is not None and value is not False:
            about.append(NAMES.get(value, str(value)))
    return " ".join((str(step.row), type(step).__name__, *about))


OUTCOME = Outcome(4, "m", B, "rejected", "OUT-D301")
DENIED = Note(reason="OUT-D310", definite=True, attempt=1, agent="1.0")
AWAY = Note(reason="OUT-D312", until_ms=NOW + 5, fails=1)
WINDOW_FULL = Note(loads=1, marks=MARKS)
EXPIRED = Hindrance("OUT-T121")


@pytest.mark.parametrize(
    "desired, observed, step",
    [
        pytest.param(run(B), device(synced=False), "0 Sync", id="first of all it syncs"),
        pytest.param(run(B), device(unnoted=(A,)), "0 Remember", id="a revocation is noted first"),
        pytest.param(Nothing(), device(), "1 Stop", id="nothing wanted stops what serves"),
        pytest.param(
            Nothing(),
            device(serving=(), standby=(Standby("r9", B),)),
            "1 Kill r9",
            id="nothing wanted ends a standby",
        ),
        pytest.param(
            Nothing(), device(serving=(), unreported=(OUTCOME,)), "1 Report", id="then it reports"
        ),
        pytest.param(Nothing(), device(serving=()), "1 Wait OUT-D350", id="and waits"),
        pytest.param(
            Hold(),
            on_trial(revoked={B: "stop"}),
            "2 Activate A",
            id="a trial that must stop gives way to the base",
        ),
        pytest.param(
            Hold(),
            on_trial(
                revoked={B: "stop"}, serving=(Serving("r2", B, covered=True), Serving("r3", A))
            ),
            "2 Drain r2",
            id="and is drained once the base serves",
        ),
        pytest.param(
            Hold(),
            device(journal=Journal("m", 1, A), revoked={A: "stop"}),
            "2 Stop",
            id="without a base a stop leaves nothing",
        ),
        pytest.param(
            Hold(),
            device(journal=Journal("m", 1, A), denied=frozenset({A}), refusing=frozenset({A})),
            "2 Stop",
            id="a policy may refuse to run what is denied",
        ),
        pytest.param(
            Hold(),
            device(journal=Journal("m", 1, A), denied=frozenset({A})),
            "22 Wait",
            id="otherwise a denied model without another keeps serving",
        ),
        pytest.param(
            run(B),
            device(verified=frozenset({Z})),
            "3 Rollback A OUT-D316",
            id="a damaged current gives way to previous",
        ),
        pytest.param(
            run(B), device(revoked={A: "fallback"}), "3 Rollback A OUT-D315", id="a revoked one too"
        ),
        pytest.param(
            run(B), device(denied=frozenset({A})), "3 Rollback A OUT-D315", id="a denied one too"
        ),
        pytest.param(
            run(A),
            device(journal=noted(A, Note(crashes=3)), serving=()),
            "3 Rollback A OUT-D311",
            id="a crash-looping one too",
        ),
        pytest.param(
            run(A),
            device(journal=noted(A, Note(loads=3)), serving=()),
            "3 Rollback A OUT-D312",
            id="and one that never runs well",
        ),
        pytest.param(
            run(A),
            device(journal=noted(A, Note(loads=3))),
            "22 Wait",
            id="but not while it serves",
        ),
        pytest.param(
            Hold(),
            device(journal=Journal("m"), lost=True, approved=frozenset({A, Z}), serving=()),
            f"4 Rescue {NAMES[min(A, Z)]}",
            id="a lost journal begins again with what is there",
        ),
        pytest.param(
            run(min(A, Z)),
            device(journal=Journal("m"), lost=True, approved=frozenset({A, Z}), serving=()),
            f"4 Rescue {NAMES[max(A, Z)]}",
            id="preferring what is not headed for",
        ),
        pytest.param(
            Hold(),
            device(
                journal=Journal("m"),
                lost=True,
                approved=frozenset({A, Z}),
                serving=(Serving("r1", max(A, Z)),),
            ),
            f"4 Rescue {NAMES[max(A, Z)]}",
            id="and what serves",
        ),
        pytest.param(run(B), device(serving=()), "5 Activate A", id="something must serve"),
        pytest.param(
            run(B),
            device(serving=(), verified=frozenset({Z}), journal=Journal("m", 1, A, Z)),
            "3 Rollback A OUT-D316",
            id="and be journalled first",
        ),
        pytest.param(
            run(A),
            device(serving=(), start_after_ms=NOW + 1),
            "22 Wait OUT-D350",
            id="a base that would not start is not hammered",
        ),
        pytest.param(
            run(A), on_trial(), "6 Reject B OUT-D314", id="a trial no longer wanted is superseded"
        ),
        pytest.param(
            run(A),
            on_trial(denied=frozenset({B})),
            "6 Reject B OUT-D315",
            id="or revoked, and said so",
        ),
        pytest.param(run(A), on_trial(AWAY), "6 Activate A", id="then the base comes back"),
        pytest.param(
            run(A),
            on_trial(AWAY, serving=(Serving("r2", B, covered=True), Serving("r3", A))),
            "6 Drain r2",
            id="then the old trial goes",
        ),
        pytest.param(
            Hold(),
            on_trial(AWAY, journal=noted(B, AWAY, Journal("m")), complete=frozenset({B})),
            "22 Wait",
            id="without a base what serves goes on",
        ),
        pytest.param(
            run(B), on_trial(Note(loads=1, crashes=3)), "7 Reject B OUT-D311", id="crashes end it"
        ),
        pytest.param(
            run(B),
            device(journal=trying(crashes=3)),
            "7 Reject B OUT-D311",
            id="also when the base is back",
        ),
        pytest.param(
            run(B), on_trial(failed="errors"), "7 Reject B OUT-D310", id="bad health ends it"
        ),
        pytest.param(
            run(B),
            on_trial(serving=(Serving("r1", A, covered=True), Serving("r2", B, covered=True))),
            "8 Drain r1",
            id="the old runner goes after promotion",
        ),
        pytest.param(
            run(A),
            device(serving=(Serving("r1", A), Serving("r2", A, covered=True, twin=True))),
            "8 Drain r2",
            id="one of two twins goes",
        ),
        pytest.param(
            run(B), on_trial(WINDOW_FULL, requests=50), "9 Commit B", id="a full window commits"
        ),
        pytest.param(
            run(B), on_trial(WINDOW_FULL, requests=49), "10 Wait", id="not before enough requests"
        ),
        pytest.param(
            run(B),
            on_trial(Note(loads=1, marks=480)),
            "9 Commit B True",
            id="the longest trial commits unexercised",
        ),
        pytest.param(run(B), on_trial(running_s=180), "10 Mark B", id="a tenth is marked"),
        pytest.param(run(B), on_trial(running_s=179), "10 Wait", id="until then it waits"),
        pytest.param(
            run(B), on_trial(unreported=(OUTCOME,)), "13 Report", id="a trial holds no report back"
        ),
        pytest.param(
            run(A), device(standby=(Standby("r9", B),)), "11 Kill r9", id="an unwanted standby goes"
        ),
        pytest.param(
            run(B),
            device(also=(B,), standby=(Standby("r9", B, fit=False),)),
            "11 Kill r9",
            id="and one that would bring back what others left",
        ),
        pytest.param(
            run(B, EXPIRED),
            device(also=(B,), standby=(Standby("r9", B),)),
            "11 Kill r9",
            id="and one that may no longer start",
        ),
        pytest.param(
            run(A),
            device(journal=noted(A, Note(loads=1)), base_settled=True),
            "12 Mark A",
            id="a base that runs well is forgiven",
        ),
        pytest.param(
            run(A), device(unreported=(OUTCOME,)), "13 Report", id="an outcome is reported"
        ),
        pytest.param(
            run(B),
            device(also=(B,), standby=(Standby("r9", B),)),
            "14 Activate B",
            id="a wanted standby serves",
        ),
        pytest.param(
            run(B),
            device(also=(B,), journal=trying(loads=3)),
            "15 Reject B OUT-D312",
            id="three loads without a mark are enough",
        ),
        pytest.param(
            run(B),
            device(complete=frozenset({A, Z, B}), verified=frozenset({A, Z})),
            "16 Collect B",
            id="wrong bytes are deleted",
        ),
        pytest.param(run(B), device(also=(B,)), "17 Probe B", id="a verified bundle is probed"),
        pytest.param(
            run(B),
            device(also=(B,), absent_return=Return(C, ready=False)),
            "17 Fetch C",
            id="what it would go back to is fetched before",
        ),
        pytest.param(
            run(B),
            device(also=(B,), absent_return=Return(C, ready=True)),
            "17 Stage C",
            id="and gets its name before",
        ),
        pytest.param(
            run(B), device(also=(B,), lease=False), "22 Wait", id="one model changes at a time"
        ),
        pytest.param(
            run(B),
            device(also=(B,), journal=noted(A, Note(loads=1))),
            "22 Wait",
            id="the base settles first",
        ),
        pytest.param(
            run(B, EXPIRED),
            device(also=(B,)),
            "22 Wait OUT-T121",
            id="expired trust starts nothing",
        ),
        pytest.param(
            run(B, EXPIRED), device(ready=frozenset({B})), "18 Stage B", id="but it stages"
        ),
        pytest.param(run(B, EXPIRED), device(), "21 Fetch B", id="and fetches"),
        pytest.param(
            run(B), device(ready=frozenset({B})), "18 Stage B", id="a fetched bundle is staged"
        ),
        pytest.param(
            run(A), device(garbage=(C,)), "19 Collect C", id="what nobody names is deleted"
        ),
        pytest.param(
            run(B),
            device(needed_bytes=2 * 10**9),
            "20 DropPrevious Z",
            id="for room previous goes",
        ),
        pytest.param(
            run(B),
            device(needed_bytes=2 * 10**9, serving=(), start_after_ms=NOW + 1),
            "20 Reject B OUT-D201",
            id="but not while current does not serve",
        ),
        pytest.param(
            run(B),
            device(short_of_room=True, complete=frozenset({A}), verified=frozenset({A})),
            "20 Reject B OUT-D201",
            id="without one it gives up for a while",
        ),
        pytest.param(
            run(Z),
            device(short_of_room=True, complete=frozenset({A}), verified=frozenset({A})),
            "20 Reject Z OUT-D201",
            id="previous is not dropped for itself",
        ),
        pytest.param(run(B), device(), "21 Fetch B", id="what is missing is fetched"),
        pytest.param(
            run(A),
            device(
                journal=Journal("m", 1, A),
                complete=frozenset({A}),
                verified=frozenset(),
                serving=(),
            ),
            "21 Fetch A",
            id="a damaged current without another is fetched again",
        ),
        pytest.param(run(A), device(), "22 Wait", id="then there is nothing to do"),
        pytest.param(
            run(B), device(journal=noted(B, AWAY)), "22 Wait OUT-D312", id="a pause is waited for"
        ),
        pytest.param(
            run(B, attempt=1),
            device(journal=noted(B, DENIED)),
            "22 Wait OUT-D310",
            id="a denial stands",
        ),
        pytest.param(
            run(B, attempt=2),
            device(journal=noted(B, DENIED)),
            "21 Fetch B",
            id="until it is lifted",
        ),
        pytest.param(
            run(B, attempt=2),
            device(also=(B,), journal=noted(B, replace(DENIED, loads=3, crashes=3))),
            "17 Probe B",
            id="and then starts afresh",
        ),
    ],
)
def test_the_first_row_that_matches_decides(desired, observed, step):
    assert said(desired, observed) == step


IDLE = device()
STAGED = device(also=(B,), ready=frozenset(), garbage=())
FETCHED = device(ready=frozenset({B}))
PROBING = device(also=(B,), journal=trying(), standby=(Standby("r9", B),))
TRIAL = on_trial()
COMMITTED = device(also=(B,), journal=Journal("m", 2, B, A), serving=(Serving("r2", B),))
WITHOUT_PREVIOUS = replace(COMMITTED, journal=Journal("m", 2, B))


def against_b(observed: Observed, how: Any) -> Observed:
    if how == "denied":
        return replace(observed, denied=frozenset({B}))
    return replace(observed, revoked={B: how})


@pytest.mark.parametrize(
    "wanted, idle, fetched, staged, probing, trial, committed",
    [
        ("B", "21 Fetch B", "18 Stage B", "17 Probe B", "14 Activate B", "10 Wait", "22 Wait"),
        ("A", "22 Wait", "22 Wait", "22 Wait", "11 Kill r9", "6 Reject B OUT-D314", "17 Probe A"),
        ("C", "21 Fetch C", "21 Fetch C", "21 Fetch C", "11 Kill r9", "6 Reject B OUT-D314",
         "21 Fetch C"),
        ("Hold", "22 Wait", "22 Wait", "22 Wait", "11 Kill r9", "6 Reject B OUT-D314", "22 Wait"),
        ("B denied", "22 Wait OUT-D315", "22 Wait OUT-D315", "22 Wait OUT-D315", "11 Kill r9",
         "6 Reject B OUT-D315", "3 Rollback B OUT-D315"),
        ("B fallback", "22 Wait OUT-D315", "22 Wait OUT-D315", "22 Wait OUT-D315", "11 Kill r9",
         "6 Reject B OUT-D315", "3 Rollback B OUT-D315"),
        ("B stop", "22 Wait OUT-D315", "22 Wait OUT-D315", "22 Wait OUT-D315", "11 Kill r9",
         "2 Activate A", "2 Activate A"),
        ("Nothing", "1 Stop", "1 Stop", "1 Stop", "1 Stop", "1 Stop", "1 Stop"),
    ],
)  # fmt: skip
def test_what_is_wanted_by_how_far_the_device_is(
    wanted, idle, fetched, staged, probing, trial, committed
):
    states = (IDLE, FETCHED, STAGED, PROBING, TRIAL, COMMITTED)
    others: dict[str, Desired] = {"Hold": Hold(), "Nothing": Nothing(), "A": run(A), "C": run(C)}
    desired = others.get(wanted, run(B))
    how = wanted.partition(" ")[2]
    seen = [said(desired, against_b(state, how) if how else state) for state in states]
    assert seen == [idle, fetched, staged, probing, trial, committed]


def test_a_revoked_current_without_another_keeps_serving():
    assert said(run(B), against_b(WITHOUT_PREVIOUS, "fallback")) == "22 Wait"
    assert said(run(B), against_b(WITHOUT_PREVIOUS, "denied")) == "22 Wait"


def test_the_base_is_the_first_slot_that_nothing_speaks_against():
    assert base(device()) == A
    assert base(device(denied=frozenset({A}))) == Z
    assert base(device(denied=frozenset({A, Z}))) == A
    assert base(device(revoked={A: "stop", Z: "fallback"})) == Z
    assert base(device(revoked={A: "stop", Z: "stop"})) is None
    assert base(device(verified=frozenset())) is None


def test_what_speaks_against_a_bundle_is_said():
    assert against(A, device()) is None
    assert against(A, device(denied=frozenset({A}))) == ("OUT-D315", "on the fleet's deny list")
