"""What operators do with rollouts, on a fleet of eight virtual devices: every verb, every refusal.

Long because each operation has its scenes, and each refusal its sentence.
"""

from __future__ import annotations

import dataclasses

import pytest

from control_plane.rollout import operations
from control_plane.rollout.preview import preview
from control_plane.rollout.spec import read_spec
from control_plane.store import connections
from control_plane.store.bundles import BundleRow
from protocol.device import Pin, Settings
from protocol.errors import InvalidRequest
from tests.fakes.ticked_fleet import TOPICS, V1, V2, V3, new_control, new_fleet, settle
from tests.fakes.virtual_fleet import MODEL, bundle

HASTY = {"bad": "> 10 %", "denominator": "activated", "min_completed": 10}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(connections, "SYNCHRONOUS", "OFF")


@pytest.fixture
def control(tmp_path):
    return new_control(tmp_path / "store.sqlite")


@pytest.fixture
def on_v1(control):
    return settle(new_fleet(control))


def refused(code, call, *args, **more):
    with pytest.raises(InvalidRequest) as caught:
        call(*args, **more)
    assert caught.value.code == code, caught.value
    return caught.value


def said(control, id):
    """Audit records of a rollout: (what, who, before, after, why)."""
    records = control.store.audit.page(limit=200, about=f"rollouts/{id}").items
    return [(r.what, r.who, r.before, r.after, r.why) for r in reversed(records)]


def break_everywhere(fleet, digest):
    for device in fleet.devices.values():
        device.bad = frozenset({digest})


# --- start --------------------------------------------------------------------------------------


def test_without_waves_the_size_of_the_fleet_decides_them_when_it_starts(control, on_v1):
    shown = control.roll_out("v2", waves=None)
    sizes = [wave["devices"] for wave in shown["waves"]]
    assert sizes == [1, 3, 4, 8]
    assert [wave["approve"] for wave in shown["waves"]] == [False, True, True, True]
    assert {wave["soak_seconds"] for wave in shown["waves"]} == {86_400}
    stored = operations.find(control.store, "digits-2").spec
    assert len(stored.waves) == 4
    on_v1.enrol(*(f"c-{n}" for n in range(40)), site="c")
    on_v1.run(1)
    assert [wave["devices"] for wave in control.status("digits-2")["waves"]] == sizes


@pytest.mark.parametrize(
    "version, body, code, says",
    [
        ("v7", {}, "OUT-S110", "no version v7 of digits"),
        ("v1", {}, "OUT-R203", "8 devices match: 8 already there"),
        ("v2", {"to": "site = c"}, "OUT-R203", "0 devices match"),
        ("v2", {"to": "site ="}, "OUT-S101", "a value is missing after ="),
        ("v2", {"waves": ["3"]}, "OUT-S120", "waves"),
        ("v2", {"waves": [{"devices": ["a-1", "x-9"]}, "100 %"]}, "OUT-S120", "waves[1].devices"),
        ("v2", {"silent_after": "30 min"}, "OUT-R212", "silent_after is 30 min"),
        ("v2", {"holdback": 8}, "OUT-S120", "holdback would hold 8 devices back"),
        ("v2", {"supersedes": "digits-9"}, "OUT-S110", "no rollout named digits-9"),
        ("v2", {"supersedes": "digits-1"}, "OUT-R202", "digits-1 is completed"),
        ("v2", {"expect_devices": 7}, "OUT-R206", "8 devices match now, not 7"),
        ("draft", {}, "OUT-T104", "digits/draft is a draft"),
        ("revoked", {}, "OUT-T105", "digits/revoked was revoked"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused_and_leaves_nothing(
    control, on_v1, version, body, code, says
):
    for state in ("draft", "revoked"):
        control.store.bundles.put(BundleRow(bundle(state), MODEL, state, 1, 1, state))
    before = control.store.audit.count()
    error = refused(code, control.roll_out, version, **body)
    assert error.why.startswith(says)
    assert error.do
    assert control.store.rollouts.count() == 1
    assert control.store.audit.count() == before


def test_a_misspelt_model_suggests_the_right_one(control, on_v1):
    error = refused(
        "OUT-S110", preview, control.store, read_spec({"version": "digit/v1"}), {}, control.now_ms
    )
    assert (error.why, error.do) == ("no model named digit", "a similar name: digits")


def test_devices_that_report_rarely_are_not_called_silent_early(control, on_v1):
    row = control.store.devices.need("b-2")
    control.store.devices.change(
        dataclasses.replace(row, settings=Settings(state_interval_s=21_600)), control.now_ms
    )
    error = refused("OUT-R212", control.roll_out, "v2")
    assert error.why == "silent_after is 3 h; devices of this rollout report every 6 h"
    assert control.roll_out("v2", silent_after="12h")["status"] == "preparing"


def test_a_second_rollout_of_the_same_devices_is_refused_and_told_what_to_do(control, on_v1):
    control.roll_out("v2", waves=["1", "100%"], soak="1h")
    on_v1.run(2)
    error = refused("OUT-R201", control.roll_out, "v3", to="site = a")
    assert error.why == "4 of your 4 devices are in digits-2 (running, wave 1 of 2)"
    assert error.do == "abort digits-2, or supersede it: --supersede digits-2"


def test_a_superseding_rollout_ends_the_other_in_the_same_moment(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(10)
    control.roll_out("v3", supersedes="digits-2")
    ended = control.status("digits-2")
    assert (ended["status"], ended["why"]) == ("aborted", "superseded by digits-3")
    assert ended["superseded_by"] == "digits-3"
    on_v1.run(20)
    assert control.status("digits-3")["status"] == "completed"
    assert on_v1.all_serve(V3)


def test_what_is_refused_supersedes_nothing(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(3)
    refused("OUT-R206", control.roll_out, "v3", supersedes="digits-2", expect_devices=9)
    assert control.status("digits-2")["status"] == "running"


def test_a_preview_changes_nothing_and_predicts_the_start(control, on_v1):
    before = control.store.audit.count()
    spec = read_spec({"version": "digits/v2", "to": "site in (a, b)", "waves": ["3", "100%"]})
    shown = preview(control.store, spec, control.world.approvals, control.now_ms)
    assert (shown["matched"], shown["targeted"], shown["over"]) == (8, 8, "v1")
    started = control.roll_out("v2", to="site in (a, b)", waves=["3", "100%"], expect_devices=8)
    assert [each["devices"] for each in shown["waves"]] == [3, 8]
    assert [each["devices"] for each in started["waves"]] == [3, 8]
    assert control.store.audit.count() == before + 1


def test_what_is_held_back_gets_the_version_at_the_end(control, on_v1):
    last = {"percent": 100, "soak": "60 s"}
    shown = control.roll_out("v2", waves=["2", last], holdback=2)
    assert (shown["targeted"], shown["held"]) == (8, 2)
    assert [wave["devices"] for wave in shown["waves"]] == [2, 6]
    on_v1.run(25)
    assert (control.status("digits-2")["wave"], len(on_v1.trying(V2))) == (2, 6)
    assert control.status("digits-2")["control"]["devices"] == 2
    on_v1.run(60)
    assert control.status("digits-2")["status"] == "completed"
    assert on_v1.all_serve(V2)


# --- pause, resume, promote, approve ------------------------------------------------------------


def test_promote_begins_the_next_wave_now_and_after_the_last_completes(control, on_v1):
    control.roll_out("v2", waves=["1", "3", "100%"], soak="24h")
    on_v1.run(6)
    assert control.act("promote", "digits-2", "looks fine")["wave"] == 2
    on_v1.run(6)
    assert len(on_v1.trying(V2)) == 3
    control.act("promote", "digits-2")
    on_v1.run(6)
    assert control.act("promote", "digits-2", "enough")["status"] == "completed"
    assert control.plan.rules[0].rollout is not None
    on_v1.run(1)
    assert control.plan.rules[0].stable == V2
    assert ("rollout.wave", "eva", 1, 2, "looks fine") in said(control, "digits-2")
    assert said(control, "digits-2")[-1][:2] == ("rollout.completed", "eva")


def test_promote_takes_a_paused_rollout_on(control, on_v1):
    control.roll_out("v2", waves=["1", "100%"], soak="24h")
    on_v1.run(6)
    control.act("pause", "digits-2")
    shown = control.act("promote", "digits-2")
    assert (shown["status"], shown["wave"]) == ("running", 2)
    on_v1.run(6)
    control.act("pause", "digits-2")
    assert control.act("promote", "digits-2")["status"] == "completed"


def test_a_failed_rollout_is_never_promoted_approved_or_passed_over(control, on_v1):
    break_everywhere(on_v1, V2)
    control.roll_out("v2", waves=["3", "100%"], on_failure="pause", error_condition=HASTY)
    on_v1.run(10)
    shown = control.status("digits-2")
    assert (shown["status"], shown["verdict"], shown["waits_for"]) == ("paused", "fail", None)
    assert "has failed: 3 of" in refused("OUT-R208", control.act, "promote", "digits-2").why
    refused("OUT-R204", control.act, "approve", "digits-2")
    control.act("resume", "digits-2")
    on_v1.run(3)
    assert control.status("digits-2")["status"] == "paused"
    assert len(on_v1.trying(V2)) == 3


def test_what_has_not_begun_cannot_be_promoted(control, on_v1):
    control.world.settled = False
    control.roll_out("v2")
    assert "has not begun" in refused("OUT-R208", control.act, "promote", "digits-2").why


def test_a_wave_that_wants_approval_waits_for_it(control, on_v1):
    control.roll_out("v2", waves=["1", {"devices": 3, "approve": True}, "100%"])
    on_v1.run(12)
    shown = control.status("digits-2")
    assert (shown["status"], shown["verdict"], len(on_v1.trying(V2))) == ("paused", "pass", 1)
    assert (shown["waits_for"]["code"], shown["waits_for"]["wave"]) == ("OUT-R205", 2)
    refused("OUT-R205", control.act, "resume", "digits-2")
    assert control.act("approve", "digits-2", "seen")["wave"] == 2
    on_v1.run(30)
    assert control.status("digits-2")["status"] == "completed"
    assert ("rollout.wave", "eva", 1, 2, "seen") in said(control, "digits-2")


def test_a_first_wave_may_want_approval_too(control, on_v1):
    control.roll_out("v2", waves=[{"percent": 100, "approve": True}])
    on_v1.run(3)
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"], shown["waits_for"]["wave"]) == ("paused", 0, 1)
    assert control.act("approve", "digits-2")["status"] == "preparing"
    on_v1.run(20)
    assert control.status("digits-2")["status"] == "completed"


def test_what_does_not_wait_cannot_be_approved(control, on_v1):
    control.roll_out("v2", soak="1h")
    on_v1.run(2)
    error = refused("OUT-R204", control.act, "approve", "digits-2")
    assert error.why == "digits-2 does not wait for a person: it is running"


def test_resume_goes_on_although_nothing_was_proven(control, on_v1):
    break_everywhere(on_v1, V2)
    control.roll_out("v2", waves=["1", "100%"])
    on_v1.run(10)
    shown = control.status("digits-2")
    assert (shown["status"], shown["verdict"]) == ("paused", "inconclusive")
    assert shown["waits_for"]["code"] == "OUT-R213"
    break_everywhere(on_v1, None)
    control.act("resume", "digits-2", "the camera was broken")
    on_v1.run(2)
    assert control.status("digits-2")["wave"] == 2
    resumed = ("rollout.resumed", "eva", "paused", "running", "the camera was broken")
    assert resumed in said(control, "digits-2")


def test_a_rollout_past_its_deadline_asks_once_per_wave(control, on_v1):
    control.roll_out("v2", waves=["1", "100%"], soak="40 s", deadline="20 s")
    on_v1.run(25)
    shown = control.status("digits-2")
    assert (shown["status"], shown["why"]) == ("paused", "not completed after 20 s")
    control.act("resume", "digits-2")
    on_v1.run(10)
    assert control.status("digits-2")["status"] == "running"
    on_v1.run(20)
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"]) == ("paused", 2)


def test_a_running_rollout_cannot_be_resumed(control, on_v1):
    control.roll_out("v2", soak="1h")
    on_v1.run(2)
    refused("OUT-R204", control.act, "resume", "digits-2")


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "approve", "abort", "retry"])
def test_what_has_ended_cannot_be_moved(control, on_v1, verb):
    error = refused("OUT-R202", control.act, verb, "digits-1")
    assert error.why == "digits-1 is completed"
    if verb == "retry":
        assert error.do.endswith("outrider rollout start digits/v1")


# --- abort, retry -------------------------------------------------------------------------------


def test_an_abort_that_keeps_leaves_devices_with_what_they_run(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(10)
    tried = on_v1.trying(V2)
    shown = control.act("abort", "digits-2", "good enough for these", keep=True)
    assert (shown["status"], shown["kept"]) == ("aborted", True)
    on_v1.run(5)
    serving = on_v1.serving()
    assert {name for name, digest in serving.items() if digest == V2} == tried
    assert len(tried) == 3
    rollout = control.plan.rules[-1].rollout
    assert rollout is not None
    assert (rollout.id, rollout.wave.threshold) == ("digits-2", 0)
    control.roll_out("v3", to="site = a")
    on_v1.run(20)
    assert control.status("digits-3")["status"] == "completed"
    left = {name: d for name, d in on_v1.serving().items() if name.startswith("b")}
    assert set(left.values()) == {V1}
    assert not control.status("digits-2")["kept"]


def test_an_abort_before_the_first_wave_has_nothing_to_keep(control, on_v1):
    control.roll_out("v2")
    assert control.act("abort", "digits-2", keep=True)["kept"] is False
    on_v1.run(3)
    assert on_v1.all_serve(V1)
    assert len(control.plan.rules) == 1


def test_a_gate_that_keeps_aborts_without_return(control, on_v1):
    control.roll_out("v2", waves=["4", "100%"], on_failure="abort keep", error_condition=HASTY)
    on_v1.run(2)
    tried = sorted(on_v1.trying(V2))
    assert len(tried) == 4
    for name in tried[:2]:
        on_v1.devices[f"north-{name}"].bad = frozenset({V2})
    on_v1.run(12)
    shown = control.status("digits-2")
    assert (shown["status"], shown["verdict_id"], shown["kept"]) == (
        "aborted", "error_condition", True,
    )  # fmt: skip
    assert {name for name, digest in on_v1.serving().items() if digest == V2} == set(tried[2:])


def test_retry_lets_devices_that_gave_up_try_again(control, on_v1):
    break_everywhere(on_v1, V2)
    control.roll_out("v2", waves=["3", "100%"], on_failure="pause", error_condition=HASTY)
    on_v1.run(10)
    assert control.status("digits-2")["counts"]["rolled_back"] == 3
    break_everywhere(on_v1, None)
    shown = control.act("retry", "digits-2", "mended the camera")
    assert (shown["attempt"], shown["status"], shown["verdict"]) == (2, "paused", None)
    assert said(control, "digits-2")[-1] == (
        "rollout.retried", "eva", 1, 2, "mended the camera",
    )  # fmt: skip
    control.act("resume", "digits-2")
    on_v1.run(30)
    assert control.status("digits-2")["status"] == "completed"
    assert on_v1.all_serve(V2)


def test_retry_needs_somebody_who_gave_up(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(10)
    refused("OUT-R207", control.act, "retry", "digits-2")


# --- return -------------------------------------------------------------------------------------


def test_the_whole_fleet_returns_in_one_call_and_from_its_own_disk(control, on_v1):
    control.roll_out("v2")
    on_v1.run(10)
    assert on_v1.all_serve(V2)
    downloads = sum(device.downloads for device in on_v1.devices.values())
    shown = control.return_to("v1", why="glare")
    assert (shown["id"], shown["targeted"], len(shown["waves"])) == ("digits-3", 8, 1)
    on_v1.run(10)
    assert control.status("digits-3")["status"] == "completed"
    assert on_v1.all_serve(V1)
    assert sum(device.downloads for device in on_v1.devices.values()) == downloads
    assert [rule.stable for rule in control.plan.rules] == [V1]
    assert said(control, "digits-3")[0][4] == "glare"


def test_a_return_ends_what_is_under_way_for_the_same_devices(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="1h")
    on_v1.run(3)
    shown = operations.preview_return(
        control.store, MODEL, "v1", control.world.approvals, control.now_ms
    )
    assert (shown["targeted"], shown["supersedes"]) == (8, ["digits-2"])
    control.return_to("v1", expect_devices=8)
    ended = control.status("digits-2")
    assert (ended["status"], ended["superseded_by"]) == ("aborted", "digits-3")
    on_v1.run(10)
    assert on_v1.all_serve(V1)
    assert control.status("digits-3")["status"] == "completed"


def test_a_return_of_some_devices_leaves_the_others(control, on_v1):
    control.roll_out("v2")
    on_v1.run(10)
    control.return_to("v1", to="site = a")
    on_v1.run(10)
    serving = on_v1.serving()
    assert {name for name, digest in serving.items() if digest == V1} == {
        "a-1", "a-2", "a-3", "a-4",
    }  # fmt: skip


@pytest.mark.parametrize(
    "version, more, code",
    [
        ("v1", {}, "OUT-R203"),
        ("v1", {"to": "site = c"}, "OUT-R203"),
        ("v9", {}, "OUT-S110"),
        ("v2", {"expect_devices": 5}, "OUT-R206"),
    ],
)
def test_a_return_that_would_change_nothing_or_something_else_is_refused(
    control, on_v1, version, more, code
):
    refused(code, control.return_to, version, **more)
    assert control.store.rollouts.count() == 1


# --- what outlives rollouts ---------------------------------------------------------------------


def test_pins_outlive_rollouts_and_returns(control, on_v1):
    row = control.store.devices.need("a-1")
    control.store.devices.change(dataclasses.replace(row, pins={MODEL: Pin(V1)}), control.now_ms)
    control.roll_out("v2")
    on_v1.run(10)
    assert control.status("digits-2")["status"] == "completed"
    control.return_to("v3")
    on_v1.run(10)
    serving = on_v1.serving()
    assert serving.pop("a-1") == V1
    assert set(serving.values()) == {V3}
    document = control.store.devices.need("a-1")
    assert document.pins == {MODEL: Pin(V1)}
    assert TOPICS.document("north-a-1") in control.published


def test_what_a_device_denied_stays_denied_until_somebody_asks_again(control, on_v1):
    only = on_v1.devices["north-a-1"]
    only.bad = frozenset({V2})
    control.roll_out("v2", unproven="proceed", failure_limit="50 %")
    on_v1.run(12)
    assert control.status("digits-2")["status"] == "completed"
    only.bad = frozenset()
    on_v1.run(5)
    assert on_v1.serving()["a-1"] == V1
    assert V2 in only.notes
    control.roll_out("v3", to="site = b")
    on_v1.run(12)
    assert on_v1.serving()["a-1"] == V1
    assert V2 in only.notes
