"""How far a device is, read from what it says: honest about what it does not know."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rollout.phase import (
    GIVEN_UP,
    PHASES,
    Asked,
    Counts,
    Standing,
    funnel,
    phase_of,
    step,
    total,
)
from control_plane.rollout.phase_page import phases_page
from control_plane.rollout.phase_table import MEANING, SAID, TABLE
from control_plane.rollout.said import heard
from protocol.identifiers import digest_of
from protocol.reported import ModelState, Note, Outcome, Refused, ReportedState

V1, V2 = digest_of(b"v1"), digest_of(b"v2")
ASKED = Asked("digits-1", "digits", V2, attempt=2)


def noted(**more):
    return {V2: Note(**{"reason": "OUT-D310", "definite": True, "attempt": 2, **more})}


def outcome(result, digest=V2, rollout="digits-1", **more):
    return Outcome(1, "digits", digest, result, rollout=rollout, **more)


@pytest.mark.parametrize(
    "model, phase, reason",
    [
        (None, "targeted", None),
        (ModelState(current=V1, serving=V1), "targeted", None),
        (ModelState(current=V1, target=V2, phase="fetching"), "downloading", None),
        (ModelState(current=V1, target=V2, phase="waiting"), "reached", None),
        (
            ModelState(current=V1, target=V2, phase="waiting", waiting="OUT-D201"),
            "reached",
            "OUT-D201",
        ),
        (ModelState(current=V1, rollout="digits-1"), "reached", None),
        (ModelState(current=V1, target=V2, phase="staged"), "staged", None),
        (ModelState(current=V1, target=V2, phase="probing"), "staged", None),
        (ModelState(current=V1, serving=V2, target=V2, phase="probation"), "activated", None),
        (ModelState(current=V2, serving=V2), "healthy", None),
        (ModelState(current=V2, committed_unexercised=True), "unexercised", None),
        (ModelState(current=V1, notes=noted(activated=True)), "rolled_back", "OUT-D310"),
        (ModelState(current=V1, notes=noted(reason="OUT-D301")), "failed", "OUT-D301"),
        # An earlier attempt's note is what this rollout's attempt lifts.
        (ModelState(current=V1, notes=noted(activated=True, attempt=1)), "targeted", None),
        # It will be tried again by itself, before it ever served.
        (
            ModelState(current=V1, target=V2, notes=noted(reason="OUT-D313", definite=False)),
            "reached",
            None,
        ),
        # A retry does not wash the failure away; a commit does.
        (
            ModelState(current=V1, serving=V2, notes=noted(activated=True, definite=False)),
            "rolled_back",
            "OUT-D310",
        ),
        (ModelState(current=V2, notes=noted(activated=True)), "healthy", None),
        (ModelState(current=V1, notes=noted(reason="OUT-D314")), "targeted", None),
        (
            ModelState(current=V1, last=outcome("rolled_back", reason="OUT-D311")),
            "rolled_back",
            "OUT-D311",
        ),
        (
            ModelState(current=V1, last=outcome("rejected", reason="OUT-D301")),
            "failed",
            "OUT-D301",
        ),
        (ModelState(current=V1, last=outcome("rejected", reason="OUT-D314")), "targeted", None),
        (
            ModelState(current=V1, last=outcome("rolled_back", rollout="digits-0")),
            "targeted",
            None,
        ),
        (ModelState(current=V1, waiting="OUT-D330"), "refused", "OUT-D330"),
        (
            ModelState(current=V1, target=V2, phase="standby", waiting="OUT-D344"),
            "staged",
            "OUT-D344",
        ),
        (ModelState(current=V1, target=V1, origin="pin"), "excluded", "pinned"),
        (ModelState(current=V1, target=V1, origin="technician"), "excluded", "pinned"),
        (ModelState(current=V1, target=V1, origin="stable"), "targeted", None),
        # A pin to the candidate itself hides nothing.
        (ModelState(current=V1, target=V2, origin="pin", phase="fetching"), "downloading", None),
        (ModelState(current=V2, serving=V2, target=V2, origin="pin"), "healthy", None),
    ],
)
def test_phase_of_a_model(model, phase, reason):
    models = {"digits": model} if model else {}
    state = ReportedState(1, "0.1", models=models)
    assert phase_of(ASKED, state) == (phase, reason)


def test_nothing_heard_is_nothing_known():
    assert phase_of(ASKED, None) == ("targeted", None)


@pytest.mark.parametrize(
    "what, code, refused",
    [
        ("plan-digits", "OUT-D330", True),
        ("document", "OUT-D330", True),
        ("plan-letters", "OUT-D330", False),
        ("plan-digits", "OUT-T106", False),
    ],
)
def test_an_agent_that_is_too_old_says_for_what(what, code, refused):
    state = ReportedState(1, "0.1", refused=(Refused(what, code),))
    assert (phase_of(ASKED, state)[0] == "refused") == refused


# --- the table, cell by cell ----------------------------------------------------------------------

REPORTS = {
    "elsewhere": ModelState(current=V1, serving=V1, target=V1, origin="stable"),
    "pinned": ModelState(current=V1, serving=V1, target=V1, origin="pin"),
    "heads for it": ModelState(current=V1, target=V2, rollout="digits-1", phase="waiting"),
    "fetches": ModelState(current=V1, target=V2, rollout="digits-1", phase="fetching"),
    "on disk": ModelState(current=V1, target=V2, rollout="digits-1", phase="staged"),
    "serves": ModelState(current=V1, serving=V2, target=V2, phase="probation"),
    "kept": ModelState(current=V2, serving=V2, target=V2),
    "kept idle": ModelState(current=V2, serving=V2, target=V2, committed_unexercised=True),
    "given up": ModelState(current=V1, notes=noted(reason="OUT-D301")),
    "gone back": ModelState(current=V1, notes=noted(activated=True)),
    "too old": ModelState(current=V1, waiting="OUT-D330"),
}
SHORT = {
    "T": "targeted", "R": "reached", "D": "downloading", "S": "staged", "A": "activated",
    "H": "healthy", "U": "unexercised", "F": "failed", "B": "rolled_back", "X": "excluded",
    "O": "refused",
}  # fmt: skip
# Columns as in REPORTS: what it says; rows: what it was before.
GRID = """
    T  T X R D S A H U F B O
    R  T X R D S A H U F B O
    D  T X R D S A H U F B O
    S  T X R D S A H U F B O
    A  T A R D S A H U F B O
    H  T H R D S A H U F B O
    U  T U R D S A H U F B O
    F  F F F F F F H U F B F
    B  B B B B B B H U F B B
    O  T X R D S A H U F B O
    X  X X R D S A H U F B X
"""
CELLS = [
    pytest.param(SHORT[before], said, SHORT[after], id=f"{SHORT[before]}, says {said}")
    for before, *row in (line.split() for line in GRID.strip().splitlines())
    for said, after in zip(REPORTS, row, strict=True)
]


def reported(said: str, order: int = 1) -> ReportedState:
    return ReportedState(order, "0.1", models={"digits": REPORTS[said]})


@pytest.mark.parametrize("before, said, after", CELLS)
def test_every_cell_of_the_table(before, said, after):
    assert heard(ASKED, reported(said)).said == said
    assert step(ASKED, Standing(before), reported(said)).phase == after


def test_the_table_has_a_cell_for_every_phase_that_a_report_can_meet_and_for_every_report():
    assert {(cell.values[0], cell.values[1]) for cell in CELLS} == {
        (phase, said) for phase in PHASES if phase != "silent" for said in SAID
    }
    assert set(TABLE) == set(PHASES) - {"silent"}
    assert all(set(row) == set(SAID) for row in TABLE.values())
    assert set(MEANING) == set(PHASES)


def test_the_page_is_the_one_that_the_table_makes():
    page = Path(__file__).parents[3] / "docs" / "reference" / "rollout-phases.md"
    assert page.read_text(encoding="utf-8") == phases_page()


@pytest.mark.parametrize("before", GIVEN_UP)
def test_what_was_given_up_keeps_its_reason_through_further_tries(before):
    at = Standing(before, "OUT-D310", 4)
    for said in ("fetches", "serves", "elsewhere"):
        at = step(ASKED, at, reported(said))
    assert at == Standing(before, "OUT-D310", 4)
    assert step(ASKED, at, reported("kept")) == Standing("healthy", None, 4)


def test_a_device_that_was_reset_begins_anew_unless_it_had_given_up():
    wiped = ReportedState(9, "0.1")
    for phase in TABLE:
        after = step(ASKED, Standing(phase, "OUT-D201"), wiped).phase
        assert after == (phase if phase in (*GIVEN_UP, "excluded") else "targeted"), phase


def test_after_a_retry_the_end_that_was_counted_counts_no_more_and_a_new_one_does():
    last = outcome("rolled_back", reason="OUT-D310")
    state = ReportedState(1, "0.1", models={"digits": ModelState(current=V1, last=last)})
    first = step(ASKED, Standing(), state)
    assert first == Standing("rolled_back", "OUT-D310", 1)
    again = dataclasses.replace(ASKED, attempt=3)
    asked_again = Standing("targeted", None, first.outcome)
    trying = ModelState(current=V1, serving=V2, last=last, notes={V2: Note(attempt=3)})
    state = ReportedState(2, "0.1", models={"digits": trying})
    assert step(again, asked_again, state) == Standing("activated", None, 1)
    second = dataclasses.replace(trying, last=dataclasses.replace(last, number=2))
    state = ReportedState(3, "0.1", models={"digits": second})
    assert step(again, asked_again, state) == Standing("rolled_back", "OUT-D310", 2)


def test_a_device_that_has_not_heard_of_the_retry_yet_is_not_said_to_have_failed_it():
    model = ModelState(
        current=V1,
        last=outcome("rolled_back", reason="OUT-D310"),
        notes=noted(activated=True, attempt=2),
    )
    again = dataclasses.replace(ASKED, attempt=3)
    state = ReportedState(1, "0.1", models={"digits": model})
    assert step(again, Standing(), state).phase == "targeted"


# --- order and repetition -------------------------------------------------------------------------


def after_all(states: list[ReportedState]) -> Standing:
    """As the store does it: what is not newer than what is known is left."""
    at, newest = Standing(), -1
    for state in states:
        if state.order > newest:
            at, newest = step(ASKED, at, state), state.order
    return at


@st.composite
def lives(draw):
    """Reports of a device that keeps its notes, as devices do: until it keeps the candidate. From
    there it only goes back."""
    states: list[ReportedState] = []
    gave_up = None
    number = 0
    for order in range(draw(st.integers(1, 8))):
        kept = states and heard(ASKED, states[-1]).said in ("kept", "kept idle")
        on = ("kept", "kept idle", "gone back") if kept else set(REPORTS) - {"pinned"}
        said = draw(st.sampled_from(sorted(on)))
        model = REPORTS[said]
        if said in ("kept", "kept idle"):
            gave_up = None
        elif said in ("given up", "gone back"):
            number += 1
            served = said == "gone back" or (gave_up is not None and gave_up[0].activated)
            result = "rolled_back" if served else "rejected"
            note = Note("OUT-D310", definite=True, attempt=2, activated=served)
            last = outcome(result, reason="OUT-D310")
            gave_up = (note, dataclasses.replace(last, number=number))
        if gave_up is not None:
            model = dataclasses.replace(model, notes={V2: gave_up[0]}, last=gave_up[1])
        states.append(ReportedState(order, "0.1", models={"digits": model}))
    return states


@settings(max_examples=300)
@given(lives(), st.data())
def test_order_repetition_and_loss_of_reports_do_not_matter_once_the_newest_is_there(life, data):
    arrived = data.draw(st.lists(st.sampled_from(life), max_size=12))
    arrived.insert(data.draw(st.integers(0, len(arrived))), life[-1])
    at = after_all(arrived)
    assert (at.phase, at.reason) == phase_of(ASKED, life[-1])


@given(st.lists(st.sampled_from(sorted(REPORTS)), min_size=1, max_size=8), st.data())
def test_repeated_and_late_reports_change_nothing_whatever_they_say(saids, data):
    states = [reported(said, order) for order, said in enumerate(saids)]
    echoes: list[ReportedState] = []
    for n, state in enumerate(states):
        echoes.append(state)
        echoes += data.draw(st.lists(st.sampled_from(states[: n + 1]), max_size=2))
    assert after_all(echoes) == after_all(states)


# --- counts ---------------------------------------------------------------------------------------


def test_the_funnel_contains_what_comes_later():
    counts = Counts(targeted=1, reached=3, staged=2, activated=2, healthy=4, rolled_back=1)
    shown = funnel(counts)
    assert [shown[n] for n in ("targeted", "reached", "staged", "activated", "healthy")] == [
        13, 12, 9, 7, 4,
    ]  # fmt: skip
    assert total([counts, counts]).all == 26


def test_who_downloads_has_been_reached_and_not_staged_and_who_is_excluded_is_in_nothing():
    counts = Counts(targeted=1, downloading=3, staged=2, excluded=40)
    assert (counts.all, counts.ever_reached, counts.ever_staged) == (6, 5, 2)
    shown = funnel(counts)
    assert (shown["targeted"], shown["downloading"], shown["excluded"]) == (6, 3, 40)


@given(st.builds(Counts, **dict.fromkeys(PHASES, st.integers(0, 50))))
def test_every_device_that_is_not_excluded_is_counted_once(counts):
    assert counts.all == sum(getattr(counts, p) for p in PHASES if p != "excluded")
    assert counts.all >= counts.ever_reached >= counts.ever_staged >= counts.ever_activated
    assert counts.tried <= counts.ever_reached
    assert counts.judged + counts.activated == counts.tried + counts.refused


@pytest.mark.parametrize("answering", ["rules", "refuses"])
def test_a_version_that_was_kept_but_no_longer_answers_counts_as_rolled_back(answering):
    notes = {V2: Note("OUT-D318", activated=True)}
    model = ModelState(current=V2, serving=V2, answering=answering, notes=notes)
    state = ReportedState(1, "0.1", models={"digits": model})
    assert phase_of(ASKED, state) == ("rolled_back", "OUT-D318")
