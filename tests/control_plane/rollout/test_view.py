"""What people are shown of a rollout, in each of its states."""

from __future__ import annotations

import pytest

from control_plane.store import connections
from control_plane.web.rollout_view import Rollout
from protocol.codec import convert
from tests.fakes.ticked_fleet import V2, new_control, new_fleet, settle

RULE = {"bad": "> 10 %", "denominator": "activated", "min_completed": 10}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(connections, "SYNCHRONOUS", "OFF")


@pytest.fixture
def control(tmp_path):
    return new_control(tmp_path / "store.sqlite")


@pytest.fixture
def on_v1(control):
    return settle(new_fleet(control))


def test_a_rollout_that_prepares_shows_its_waves_and_no_verdict(control, on_v1):
    shown = control.roll_out("v2", waves=["1", "3", "100%"], soak="1h")
    assert [wave["state"] for wave in shown["waves"]] == ["waiting"] * 3
    assert shown["waves"][0]["began"] is None
    assert (shown["wave"], shown["verdict"], shown["evidence"], shown["gates"]) == (
        0, None, None, [],
    )  # fmt: skip
    assert (shown["soak"], shown["shadow"], shown["waits_for"]) == (None, None, None)
    assert shown["not_reached"] == {"devices": 0, "newest": []}
    assert shown["control"] == {"version": "v1", "devices": 8, "reporting": 8}


def test_each_wave_shows_its_own_funnel_and_the_others_are_control(control, on_v1):
    control.roll_out("v2", waves=["1", "3", "100%"], soak="20 s")
    on_v1.run(10)
    shown = control.status("digits-2")
    first, second, _ = shown["waves"]
    assert (first["state"], first["counts"]["targeted"], first["counts"]["healthy"]) == (
        "running", 1, 1,
    )  # fmt: skip
    assert (second["state"], second["counts"]["targeted"], second["counts"]["reached"]) == (
        "waiting", 2, 0,
    )  # fmt: skip
    assert (shown["counts"]["targeted"], shown["targeted"]) == (1, 8)
    assert shown["control"] == {"version": "v1", "devices": 7, "reporting": 7}
    assert (first["began"], first["ended"]) != (None, None)
    on_v1.run(25)
    shown = control.status("digits-2")
    first, second, _ = shown["waves"]
    assert (shown["wave"], first["state"], second["state"]) == (2, "done", "running")
    assert (first["verdict"], first["ended"]) == ("pass", second["began"])
    assert first["evidence"].startswith("sha256-")
    assert shown["control"]["devices"] == 5


def test_what_is_left_of_the_soak_counts_from_enough_activated_devices(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(1)
    assert control.status("digits-2")["soak"] == {
        "seconds": 3600, "since": None, "left_seconds": None,
    }  # fmt: skip
    on_v1.run(5)
    before = control.status("digits-2")["soak"]["left_seconds"]
    assert 3590 < before <= 3600
    on_v1.run(10)
    assert control.status("digits-2")["soak"]["left_seconds"] == before - 10
    control.act("abort", "digits-2")
    assert control.status("digits-2")["soak"] is None


def test_devices_that_were_not_reached_are_named_those_heard_last_first(control, on_v1):
    for number, device in enumerate(on_v1.devices.values()):
        device.linked = number not in (0, 4)
    on_v1.run(30)
    on_v1.devices["north-b-1"].linked = True
    on_v1.run(1)
    on_v1.devices["north-b-1"].linked = False
    control.roll_out("v2", soak="1h")
    on_v1.run(5)
    found = control.status("digits-2")["not_reached"]
    assert found["devices"] == 2
    assert [each["device"] for each in found["newest"]] == ["b-1", "a-1"]
    nearer, farther = (each["silent_seconds"] for each in found["newest"])
    assert (nearer, farther) == (5, 36)


def test_a_pass_for_reachable_devices_says_how_many_are_pending(control, on_v1):
    on_v1.devices["north-a-2"].linked = False
    control.roll_out("v2", soak="1h")
    on_v1.run(8)
    control.act("promote", "digits-2")
    shown = control.status("digits-2")
    assert (shown["status"], shown["pending"]) == ("completed", 1)
    assert shown["counts"]["healthy"] == 7
    assert shown["control"] == {"version": "v1", "devices": 0, "reporting": 0}


def test_after_an_abort_it_shows_who_returned_and_who_has_not_been_heard(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(10)
    tried = sorted(on_v1.trying(V2))
    on_v1.devices[f"north-{tried[0]}"].linked = False
    on_v1.run(1)
    shown = control.act("abort", "digits-2", "too slow")
    assert (shown["status"], shown["why"], shown["kept"]) == ("aborted", "too slow", False)
    on_v1.run(5)
    assert control.status("digits-2")["returning"] == {"confirmed": 2, "of": 3, "not_linked": 1}
    on_v1.devices[f"north-{tried[0]}"].linked = True
    on_v1.run(5)
    assert control.status("digits-2")["returning"] == {"confirmed": 3, "of": 3, "not_linked": 0}


def test_a_verdict_comes_with_its_reason_and_the_record_that_it_rests_on(control, on_v1):
    for device in on_v1.devices.values():
        device.bad = frozenset({V2})
    control.roll_out("v2", waves=["3", "100%"], error_condition=RULE)
    on_v1.run(10)
    shown = control.status("digits-2")
    assert (shown["verdict"], shown["verdict_id"]) == ("fail", "error_condition")
    assert shown["sentence"] == shown["why"]
    assert shown["reasons"] == {"OUT-D310": 3}
    assert shown["evidence"] == control.store.evidence.last_record("digits-2")


def test_every_state_of_a_rollout_has_the_shape_that_the_api_promises(control, on_v1):
    seen = [control.roll_out("v2", waves=["1", "3", "100%"], soak="3 s", shadow=None)]
    for _ in range(30):
        on_v1.run(1)
        seen.append(control.status("digits-2"))
    seen.append(control.roll_out("v3"))
    seen.append(control.act("abort", "digits-3", keep=True))
    assert {each["status"] for each in seen} == {"preparing", "running", "completed", "aborted"}
    for each in seen:
        assert convert(each, Rollout).id == each["id"]
