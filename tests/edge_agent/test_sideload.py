"""What of a stick is to be done, decided: tables, and properties over many situations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import sideload
from edge_agent.desired import Decision, Hold, Run, Trusted, decide
from edge_agent.journal import Journal
from edge_agent.sideload import Ended, Todo, ended, held_up, older, require_for, todo
from protocol.approval import Approved, ApprovedBundle
from protocol.device import DeviceDocument
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE
from protocol.plan import Candidate, Dropped, Local, Plan, Resolution, Rollout, Rule, Wave
from protocol.reported import ModelState, Outcome, TrustState
from protocol.stick import Stick

NOW_MS = 1_795_000_000_000
A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))
STICK = Stick("north", NOW_MS, ("north-cam-1", "north-cam-2"), ("m",), "site = leeds")


# --- whose stick it is ----------------------------------------------------------------------------


def test_a_stick_for_this_device_is_taken():
    require_for(STICK, "north", "north-cam-2")


@pytest.mark.parametrize(
    "fleet, device, why",
    [
        ("south", "south-cam-1", "it is of fleet north, this device of south"),
        ("north", "north-cam-3", "it was made for site = leeds, this is cam-3"),
    ],
)
def test_a_stick_for_others_is_t119(fleet, device, why):
    with pytest.raises(InvalidRequest) as raised:
        require_for(STICK, fleet, device)
    assert (raised.value.code, raised.value.why) == ("OUT-T119", why)


def test_many_devices_are_not_listed_one_by_one():
    many = Stick("north", NOW_MS, tuple(f"north-c{n}" for n in range(40)))
    with pytest.raises(InvalidRequest) as raised:
        require_for(many, "north", "north-x")
    assert raised.value.why == "it was made for c0, c1, c2 and 37 more, this is x"


@pytest.mark.parametrize(
    "theirs, why",
    [
        ({"models": 11, "timestamp": 5}, "models 11; this device trusts 12"),
        ({"models": 12, "timestamp": 5}, "timestamp 5; this device trusts 7"),
        ({"models": 12, "timestamp": 7}, None),
        ({"models": 13, "timestamp": 8}, None),
        ({}, None),
    ],
)
def test_what_is_older_is_said_by_the_role_that_people_know_best(theirs, why):
    assert older(theirs, TrustState(models=12, timestamp=7)) == why


def test_versions_are_read_from_what_may_be_anything():
    roles = {"models": b'{"signed":{"version":3}}', "targets": b"\xff", "snapshot": b"[1]"}
    deep = b"[" * 100_000
    assert sideload.versions({**roles, "rollouts": deep}) == {"models": 3}


# --- what is to be done ---------------------------------------------------------------------------


def running(bundle: str, stable: str | None = None) -> Decision:
    names = [bundle] if stable is None else [bundle, stable]
    candidates = tuple(Candidate(name, "rollout") for name in names)
    return Decision(Run(candidates[0], stable=stable), Resolution(candidates))


@pytest.mark.parametrize(
    "decision, journal, here, offered, expected",
    [
        pytest.param(
            running(B, A), Journal("m", current=A), {A}, {A, B}, Todo("m", B, (B,), (B,)),
            id="the candidate is brought, what it goes back to is here",
        ),
        pytest.param(
            running(B, A), Journal("m"), set(), {A, B}, Todo("m", B, (B, A), (B, A)),
            id="a new device gets what it would go back to as well",
        ),
        pytest.param(
            running(B, A), Journal("m"), set(), {B}, Todo("m", B, (B,), (B,)),
            id="what it would go back to may be missing",
        ),
        pytest.param(
            running(B), Journal("m", current=A), {A, B}, {B}, Todo("m", B, (), (B,)),
            id="what lies here may start",
        ),
        pytest.param(
            running(A), Journal("m", current=A), {A}, {A}, Todo("m", A),
            id="what is committed needs nothing",
        ),
        pytest.param(
            running(A, C), Journal("m", current=A), {A}, {A, C}, Todo("m", A),
            id="nothing more comes for what runs",
        ),
        pytest.param(
            Decision(Hold(), Resolution()), Journal("m", current=A), {A}, set(), Todo("m"),
            id="nothing is assigned",
        ),
    ],
)  # fmt: skip
def test_what_is_brought_and_may_start(decision, journal, here, offered, expected):
    assert todo("m", decision, journal, here, offered) == expected


def test_a_bundle_that_is_nowhere_is_t119():
    with pytest.raises(InvalidRequest) as raised:
        todo("m", running(B), Journal("m"), {A}, {C})
    assert raised.value.code == "OUT-T119"


@pytest.mark.parametrize(
    "why, code", [("not approved", "OUT-T104"), ("revoked", "OUT-T105"), ("denied", "OUT-T105")]
)
def test_what_the_plan_names_and_may_not_run_is_told_whatever_runs_instead(why, code):
    dropped = (Dropped(C, "rollout", why),)
    instead = running(A)
    decision = Decision(instead.desired, Resolution(instead.resolution.candidates, dropped))
    found = todo("m", decision, Journal("m", current=A), {A}, {A, C})
    assert found.refusal is not None
    assert (found.refusal.digest, found.refusal.code) == (C, code)
    assert C not in (*found.bring, *found.grant)


def test_what_the_device_gave_up_by_itself_is_for_its_status_to_tell():
    decision = Decision(Hold(), Resolution(dropped=(Dropped(C, "rollout", "denied here"),)))
    assert todo("m", decision, Journal("m", current=A), {A}, {C}).refusal is None


BUNDLES = st.sampled_from([A, B, C])


@given(
    candidate=BUNDLES,
    stable=BUNDLES,
    current=st.one_of(st.none(), BUNDLES),
    revoked=st.frozensets(BUNDLES),
    denied=st.frozensets(BUNDLES),
    unapproved=st.frozensets(BUNDLES),
    here=st.frozensets(BUNDLES),
)
def test_nothing_that_may_not_run_is_ever_brought_or_granted(
    candidate, stable, current, revoked, denied, unapproved, here
):
    approvals = {
        d: ApprovedBundle("m", "v", d, Approved(state="revoked" if d in revoked else "approved"))
        for d in {A, B, C} - unapproved
    }
    rollout = Rollout("r", 1, candidate, "0" * 32, 9, Wave(EVERYONE))
    plan = Plan("f", "m", 1, 1, (Rule(None, stable, rollout),))
    document = DeviceDocument("f", "f-d", 1)
    journal = Journal("m", current=current)
    trusted = Trusted(plan, document, approvals, denied, models_expired=True)
    decision = decide("m", trusted, Local(NOW_MS, current=current), journal, agent="1")
    task = todo("m", decision, journal, here, {A, B, C})
    for bundle in (*task.bring, *task.grant):
        assert bundle not in revoked | denied | unapproved
        assert bundle in (candidate, stable)
    assert not set(task.bring) & here
    assert current not in task.grant
    # And the grant is what lets it start although nothing is fresh, and lifts nothing else.
    granted = Trusted(
        plan, document, approvals, denied, models_expired=True, granted=frozenset(task.grant)
    )
    after = decide("m", granted, Local(NOW_MS, current=current), journal, agent="1").desired
    if task.head is not None:
        assert isinstance(after, Run)
        assert (after.digest, after.hindrance) == (task.head, None)


# --- what became of it ----------------------------------------------------------------------------

TASK = Todo("m", B, (B,), (B,), outcome=3)


def outcome(number: int, result: str = "rejected", bundle: str = B) -> Outcome:
    return Outcome(number, "m", bundle, result, "OUT-D301", "3 of 8 differ")  # type: ignore[arg-type]  # a table


@pytest.mark.parametrize(
    "state, expected",
    [
        (None, None),
        (ModelState(current=A, serving=A, target=B, phase="probing"), None),
        (ModelState(current=A, serving=B, target=B), Ended("activated")),
        (ModelState(current=B, serving=B, target=B), Ended("runs")),
        (
            ModelState(current=A, serving=A, target=A, last=outcome(4)),
            Ended("failed", "OUT-D301", "3 of 8 differ"),
        ),
        (ModelState(current=A, serving=A, target=B, last=outcome(3)), None),
        (ModelState(current=A, serving=A, target=B, last=outcome(4, bundle=C)), None),
        (
            ModelState(current=A, serving=A, target=C),
            Ended("replaced", "OUT-D314", "the device was told something newer meanwhile"),
        ),
    ],
)
def test_what_became_of_a_bundle_is_read_from_the_state(state, expected):
    assert ended(TASK, state) == expected


def test_what_holds_a_bundle_up_is_told():
    waits = ModelState(current=A, serving=A, target=B, waiting="OUT-D340", waiting_detail="soon")
    assert held_up(TASK, waits) == Ended("waits", "OUT-D340", "soon")
    assert held_up(TASK, ModelState(current=A, serving=A, target=B)) is None
