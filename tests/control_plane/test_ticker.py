"""The ticker makes true what the store wants, also when it dies between any two of its effects.

Long because the scenes of one rollout after another are the point.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.judging import Judge
from control_plane.rollout import operations
from control_plane.rollout.explaining import explain
from control_plane.rollout.record import broken_at
from control_plane.signing.adopt import Adopted
from control_plane.signing.repository import Repository
from control_plane.store import connections
from control_plane.ticker import Ticker
from protocol import codec
from protocol.device import DeviceDocument, Pin
from protocol.plan import Denied, DenyList, Plan
from protocol.reported import Shadow
from tests.fakes.ticked_fleet import (
    TOPICS,
    V1,
    V2,
    V3,
    ControlPlane,
    Death,
    FakeOffers,
    Fleet,
    Killed,
    new_control,
    new_fleet,
    settle,
)
from tests.fakes.virtual_fleet import MODEL

JUDGED = {"denominator": "activated", "min_completed": 10}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(connections, "SYNCHRONOUS", "OFF")


@pytest.fixture
def control(tmp_path):
    return new_control(tmp_path / "store.sqlite")


@pytest.fixture
def fleet(control):
    return new_fleet(control)


@pytest.fixture
def on_v1(fleet):
    return settle(fleet)


# --- the way of a rollout -----------------------------------------------------------------------


def test_a_rollout_goes_through_its_waves_and_completes(control, on_v1):
    sizes = []
    started = control.roll_out("v2", waves=["1", "3", "100%"])
    assert (started["id"], started["status"], started["targeted"]) == ("digits-2", "preparing", 8)
    for _ in range(40):
        on_v1.run(1)
        sizes.append(sum(V2 in device.ever for device in on_v1.devices.values()))
    assert set(sizes) == {1, 3, 8}
    shown = control.status("digits-2")
    assert (shown["status"], shown["verdict"], shown["over"]) == ("completed", "pass", "v1")
    assert shown["counts"]["healthy"] == 8
    assert [wave["devices"] for wave in shown["waves"]] == [1, 3, 8]
    assert control.plan.rules[0].stable == V2
    assert control.plan.rules[0].rollout is None
    types = [e.type for e in control.store.events.after(0, ["rollouts/digits-2"], 500)]
    assert types[0] == "rollout.started"
    assert types.count("rollout.wave") == 3
    assert types[-1] == "rollout.completed"


def test_a_bad_version_aborts_by_itself_and_no_other_device_ever_gets_it(control, on_v1):
    control.roll_out("v3", waves=["3", "100%"], error_condition={"bad": "> 70 %", **JUDGED})
    downloads = sum(device.downloads for device in on_v1.devices.values())
    for device in on_v1.devices.values():
        device.bad = frozenset({V3})
    on_v1.run(30)
    shown = control.status("digits-2")
    assert (shown["status"], shown["verdict"]) == ("aborted", "fail")
    assert shown["why"] == "3 of 3 activated devices rolled back; more than 70 % aborts"
    assert shown["counts"]["rolled_back"] == 3
    assert shown["reasons"] == {"OUT-D310": 3}
    assert on_v1.all_serve(V1)
    assert sum(V3 in device.ever for device in on_v1.devices.values()) == 3
    assert sum(device.downloads for device in on_v1.devices.values()) == downloads + 3
    assert control.plan.ended is not None
    assert control.plan.ended.end == "aborted"


def test_the_verdict_that_aborted_can_be_computed_again_from_what_was_recorded(control, on_v1):
    control.roll_out("v3", waves=["3", "100%"])
    for device in on_v1.devices.values():
        device.bad = frozenset({V3})
    on_v1.run(15)
    shown = control.status("digits-2")
    assert (shown["status"], shown["verdict"]) == ("aborted", "fail")
    rows = control.store.evidence.list_records("digits-2")
    records = [json.loads(each.body) for each in rows]
    assert broken_at(records) is None
    assert rows[-1].digest == shown["evidence"]
    explained = [explain(each) for each in records]
    assert all(each.same for each in explained)
    assert explained[-1].recomputed.verdict == "fail"
    events = control.store.events.after(0, ["rollouts/digits-2"], 500)
    said = [e.data for e in events if e.type == "rollout.verdict"]
    assert (said[-1]["verdict"], said[-1]["evidence"]) == ("fail", shown["evidence"])


def test_a_rollout_that_was_paused_while_it_prepared_begins_only_when_resumed(control, on_v1):
    control.roll_out("v2")
    operations.pause(control.store, "digits-2", control.now_ms, "wait for ana", who="eva")
    on_v1.run(5)
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"], shown["why"]) == ("paused", 0, "wait for ana")
    operations.resume(control.store, "digits-2", control.now_ms, who="eva")
    on_v1.run(20)
    assert control.status("digits-2")["status"] == "completed"


def test_an_operators_abort_brings_updated_devices_back_from_their_own_disk(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(10)
    assert sum(d.serving == V2 for d in on_v1.devices.values()) == 3
    downloads = sum(device.downloads for device in on_v1.devices.values())
    shown = operations.abort(
        control.store, "digits-2", control.now_ms, "changed my mind", who="eva"
    )
    assert (shown["status"], shown["returning"]) == (
        "aborted",
        {"confirmed": 0, "of": 3, "not_linked": 0},
    )
    on_v1.run(5)
    assert on_v1.all_serve(V1)
    assert sum(device.downloads for device in on_v1.devices.values()) == downloads
    assert control.status("digits-2")["returning"] == {
        "confirmed": 3,
        "of": 3,
        "not_linked": 0,
    }


def test_a_paused_rollout_waits_and_goes_on(control, on_v1):
    control.roll_out("v2", waves=["1", "100%"])
    on_v1.run(2)
    assert (
        operations.pause(control.store, "digits-2", control.now_ms, who="eva")["status"] == "paused"
    )
    on_v1.run(20)
    assert sum(V2 in device.ever for device in on_v1.devices.values()) == 1
    assert (
        operations.resume(control.store, "digits-2", control.now_ms, who="eva")["status"]
        == "running"
    )
    on_v1.run(20)
    assert control.status("digits-2")["status"] == "completed"


def test_nothing_begins_before_the_payloads_lie_with_the_broker(control, on_v1):
    control.world.settled = False
    control.roll_out("v2")
    on_v1.run(5)
    assert control.status("digits-2")["status"] == "preparing"
    control.world.settled = True
    on_v1.run(1)
    assert control.status("digits-2")["status"] == "running"


def test_a_candidate_that_is_revoked_or_denied_is_aborted(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(10)
    control.store.plans.deny(Denied(MODEL, V2, "glare"))
    on_v1.run(1)
    shown = control.status("digits-2")
    assert (shown["status"], shown["why"]) == ("aborted", "digits/v2 is denied by an operator")
    deny = codec.decode_signed(control.world.retained[TOPICS.deny], DenyList, limit=65_536)
    assert deny.digests == {V2}


def test_only_devices_of_the_selector_change(control, on_v1):
    control.roll_out("v2", to="site = a")
    on_v1.run(20)
    assert {n for n, d in on_v1.serving().items() if d == V2} == {"a-1", "a-2", "a-3", "a-4"}
    assert len(control.plan.rules) == 2
    control.roll_out("v3", to="all")
    on_v1.run(30)
    assert on_v1.all_serve(V3)
    assert len(control.plan.rules) == 1


def test_a_rollout_over_two_stable_versions_returns_each_device_to_its_own(control, on_v1):
    control.roll_out("v2", to="site = a")
    on_v1.run(20)
    before = on_v1.serving()
    control.roll_out("v3", to="all", waves=["7", "100%"], soak="1h")
    on_v1.run(10)
    assert sum(d == V3 for d in on_v1.serving().values()) == 7
    operations.abort(control.store, "digits-3", control.now_ms, who="eva")
    on_v1.run(5)
    assert on_v1.serving() == before


def test_a_selector_over_what_runs_is_frozen_at_the_start(control, on_v1):
    control.roll_out("v2", to="site = a")
    on_v1.run(20)
    shown = control.roll_out("v3", to="runs.digits = v2")
    assert shown["targeted"] == 4
    on_v1.run(25)
    assert {n for n, d in on_v1.serving().items() if d == V3} == {"a-1", "a-2", "a-3", "a-4"}
    assert control.status("digits-3")["status"] == "completed"


def test_a_pinned_device_is_no_target_and_joins_when_it_is_unpinned(control, on_v1):
    row = control.store.devices.need("a-1")
    pinned = dataclasses.replace(row, pins={MODEL: Pin(V1)})
    control.store.devices.change(pinned, control.now_ms)
    shown = control.roll_out("v2", soak="1h")
    assert (shown["targeted"], shown["excluded"]) == (7, {"pinned": 1})
    on_v1.run(10)
    assert on_v1.serving()["a-1"] == V1
    free = dataclasses.replace(control.store.devices.need("a-1"), pins={})
    control.store.devices.change(free, control.now_ms)
    on_v1.run(10)
    assert on_v1.serving()["a-1"] == V2
    assert control.status("digits-2")["targeted"] == 8


def test_a_device_that_is_enrolled_meanwhile_comes_in_with_everyone(control, on_v1):
    control.roll_out("v2", waves=["7", "100%"], soak="20 s")
    on_v1.run(3)
    on_v1.enrol("a-9", site="a")
    on_v1.run(12)
    assert on_v1.serving()["a-9"] == V1
    on_v1.run(40)
    assert control.status("digits-2")["status"] == "completed"
    assert on_v1.serving()["a-9"] == V2


def test_a_retired_device_loses_its_document_and_is_missed_by_no_rollout(control):
    on_v1 = settle(new_fleet(control, interval_s=60))
    control.roll_out("v2", waves=["3", "100%"], soak="400s", silent_after="120s")
    on_v1.run(10)
    activated = [id for id, device in on_v1.devices.items() if device.serving == V2]
    waiting = next(id for id, device in on_v1.devices.items() if device.serving == V1)
    for id in (activated[0], waiting):
        control.store.devices.retire(id, control.now_ms)
        del on_v1.devices[id]
    documents = {TOPICS.document(activated[0]), TOPICS.document(waiting)}
    assert documents <= control.published.keys()
    on_v1.run(20, seconds=10)
    assert not documents & control.published.keys()
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"]) == ("running", 1)
    assert (shown["counts"]["healthy"], shown["counts"]["silent"]) == (2, 0)
    on_v1.run(90, seconds=10)
    assert control.status("digits-2")["status"] == "completed"
    assert control.status("digits-2")["counts"]["healthy"] == 6
    control.start()
    control.tick()
    assert not documents & control.published.keys()


def test_a_wave_whose_only_device_is_retired_proves_nothing_and_goes_no_further(control, on_v1):
    control.roll_out("v2", waves=["1", "100%"])
    on_v1.run(2)
    (only,) = (id for id, device in on_v1.devices.items() if V2 in device.ever)
    control.store.devices.retire(only, control.now_ms)
    del on_v1.devices[only]
    on_v1.run(20)
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"], shown["verdict"]) == ("running", 1, "insufficient")
    assert on_v1.all_serve(V1)


def test_nobody_is_silent_while_nobody_listens(control, on_v1):
    control.roll_out(
        "v2",
        waves=["3", "100%"],
        soak="9h",
        silent_after="2h",
        error_condition={"bad": "> 50 %", **JUDGED},
    )
    on_v1.run(10)
    control.listening_since_ms = None
    control.tick(5 * 3600)
    assert control.status("digits-2")["counts"]["silent"] == 0
    control.listening_since_ms = control.now_ms
    control.tick(60)
    assert control.status("digits-2")["status"] == "running"
    control.tick(2 * 3600)
    shown = control.status("digits-2")
    assert (shown["status"], shown["counts"]["silent"]) == ("aborted", 3)


def test_an_outage_that_hits_both_arms_is_not_blamed_on_the_version(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="9h", silent_after="2h")
    on_v1.run(10)
    control.tick(5 * 3600)
    shown = control.status("digits-2")
    assert (shown["counts"]["silent"], shown["control"]["reporting"]) == (3, 0)
    assert (shown["status"], shown["verdict"]) != ("aborted", "fail")


def test_a_new_attempt_lifts_what_devices_hold_against_a_version(control, on_v1):
    for device in on_v1.devices.values():
        device.bad = frozenset({V2})
    control.roll_out("v2", waves=["1", "100%"], error_condition={"bad": "> 10 %", **JUDGED})
    on_v1.run(10)
    assert control.status("digits-2")["status"] == "aborted"
    for device in on_v1.devices.values():
        device.bad = frozenset()
    assert control.roll_out("v2", waves=["1", "100%"])["attempt"] == 2
    on_v1.run(30)
    assert on_v1.all_serve(V2)


# --- what a stage costs -------------------------------------------------------------------------


class Counted:
    """Stands for the publisher: what is retained, and which topics have changed."""

    settled = True

    def __init__(self):
        self.retained = {}
        self.changed = []

    def keep(self, topic, data):
        if self.retained.get(topic) != data:
            self.changed.append(topic)
        self.retained[topic] = data

    def keep_metadata(self, roots, roles):
        for role, data in roles.items():
            self.keep(TOPICS.tuf(role), data)

    def withdraw(self, topic):
        raise AssertionError("nothing is withdrawn here")

    def offer(self, *offered):
        raise AssertionError("nothing is offered here")


@pytest.mark.parametrize("devices", [5, 60])
def test_a_stage_advance_is_four_small_retained_messages_for_any_fleet(
    tmp_path, control, devices, monkeypatch
):
    now_ms = 1_800_000_000_000
    repository = Repository.create_dev(tmp_path / "tuf", tmp_path / "keys", "north", now_ms)
    monkeypatch.setattr(repository, "approvals", lambda: control.world.approvals)
    counted = Counted()
    ticker = Ticker(
        "north", control.store, repository, counted, FakeOffers(control.world),
        Judge(control.store), listening_since_ms=lambda: 0,
    )  # fmt: skip
    control.now_ms = now_ms
    for number in range(devices):
        control.store.devices.enrol(f"north-{number}", {}, None, now_ms)
    control.roll_out("v2", waves=["1", "3", "100%"])
    while control.store.rollouts.active()[0].wave < 1:
        ticker.tick(now_ms)
    for wave in (2, 3):
        counted.changed.clear()
        control.now_ms += 1000
        assert control.act("promote", "digits-1")["wave"] == wave
        ticker.tick(control.now_ms)
        assert sorted(counted.changed) == sorted(
            [TOPICS.plan(MODEL), *(TOPICS.tuf(r) for r in ("rollouts", "snapshot", "timestamp"))]
        )
        assert sum(len(counted.retained[topic]) for topic in counted.changed) < 5000


def test_a_round_reads_and_writes_as_much_for_a_small_fleet_as_for_a_large_one(tmp_path):
    found = []
    for devices in (10, 300):
        control = new_control(tmp_path / f"{devices}.sqlite")
        fleet = Fleet(control)
        fleet.enrol(*(f"cam-{number}" for number in range(devices)))
        fleet.run(1)
        control.roll_out("v1")
        fleet.run(10)
        control.roll_out("v2", waves=["3", "100%"], soak="1h")
        fleet.run(10)
        steps = [0]

        def count(steps=steps):
            steps[0] += 1

        control.store.connection().set_progress_handler(count, 100)
        control.tick()
        control.store.connection().set_progress_handler(None, 0)
        found.append(steps[0])
        control.store.close()
    small, large = found
    assert large <= 1.5 * small


# --- shadows ------------------------------------------------------------------------------------


def shadow_reports(control, fleet, rows, agreed):
    """Every device in the plan's rollout says how the candidate did beside what it runs."""
    for id in fleet.devices:
        state = control.store.devices.need(id).state
        model = dataclasses.replace(
            state.models[MODEL],
            target=V2, phase="standby", rollout="digits-2", shadow=Shadow(V2, rows, agreed),
        )  # fmt: skip
        member = control.store.rollouts.members.get("digits-2", id)
        if member.wave > 1:
            continue
        said = dataclasses.replace(state, order=state.order + 1000, models={MODEL: model})
        control.store.devices.put_state(id, said, control.now_ms)


def test_a_shadow_is_lifted_once_enough_answers_agree(control, on_v1):
    control.roll_out(
        "v2", waves=["3", "100%"], shadow={"rows": 100, "agreement": ">= 95 %"}, soak="1h"
    )
    control.tick()
    rollout = control.plan.rules[0].rollout
    assert (rollout.require_shadow, rollout.shadow_rows) == (True, 100)
    assert "shadow/1" in control.plan.must_understand
    shadow_reports(control, on_v1, 40, 40)
    control.tick()
    shown = control.status("digits-2")["shadow"]
    assert (shown["active"], shown["devices"], shown["with_rows"]) == (True, 3, 0)
    shadow_reports(control, on_v1, 120, 118)
    control.tick()
    assert control.status("digits-2")["shadow"] == {
        "active": False, "rows_wanted": 100, "agreement_wanted": 0.95,
        "devices": 3, "with_rows": 3, "rows": 360, "agreed": 354,
    }  # fmt: skip
    rollout = control.plan.rules[0].rollout
    assert not rollout.require_shadow
    assert control.plan.must_understand == ("plan/1", "selector/1")
    events = control.store.events.after(0, ["rollouts/digits-2"], 500)
    (lifted,) = (each.data for each in events if each.type == "rollout.shadowed")
    assert lifted["why"] == "354 of 360 answers of 3 devices agree with the current version"


def test_a_shadow_that_disagrees_activates_nowhere_and_asks(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], shadow={"rows": 100, "agreement": ">= 95 %"})
    control.tick()
    shadow_reports(control, on_v1, 120, 90)
    control.tick()
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"]) == ("paused", 1)
    assert shown["why"].startswith("beside the current model 270 of 360 answers")
    assert shown["waits_for"]["wave"] == 1
    assert control.plan.rules[0].rollout.require_shadow
    control.act("approve", "digits-2", "the old one is wrong there")
    control.tick()
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"], shown["shadow"]["active"]) == ("running", 1, False)


# --- restarts -----------------------------------------------------------------------------------


def test_a_tick_that_has_nothing_to_do_publishes_nothing_new(control, on_v1):
    before, signed = control.published, control.world.timestamp
    on_v1.run(5)
    assert control.published == before
    assert control.world.timestamp == signed


def test_a_restarted_control_plane_publishes_the_same_again(control, on_v1):
    before = control.published
    control.world.retained.clear()
    control.start()
    control.tick()
    assert control.published == before


def _about_to(which: str, path: Path) -> Fleet:
    """A fleet right before the ticks that matter; its store is closed."""
    control = ControlPlane(path)
    for version in ("v1", "v2"):
        control.add_version(version)
    fleet = Fleet(control)
    fleet.enrol("a-1", "a-2", "a-3")
    fleet.run(1)
    control.roll_out("v1")
    fleet.run(10)
    if which != "start":
        for device in fleet.devices.values() if which == "fail" else ():
            device.bad = frozenset({V2})
        rule: dict[str, Any] = (
            {"error_condition": {"bad": "> 10 %", **JUDGED}} if which == "fail" else {}
        )
        control.roll_out("v2", waves=["1", "100%"], **rule)
        fleet.run({"wave": 6, "complete": 12, "abort": 4, "fail": 5, "pin": 2}[which])
    if which == "abort":
        operations.abort(control.store, "digits-2", control.now_ms, who="eva")
    if which == "pin":
        row = control.store.devices.need("a-1")
        pinned = dataclasses.replace(row, pins={MODEL: Pin(V1)})
        control.store.devices.change(pinned, control.now_ms)
    control.store.close()
    return fleet


def _goes_on(before: Fleet, path: Path, death: Death) -> Fleet:
    """The same moment once more, in a process that dies at an effect and is started again."""
    shutil.copy(before.control.path, path)
    world = copy.deepcopy(before.control.world)
    world.death = death
    control = ControlPlane(path, world, before.control.now_ms)
    fleet = Fleet(control, copy.deepcopy(before.devices))
    for _ in range(5):
        try:
            control.tick()
        except Killed:
            control.store.close()
            control.start()
            control.ticker.tick(control.now_ms)
        fleet.step()
    world.death = Death()
    fleet.run(15)
    return fleet


@pytest.mark.parametrize("which", ["start", "wave", "abort", "complete", "pin"])
def test_a_crash_at_any_point_of_a_tick_is_healed_by_the_next(tmp_path, which):
    """Whatever effect it dies at, the end is that of a control plane that never died."""
    before = _about_to(which, tmp_path / "before.sqlite")
    unharmed = Death()
    whole = _goes_on(before, tmp_path / "whole.sqlite", unharmed)
    rollout = "digits-1" if which == "start" else "digits-2"
    assert unharmed.effects > 10
    for at in range(1, min(unharmed.effects, 60) + 1):
        died = _goes_on(before, tmp_path / f"{at}.sqlite", Death(at))
        assert died.serving() == whole.serving(), at
        ends = [each.control.status(rollout)["status"] for each in (died, whole)]
        assert ends[0] == ends[1], at
        assert died.control.world.retained.keys() == whole.control.world.retained.keys(), at
        assert died.control.plan.rules == whole.control.plan.rules, at
        assert died.control.plan.ended == whole.control.plan.ended, at
        died.control.store.close()


_KEPT = (
    "rollout", "member", "phase_count", "plan", "assignment", "last_end", "wave_evidence", "tick",
    "exposed", "silence", "bettor", "evidence_record", "audit", "event",
)  # fmt: skip


class Frail(connections._Connection):
    """A connection that dies at the n-th statement that writes, or commits."""

    death = Death()

    def execute(self, sql, *values):
        if sql.split(maxsplit=1)[0].upper() in ("INSERT", "UPDATE", "DELETE", "COMMIT"):
            self.death.reach()
        return super().execute(sql, *values)

    def executemany(self, sql, *values):
        self.death.reach()
        return super().executemany(sql, *values)


def _told(control):
    """Everything that the store says of rollouts, and how they came there."""
    connection = control.store.connection()
    return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in _KEPT}


def _goes_on_frail(before: Fleet, folder: Path, death: Death) -> tuple[Fleet, dict[str, Any]]:
    """The same moment once more, with a store of which one write fails."""
    path = folder / f"{death.at}.sqlite"
    shutil.copy(before.control.path, path)
    world = copy.deepcopy(before.control.world)
    control = ControlPlane(path, world, before.control.now_ms)
    fleet = Fleet(control, copy.deepcopy(before.devices))
    for _ in range(6):
        Frail.death = death
        try:
            control.tick()
        except Killed:
            Frail.death = Death()
            control.store.close()
            control.start()
            control.ticker.tick(control.now_ms)
        Frail.death = Death()
        fleet.step()
    fleet.run(10)
    told = _told(control)
    control.store.close()
    return fleet, told


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """Scenes right before the ticks that matter, each with what becomes of it undisturbed."""
    folder = tmp_path_factory.mktemp("moments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "SYNCHRONOUS", "OFF")
        patch.setattr(connections, "_Connection", Frail)
        made = {}
        for which in ("start", "wave", "complete", "abort", "fail"):
            before = _about_to(which, folder / f"{which}.sqlite")
            whole = Death()
            (folder / which).mkdir()
            made[which] = (before, whole, *_goes_on_frail(before, folder / which, whole))
        yield folder, made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whichever_write_fails_the_store_ends_up_as_if_none_had(moments, data):
    folder, made = moments
    which = data.draw(st.sampled_from(sorted(made)))
    before, whole, undisturbed, told = made[which]
    at = data.draw(st.integers(1, whole.effects))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "SYNCHRONOUS", "OFF")
        patch.setattr(connections, "_Connection", Frail)
        fleet, found = _goes_on_frail(before, folder / which, Death(at))
    assert found == told
    assert fleet.serving() == undisturbed.serving()
    assert fleet.control.world.retained == undisturbed.control.world.retained


def adopted(control, version):
    """The fleet has seen documents of this version, and this store has not."""
    control.start()
    document = DeviceDocument("north", "north-a-1", version, labels={"site": "elsewhere"})
    control.repository.adopted = Adopted(
        {},
        {},
        plans={MODEL: Plan("north", MODEL, version, 44, control.plan.rules)},
        deny=DenyList("north", version),
        documents={document.device: document},
    )
    control.ticker.adopt({}, control.now_ms)
    control.store.plans.deny(Denied(MODEL, V2))
    control.roll_out("v3", soak="1h")


def deny_version(control):
    data = control.world.retained[TOPICS.deny]
    return codec.decode_signed(data, DenyList, limit=65_536).version


def test_a_store_from_yesterday_goes_on_above_what_the_fleet_has_seen(control, on_v1):
    seen = control.now_ms // 60_000 + 10_000
    adopted(control, seen)
    on_v1.run(2)
    assert (control.plan.version, control.plan.number) == (seen + 1, 45)
    assert deny_version(control) == seen + 1
    assert on_v1.devices["north-a-1"].document.version == seen + 1
    assert on_v1.devices["north-a-1"].document.labels["site"] == "a"


def test_a_thief_of_the_online_key_cannot_use_up_the_versions(control, on_v1, caplog):
    adopted(control, 2**53 - 1)
    on_v1.run(2)
    soon = control.now_ms // 60_000 + 10_000
    assert control.plan.version < soon
    assert deny_version(control) < soon
    assert control.store.devices.need("a-1").version < soon
    assert "replace the key" in caplog.text


def test_documents_go_out_again_when_another_key_signs_them(control, on_v1):
    signed = []
    sign = control.repository.sign_document

    def noted(document):
        signed.append(document)
        return sign(document)

    control.repository.sign_document = noted
    control.tick()
    assert signed == []
    control.repository.document_key = "another key"
    control.tick()
    assert {document.device for document in signed} == set(on_v1.devices)
    signed.clear()
    control.tick()
    assert signed == []
