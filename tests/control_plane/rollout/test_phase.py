"""How far a device is, read from what it says: honest about what it does not know."""

from __future__ import annotations

import pytest

from control_plane.rollout.phase import Asked, Counts, funnel, phase_of, total
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
        (ModelState(current=V1, target=V2, phase="fetching"), "reached", None),
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


def test_the_funnel_contains_what_comes_later():
    counts = Counts(targeted=1, reached=3, staged=2, activated=2, healthy=4, rolled_back=1)
    shown = funnel(counts)
    assert [shown[n] for n in ("targeted", "reached", "staged", "activated", "healthy")] == [
        13, 12, 9, 7, 4,
    ]  # fmt: skip
    assert total([counts, counts]).all == 26


@pytest.mark.parametrize("answering", ["rules", "refuses"])
def test_a_version_that_was_kept_but_no_longer_answers_counts_as_rolled_back(answering):
    notes = {V2: Note("OUT-D318", activated=True)}
    model = ModelState(current=V2, serving=V2, answering=answering, notes=notes)
    state = ReportedState(1, "0.1", models={"digits": model})
    assert phase_of(ASKED, state) == ("rolled_back", "OUT-D318")
