"""What expired approvals forbid, end to end: signed bytes in, decision out.

Forward needs approvals that have not expired and a plan that was confirmed lately. Back needs
neither: a return, a pin back and an abort work a year after the last approver was heard.
"""

from dataclasses import replace

import pytest

from edge_agent.desired import Decision, Run, Trusted, decide
from edge_agent.journal import Journal
from protocol import codec
from protocol.approval import Approved
from protocol.device import Pin
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE
from protocol.plan import Ended, Local, Plan, PlanTerms, Rollout, Rule, Wave
from tests.fakes.fleet_trust import DAY_MS, DEVICE, FLEET, Device, Fleet

V1, V2, V3 = (digest_of(f"index of digits/{version}".encode()) for version in ("v1", "v2", "v3"))
TRIED = Journal("digits", current=V2, previous=V1)
"""v2 was committed here after v1; v3 is new."""
YEAR = 360


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path / "control-plane")
    for version in ("v1", "v2", "v3"):
        fleet.approve(f"digits/{version}")
    plan(fleet, Rule(None, V2))
    return fleet


@pytest.fixture
def device(tmp_path, fleet):
    device = Device(tmp_path / "device", fleet.root)
    device.read(fleet.broker)
    return device


def plan(fleet: Fleet, *rules: Rule, ended: Ended | None = None) -> None:
    """A plan of these rules, signed and published now."""
    fleet.numbers["digits"] = number = fleet.numbers.get("digits", 0) + 1
    document = Plan(FLEET, "digits", fleet.now_ms // 60_000 + number, number, rules, ended)
    fleet.plans["digits"] = codec.encode(document), PlanTerms()
    fleet.publish()


def rollout(candidate: str) -> Rollout:
    return Rollout("digits-2", 1, candidate, "0" * 32, 9, Wave(EVERYONE))


def later(fleet: Fleet, device: Device, days: float) -> None:
    fleet.later(days=days)
    device.machine.wall_ms = fleet.now_ms


def decided(
    fleet: Fleet, device: Device, journal: Journal = TRIED, pin: Pin | None = None
) -> Decision:
    """By what the device trusts now, and a document that is signed now."""
    pins = {"digits": pin} if pin is not None else {}
    version = fleet.numbers["document"] = fleet.numbers.get("document", 0) + 1
    document = device.trust.verify_document(fleet.document(version, pins=pins), DEVICE)
    signed = fleet.plans["digits"][0]
    issued = device.trust.issued_ms
    fresh = device.trust.timestamp_fresh() and issued is not None
    trusted = Trusted(
        device.trust.verify_plan("digits", signed),
        document,
        device.trust.approvals,
        models_expired=device.trust.models_expired(),
        plan_age_s=(device.clock.now_ms() - (issued or 0)) / 1000 if fresh else None,
    )
    now_ms = device.clock.now_ms()
    local = Local(now_ms, current=journal.current, previous=journal.previous)
    return decide("digits", trusted, local, journal, agent="1.0")


def run(decision: Decision) -> tuple[str, str | None]:
    """Where it heads for, and what holds it back."""
    assert isinstance(decision.desired, Run)
    hindrance = decision.desired.hindrance
    return decision.desired.digest, hindrance.reason if hindrance else None


def test_with_expired_approvals_nothing_new_starts(fleet, device):
    later(fleet, device, YEAR)
    plan(fleet, Rule(None, V2, rollout(V3)))
    device.read(fleet.broker)
    assert device.trust.timestamp_fresh()
    assert device.trust.models_expired()
    assert run(decided(fleet, device)) == (V3, "OUT-T121")


def test_before_they_expire_the_same_plan_starts_it(fleet, device):
    later(fleet, device, 1)
    plan(fleet, Rule(None, V2, rollout(V3)))
    device.read(fleet.broker)
    assert run(decided(fleet, device)) == (V3, None)


def test_with_expired_approvals_an_abort_returns(fleet, device):
    later(fleet, device, YEAR)
    plan(fleet, ended=Ended("digits-1", V2, "aborted"))
    device.read(fleet.broker)
    assert device.trust.models_expired()
    assert run(decided(fleet, device)) == (V1, None)


def test_with_expired_approvals_the_rules_stable_is_gone_back_to(fleet, device):
    later(fleet, device, YEAR)
    plan(fleet, Rule(None, V1))
    device.read(fleet.broker)
    assert run(decided(fleet, device)) == (V1, None)


def test_with_expired_approvals_a_pin_back_works_and_a_pin_forward_waits(fleet, device):
    later(fleet, device, YEAR)
    plan(fleet, Rule(None, V2))
    device.read(fleet.broker)
    assert run(decided(fleet, device, pin=Pin(V1))) == (V1, None)
    assert run(decided(fleet, device, replace(TRIED, previous=None), pin=Pin(V3))) == (
        V3,
        "OUT-T121",
    )


def test_with_everything_expired_and_no_link_the_way_back_is_open(fleet, device):
    later(fleet, device, YEAR)
    device.restart()
    assert not device.trust.timestamp_fresh()
    assert device.trust.models_expired()
    # The plan on this device's own disk still says v2; its document, signed now, pins back.
    assert run(decided(fleet, device, pin=Pin(V1))) == (V1, None)
    assert run(decided(fleet, device, Journal("digits", current=V1), pin=None)) == (
        V2,
        "OUT-T121",
    )


def test_a_revocation_that_was_heard_holds_after_everything_has_expired(fleet, device):
    later(fleet, device, 1)
    fleet.approve("digits/v1", Approved(state="revoked"))
    plan(fleet, Rule(None, V2))
    device.read(fleet.broker)
    later(fleet, device, YEAR)
    device.restart()
    plan_back = decided(fleet, device, pin=Pin(V1))
    assert run(plan_back) == (V2, None), "an expired list still revokes"


@pytest.mark.parametrize("wall_days", [-20_000, 5000], ids=["1970", "2040"])
def test_a_wrong_clock_takes_no_way_back_away(fleet, device, wall_days):
    plan(fleet, Rule(None, V2))
    device.read(fleet.broker)
    device.machine.wall_ms += wall_days * DAY_MS
    assert run(decided(fleet, device, pin=Pin(V1))) == (V1, None)
    assert run(decided(fleet, device)) == (V2, None)


def test_a_clock_that_comes_back_from_2040_lets_new_things_start_again(fleet, device):
    right = device.machine.wall_ms
    plan(fleet, Rule(None, V2, rollout(V3)))
    device.read(fleet.broker)
    device.machine.wall_ms = right + 5000 * DAY_MS
    assert run(decided(fleet, device)) == (V3, "OUT-T121")
    device.machine.wall_ms = right
    device.restart()
    assert run(decided(fleet, device)) == (V3, None)
