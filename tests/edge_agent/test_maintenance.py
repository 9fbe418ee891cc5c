"""Maintenance windows: when a trial may begin, judged on the device, in its local time."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from edge_agent.desired import Hindrance, LocalTime, Run, Trusted, decide
from edge_agent.journal import Journal
from edge_agent.state import model_state
from edge_agent.steps import Activate, Commit, Mark, Probe, Reject, Unload
from protocol.approval import ApprovedBundle
from protocol.device import DeviceDocument, Pin, TransferWindow
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE
from protocol.plan import Ended, Local, Plan, Rollout, Rule, Wave
from tests.simulation.device import Device, FakeMeter, bundle

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = (TransferWindow(60, 300),)
A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))
APPROVALS = {d: ApprovedBundle("m", name, d) for d, name in ((A, "a"), (B, "b"), (C, "c"))}
SETTLED = Journal("m", current=A)


def in_berlin(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, BERLIN)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp() * 1000)


NOON, NIGHT_MS = ms("2027-01-15T12:00"), ms("2027-01-16T01:00")


def decided(
    now_ms: int,
    journal: Journal = SETTLED,
    *,
    local_time: LocalTime | None = in_berlin,
    pin: Pin | None = None,
    ended: Ended | None = None,
    window: tuple[TransferWindow, ...] = NIGHT,
    require_shadow: bool = False,
    stable: str | None = A,
) -> Run:
    rollout = Rollout(
        "r", 1, B, "0" * 32, 9, Wave(EVERYONE), window=window, require_shadow=require_shadow
    )
    rule = Rule(None, stable, None if ended else rollout)
    plan = Plan("f", "m", 1, 1, (rule,), ended)
    pins = {"m": pin} if pin is not None else {}
    known = Trusted(plan, DeviceDocument("f", "f-d", 1, pins=pins), APPROVALS, plan_age_s=60.0)
    local = Local(now_ms, current=journal.current, previous=journal.previous)
    found = decide("m", known, local, journal, agent="1.0", local_time=local_time).desired
    assert isinstance(found, Run)
    return found


def test_outside_of_its_window_a_rollout_waits_for_the_next_one():
    assert decided(NOON).hindrance == Hindrance(
        "OUT-D343", "starts in the window 01:00-05:00", NIGHT_MS
    )


@pytest.mark.parametrize(
    "now, waits",
    [("00:59", True), ("01:00", False), ("04:59", False), ("05:00", True)],
)
def test_it_starts_within_and_not_at_the_end(now, waits):
    assert (decided(ms(f"2027-01-16T{now}")).hindrance is not None) == waits


def test_without_windows_it_starts_at_any_time():
    assert decided(NOON, window=()).hindrance is None


def test_while_nobody_vouches_for_the_time_no_window_is_taken_for_open():
    found = decided(NIGHT_MS, local_time=None).hindrance
    assert found is not None
    assert found.reason == "OUT-D343"
    assert found.until_ms is None
    assert "not synchronised" in found.detail
    assert decided(NOON, local_time=None, window=()).hindrance is None


@pytest.mark.parametrize(
    "journal",
    [
        pytest.param(Journal("m", current=C, previous=B), id="to the version before"),
        pytest.param(Journal("m", current=B), id="to what is committed"),
    ],
)
def test_a_return_never_waits_for_a_window(journal):
    assert decided(NOON, journal).hindrance is None


def test_an_aborts_return_never_waits_for_a_window():
    found = decided(NOON, Journal("m", current=B, previous=A), ended=Ended("r", B, "aborted"))
    assert (found.digest, found.hindrance) == (A, None)


def test_a_pin_is_no_rollout_and_has_no_window():
    found = decided(NOON, pin=Pin(C))
    assert (found.digest, found.hindrance) == (C, None)


def test_shadowing_answers_nobody_and_waits_for_no_window():
    found = decided(NOON, require_shadow=True)
    assert (found.shadow, found.hindrance) == (True, None)


def test_other_reasons_to_wait_are_told_first():
    journal = Journal("m", current=C, previous=A, trials=(NOON - 1000,), tried=C)
    found = decided(NOON, journal).hindrance
    assert found is not None
    assert found.reason == "OUT-D340"


# --- a device -----------------------------------------------------------------------------------


def device(
    now: str = "2027-01-15T12:00", natures: dict[str, str] | None = None, fits: float = 3
) -> Device:
    """Settled on A; a rollout of B with the window 01:00-05:00 has begun."""
    found = Device(tuple(bundle(name) for name in "AZB"), natures or {})  # type: ignore[arg-type]  # names of natures
    found.meter = FakeMeter(fits)
    found.install("A", "Z")
    found.now_ms, found.local_time = ms(now), in_berlin
    found.settle()
    found.candidate, found.window = "B", NIGHT
    return found


def until(found: Device, kind: type, turns: int = 300) -> None:
    for _ in range(turns):
        if isinstance(found.turn()[2], kind):
            return
    raise AssertionError("\n".join(found.trace[-20:]))


def idle(found: Device, seconds: int) -> None:
    until_s = found.now_s + seconds
    while found.now_s < until_s:
        found.turn()


def test_it_is_fetched_and_staged_by_day_and_tried_by_night():
    found = device()
    idle(found, 60)
    assert found.disk is not None
    assert found.by_name["B"].digest in found.disk.complete()
    assert found.loads.get("B") is None
    decision, observed, step = found.turn()
    state = model_state(decision, observed, step, plan=None, fetch=found.fetch, serving=None)
    assert (state.phase, state.waiting) == ("staged", "OUT-D343")
    assert state.waiting_detail == "starts in the window 01:00-05:00"
    found.now_ms = NIGHT_MS
    until(found, Commit)


def test_it_is_judged_without_a_link():
    found = device()
    idle(found, 60)
    found.linked = False
    found.now_ms = NIGHT_MS
    until(found, Commit)


def test_a_trial_goes_on_when_its_window_closes():
    found = device("2027-01-16T04:59")
    until(found, Activate)
    until(found, Mark)
    found.now_ms = ms("2027-01-16T05:00")
    until(found, Commit)


def test_a_trial_that_fails_returns_at_any_time():
    found = device("2027-01-16T04:59", {"B": "health_bad"})
    until(found, Probe)
    found.now_ms = ms("2027-01-16T12:00")
    found.candidate = "B"
    found.window = ()
    until(found, Reject)
    found.window = NIGHT
    idle(found, 5)
    assert found.runners.serving() == [found.by_name["A"].digest]


def test_an_abort_by_day_returns_at_once():
    found = device("2027-01-16T04:59")
    until(found, Activate)
    found.now_ms = ms("2027-01-16T12:00")
    found.candidate = None
    idle(found, 5)
    assert found.runners.serving() == [found.by_name["A"].digest]


def test_a_trial_that_lost_its_runner_to_the_power_waits_for_the_next_window():
    found = device("2027-01-16T04:59")
    until(found, Mark)
    found.now_ms = ms("2027-01-16T05:30")
    found.actor, found.runners.processes, found.served_before = None, [], set()
    idle(found, 20)
    assert found.runners.serving() == [found.by_name["A"].digest]
    found.now_ms = ms("2027-01-17T01:00")
    until(found, Commit)


def test_a_model_that_was_let_go_for_it_comes_back_when_the_window_closes():
    """With memory for one runner: nothing waits for tomorrow night with nobody serving."""
    found = device("2027-01-16T04:59", fits=1.5)
    until(found, Unload)
    assert found.runners.serving() == []
    found.now_ms = ms("2027-01-16T05:00")
    found.served_before = set()
    idle(found, 3)
    assert found.runners.serving() == [found.by_name["A"].digest]
