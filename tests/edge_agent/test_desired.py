from typing import Any

import pytest

from edge_agent.desired import Hindrance, Hold, Nothing, Run, Trusted, decide
from edge_agent.journal import Journal, Note
from protocol.approval import ApprovedBundle
from protocol.device import DeviceDocument, Pin
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE
from protocol.plan import Ended, Local, Plan, Rollout, Rule, Wave

NOW = 1_900_000_000_000
A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))
APPROVALS = {d: ApprovedBundle("m", name, d) for d, name in ((A, "a"), (B, "b"), (C, "c"))}
SETTLED = Journal("m", current=A)


def plan(attempt: int = 1, ended: Ended | None = None, candidate: str | None = B) -> Plan:
    rollout = candidate and Rollout("r", attempt, candidate, "0" * 32, 9, Wave(EVERYONE))
    return Plan("f", "m", 1, 1, (Rule(None, A, rollout or None),), ended)


def trusted(the_plan: Plan | None = None, **rest: object) -> Trusted:
    fields = {"plan_age_s": 60.0, "document": DeviceDocument("f", "f-d", 1)} | rest
    return Trusted(the_plan or plan(), approvals=APPROVALS, **fields)  # type: ignore[arg-type]


def desired(known: Trusted, journal: Journal = SETTLED, **rest: object):
    local = Local(NOW, current=journal.current, previous=journal.previous)
    options = {"agent": "1.0"} | rest
    return decide("m", known, local, journal, **options).desired  # type: ignore[arg-type]


def test_the_rollout_is_headed_for_and_its_rule_is_remembered():
    found = desired(trusted())
    assert isinstance(found, Run)
    assert (found.digest, found.stable, found.counts, found.hindrance) == (B, A, True, None)


def test_nothing_assigned_is_hold():
    assert desired(trusted(document=None)) == Hold()


def test_root_may_ask_for_nothing():
    assert desired(trusted(), stopped=True) == Nothing()


DENIED = SETTLED.with_note(B, Note(reason="OUT-D310", definite=True, attempt=1, allow=1))


@pytest.mark.parametrize(
    "known, bundle",
    [
        pytest.param(trusted(), A, id="the same attempt falls to stable"),
        pytest.param(trusted(plan(attempt=2)), B, id="a greater attempt tries again"),
        pytest.param(
            trusted(document=DeviceDocument("f", "f-d", 2, allow={"m": {B: 2}})),
            B,
            id="a greater allow number tries again",
        ),
        pytest.param(
            trusted(document=DeviceDocument("f", "f-d", 2, pins={"m": Pin(B)})),
            A,
            id="a pin alone does not",
        ),
    ],
)
def test_a_denied_candidate(known, bundle):
    found = desired(known, DENIED)
    assert isinstance(found, Run)
    assert found.digest == bundle


@pytest.mark.parametrize(
    "known, journal, reason",
    [
        pytest.param(trusted(models_expired=True), SETTLED, "OUT-T121", id="expired approvals"),
        pytest.param(trusted(plan_age_s=86_401.0), SETTLED, "OUT-T122", id="a stale plan"),
        pytest.param(trusted(plan_age_s=None), SETTLED, "OUT-T122", id="a plan never confirmed"),
        pytest.param(
            trusted(models_expired=True, plan_age_s=None),
            Journal("m", current=C, previous=B),
            None,
            id="but a return needs no freshness",
        ),
    ],
)
def test_only_going_forward_needs_fresh_trust(known, journal, reason):
    found = desired(known, journal)
    assert isinstance(found, Run)
    assert (found.hindrance.reason if found.hindrance else None) == reason


RECENT = Journal("m", current=B, previous=A, trials=(NOW - 60_000,), tried=B)


def test_the_guard_holds_a_second_trial_back():
    found = desired(trusted(plan(candidate=C)), RECENT)
    assert isinstance(found, Run)
    assert found.hindrance == Hindrance("OUT-D340", "", NOW + 14 * 60_000)


def test_the_guard_does_not_hold_under_the_dev_policy():
    found = desired(trusted(plan(candidate=C)), RECENT, guarded=lambda _: False)
    assert isinstance(found, Run)
    assert found.hindrance is None


def test_the_guard_never_holds_back_an_aborts_return():
    aborted = plan(candidate=None, ended=Ended("r", B, "aborted"))
    found = desired(trusted(aborted), RECENT)
    assert isinstance(found, Run)
    assert (found.digest, found.counts, found.hindrance) == (A, False, None)


def test_a_technician_is_not_counted():
    local = Local(NOW, pin=Pin(C), current=B)
    found = decide("m", trusted(), local, RECENT, agent="1.0").desired
    assert isinstance(found, Run)
    assert (found.candidate.origin, found.counts, found.hindrance) == ("technician", False, None)


STALE: dict[str, Any] = {"models_expired": True, "plan_age_s": None}
BACK = Journal("m", current=B, previous=A)


@pytest.mark.parametrize(
    "known, journal, bundle, reason",
    [
        pytest.param(
            trusted(plan(candidate=None), **STALE), BACK, A, None, id="back to the rule's stable"
        ),
        pytest.param(
            trusted(plan(candidate=None, ended=Ended("r", B, "aborted")), **STALE),
            BACK,
            A,
            None,
            id="an abort's return",
        ),
        pytest.param(
            trusted(document=DeviceDocument("f", "f-d", 2, pins={"m": Pin(A)}), **STALE),
            BACK,
            A,
            None,
            id="a pin back",
        ),
        pytest.param(
            trusted(document=DeviceDocument("f", "f-d", 2, pins={"m": Pin(C)}), **STALE),
            BACK,
            C,
            "OUT-T121",
            id="a pin forward",
        ),
        pytest.param(
            trusted(
                document=DeviceDocument("f", "f-d", 2, pins={"m": Pin(C)}),
                models_expired=False,
                plan_age_s=None,
            ),
            BACK,
            C,
            None,
            id="a pin forward asks for no plan",
        ),
        pytest.param(trusted(plan(candidate=C), **STALE), BACK, C, "OUT-T121", id="a rollout"),
        pytest.param(
            trusted(plan(candidate=None), **STALE),
            Journal("m", current=B),
            A,
            "OUT-T121",
            id="a stable that was never committed here",
        ),
        pytest.param(trusted(**STALE), BACK, B, None, id="going on with what runs"),
    ],
)
def test_expiry_blocks_forward_only(known, journal, bundle, reason):
    found = desired(known, journal)
    assert isinstance(found, Run)
    said = found.hindrance.reason if found.hindrance else None
    assert (found.digest, said) == (bundle, reason)


def test_what_came_on_a_stick_may_start_though_nothing_is_fresh():
    stale: dict[str, Any] = {"models_expired": True, "plan_age_s": None}
    assert desired(trusted(**stale)).hindrance.reason == "OUT-T121"
    assert desired(trusted(**stale, granted=frozenset({C}))).hindrance.reason == "OUT-T121"
    assert desired(trusted(**stale, granted=frozenset({B}))).hindrance is None


def test_a_stick_does_not_lift_the_thrash_guard():
    tried = SETTLED.with_trial(C, NOW - 60_000)
    found = desired(trusted(granted=frozenset({B})), tried)
    assert found.hindrance.reason == "OUT-D340"
