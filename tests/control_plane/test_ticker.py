"""The ticker makes true what the store wants, also when it dies between any two of its effects.

Long because every scene needs the same world of fakes, and the scenes are the point.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from control_plane.rollout import operations
from control_plane.rollout.gate import replay
from control_plane.rollout.spec import read_spec
from control_plane.signing.adopt import Adopted
from control_plane.store import Store, connections
from control_plane.store.bundles import BundleRow
from control_plane.ticker import Ticker
from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.device import DeviceDocument, Pin
from protocol.errors import InvalidRequest
from protocol.plan import Denied, DenyList, Plan, PlanTerms
from protocol.topics import Topics
from tests.fakes.virtual_fleet import MODEL, VirtualDevice, approve, bundle

TOPICS = Topics("north")
V1, V2, V3 = (bundle(v) for v in ("v1", "v2", "v3"))
SECOND = 1000
HOUR = 3600 * SECOND


class Killed(BaseException):
    """kill -9: nothing catches it."""


@dataclass
class Death:
    """Kills at the n-th effect; each effect is counted before and after it happens."""

    at: int | None = None
    effects: int = 0

    def around(self, effect: Callable[[], Any]) -> Any:
        self._reach()
        result = effect()
        self._reach()
        return result

    def _reach(self) -> None:
        self.effects += 1
        if self.effects == self.at:
            raise Killed


@dataclass
class World:
    """What outlives the ticker: the repository's files and what the broker retains."""

    approvals: dict[str, ApprovedBundle] = field(default_factory=lambda: approve("v1", "v2", "v3"))
    signed: dict[str, tuple[bytes, PlanTerms]] = field(default_factory=dict)
    deny: bytes = b""
    timestamp: int = 0
    retained: dict[str, bytes] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)
    settled: bool = True
    death: Death = field(default_factory=Death)


class FakeRepository:
    def __init__(self, world: World) -> None:
        self.world = world
        self.adopted = Adopted({}, {})
        self.document_key = "key"

    def approvals(self):
        return self.world.approvals

    def roots(self):
        return {1: b"root"}

    def metadata(self):
        return {"timestamp": str(self.world.timestamp).encode()}

    def publish(self, plans, deny, now_ms):
        changed = (dict(plans), deny) != (self.world.signed, self.world.deny)

        def sign():
            self.world.signed, self.world.deny = dict(plans), deny
            self.world.timestamp += changed

        self.world.death.around(sign)
        return changed

    def sign_document(self, document):
        return codec.encode(document)

    def adopt_retained(self, retained, now_ms):
        return self.adopted


class FakePublisher:
    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def settled(self):
        return self.world.settled

    def keep(self, topic, data):
        self.world.death.around(lambda: self.world.retained.__setitem__(topic, data))

    def withdraw(self, topic):
        self.world.death.around(lambda: self.world.retained.pop(topic, None))

    def keep_metadata(self, roots, roles):
        for role, data in roles.items():
            self.keep(TOPICS.tuf(role), data)

    def offer(self, model, file, payloads):
        raise AssertionError("offers are another object's")


class FakeOffers:
    def __init__(self, world: World) -> None:
        self.world = world

    def offer(self, bundle, keeper, now_ms):
        self.world.death.around(lambda: self.world.offered.add(bundle))
        return True


@dataclass
class ControlPlane:
    path: Any
    world: World = field(default_factory=World)
    now_ms: int = 100 * 24 * HOUR
    listening_since_ms: int | None = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A new process: nothing is remembered but the store and the world."""
        self.store = Store(self.path)
        self.repository = FakeRepository(self.world)
        self.ticker = Ticker(
            "north",
            self.store,
            self.repository,
            FakePublisher(self.world),
            FakeOffers(self.world),
            listening_since_ms=lambda: self.listening_since_ms,
        )

    def tick(self, seconds: float = 1.0) -> None:
        self.now_ms += int(seconds * SECOND)
        self.ticker.tick(self.now_ms)

    def add_version(self, version: str) -> None:
        row = BundleRow(bundle(version), MODEL, version, 1000, self.now_ms, "approved")
        self.store.bundles.put(row)

    def roll_out(self, version: str, **body: Any) -> dict[str, Any]:
        spec = read_spec({"version": f"{MODEL}/{version}", **body})
        return operations.start_rollout(
            self.store,
            "north",
            spec,
            self.world.approvals,
            self.now_ms,
            lambda: "5a" * 16,
            who="eva",
        )

    def status(self, id: str) -> dict[str, Any]:
        return operations.status(self.store, id, self.now_ms)

    @property
    def plan(self) -> Plan:
        return codec.decode_signed(self.world.retained[TOPICS.plan(MODEL)], Plan, limit=65_536)

    @property
    def published(self) -> dict[str, bytes]:
        return dict(self.world.retained)


@dataclass
class Fleet:
    """Virtual devices below one control plane; documents and plans come off the broker."""

    control: ControlPlane
    devices: dict[str, VirtualDevice] = field(default_factory=dict)

    def enrol(self, *names: str, **labels: str) -> None:
        for name in names:
            row = self.control.store.devices.enrol(
                f"north-{name}", labels, None, self.control.now_ms
            )
            document = DeviceDocument("north", row.id, 0)
            self.devices[row.id] = VirtualDevice(document, trial_s=3)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.control.tick()
            self.step()

    def step(self) -> None:
        world, store = self.control.world, self.control.store
        data = world.retained.get(TOPICS.plan(MODEL))
        plan = codec.decode_signed(data, Plan, limit=65_536) if data else None
        for id, device in self.devices.items():
            topic = TOPICS.document(id)
            if device.linked and topic in world.retained:
                device.document = codec.decode_signed(
                    world.retained[topic], DeviceDocument, limit=16_384
                )
            state = device.step(plan, world.approvals, self.control.now_ms)
            if state is not None:
                store.devices.put_state(id, device.report(), self.control.now_ms)
                store.devices.contact(id, self.control.now_ms)

    def serving(self) -> dict[str, str | None]:
        return {id.partition("-")[2]: device.serving for id, device in self.devices.items()}

    def all_serve(self, digest: str) -> bool:
        return set(self.serving().values()) == {digest}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(connections, "SYNCHRONOUS", "OFF")


@pytest.fixture
def control(tmp_path):
    control = ControlPlane(tmp_path / "store.sqlite")
    for version in ("v1", "v2", "v3"):
        control.add_version(version)
    return control


@pytest.fixture
def fleet(control):
    fleet = Fleet(control)
    fleet.enrol("a-1", "a-2", "a-3", "a-4", site="a")
    fleet.enrol("b-1", "b-2", "b-3", "b-4", site="b")
    fleet.run(2)
    return fleet


@pytest.fixture
def on_v1(fleet):
    """A fleet on which v1 is stable everywhere."""
    fleet.control.roll_out("v1", waves=["1", "3", "100%"])
    fleet.run(30)
    assert fleet.control.status("digits-1")["status"] == "completed"
    assert fleet.all_serve(V1)
    return fleet


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
    control.roll_out("v3", waves=["3", "100%"], error_condition={"bad": "> 70 %"})
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
    rollout = operations.find(control.store, "digits-2")
    assert rollout.verdict is not None
    again = replay(rollout.spec, rollout.verdict["inputs"])
    recorded = {name: rollout.verdict[name] for name in ("verdict", "id", "sentence")}
    assert recorded == {"verdict": again.verdict, "id": again.id, "sentence": again.sentence}
    assert again.verdict == "fail"
    events = control.store.events.after(0, [rollout.topic], 500)
    assert [e.data["verdict"] for e in events if e.type == "rollout.verdict"][-1] == "fail"


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
    assert (shown["status"], shown["returning"]) == ("aborted", {"confirmed": 0, "of": 3})
    on_v1.run(5)
    assert on_v1.all_serve(V1)
    assert sum(device.downloads for device in on_v1.devices.values()) == downloads
    assert control.status("digits-2")["returning"] == {"confirmed": 3, "of": 3}


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


def test_a_retired_device_loses_its_document_and_is_missed_by_no_rollout(control, on_v1):
    control.roll_out("v2", waves=["3", "100%"], soak="40s", silent_after="15s")
    on_v1.run(10)
    activated = [id for id, device in on_v1.devices.items() if device.serving == V2]
    waiting = next(id for id, device in on_v1.devices.items() if device.serving == V1)
    for id in (activated[0], waiting):
        control.store.devices.retire(id, control.now_ms)
        del on_v1.devices[id]
    documents = {TOPICS.document(activated[0]), TOPICS.document(waiting)}
    assert documents <= control.published.keys()
    on_v1.run(20)
    assert not documents & control.published.keys()
    shown = control.status("digits-2")
    assert (shown["status"], shown["wave"]) == ("running", 1)
    assert (shown["counts"]["healthy"], shown["counts"]["silent"]) == (2, 0)
    on_v1.run(100)
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
    control.roll_out("v2", waves=["3", "100%"], soak="9h", silent_after="1h")
    on_v1.run(10)
    control.listening_since_ms = None
    control.tick(5 * 3600)
    assert control.status("digits-2")["counts"]["silent"] == 0
    control.listening_since_ms = control.now_ms
    control.tick(60)
    assert control.status("digits-2")["status"] == "running"
    control.tick(3600)
    shown = control.status("digits-2")
    assert (shown["status"], shown["counts"]["silent"]) == ("aborted", 3)


def test_a_new_attempt_lifts_what_devices_hold_against_a_version(control, on_v1):
    for device in on_v1.devices.values():
        device.bad = frozenset({V2})
    control.roll_out("v2", waves=["1", "100%"])
    on_v1.run(10)
    assert control.status("digits-2")["status"] == "aborted"
    for device in on_v1.devices.values():
        device.bad = frozenset()
    assert control.roll_out("v2", waves=["1", "100%"])["attempt"] == 2
    on_v1.run(30)
    assert on_v1.all_serve(V2)


# --- what is refused ----------------------------------------------------------------------------


def test_a_second_rollout_of_the_same_devices_is_refused(control, on_v1):
    control.roll_out("v2", waves=["1", "100%"], soak="1h")
    on_v1.run(2)
    with pytest.raises(InvalidRequest) as caught:
        control.roll_out("v3", to="site = a")
    assert (caught.value.code, caught.value.why) == (
        "OUT-R201",
        "4 of your 4 devices are in digits-2 (wave 1 of 2)",
    )


@pytest.mark.parametrize(
    "version, body, code, says",
    [
        ("v7", {}, "OUT-S110", "no version v7 of digits"),
        ("v1", {}, "OUT-R203", "8 devices match: 8 already there"),
        ("v2", {"to": "site = c"}, "OUT-R203", "0 devices match"),
        ("v2", {"to": "site ="}, "OUT-S101", "a value is missing after ="),
        ("v2", {"waves": ["3"]}, "OUT-S120", "waves"),
        ("draft", {}, "OUT-T104", "digits/draft is a draft"),
        ("revoked", {}, "OUT-T105", "digits/revoked was revoked"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(control, on_v1, version, body, code, says):
    for state in ("draft", "revoked"):
        control.store.bundles.put(BundleRow(bundle(state), MODEL, state, 1, 1, state))
    with pytest.raises(InvalidRequest) as caught:
        control.roll_out(version, **body)
    assert caught.value.code == code
    assert caught.value.why.startswith(says)


def test_a_misspelt_model_suggests_the_right_one(control, fleet):
    with pytest.raises(InvalidRequest) as caught:
        operations.preview(control.store, read_spec({"version": "digit/v1"}), {}, control.now_ms)
    assert (caught.value.why, caught.value.do) == ("no model named digit", "a similar name: digits")


@pytest.mark.parametrize(
    "verb, code",
    [
        (operations.pause, "OUT-R202"),
        (operations.resume, "OUT-R202"),
        (operations.abort, "OUT-R202"),
    ],
)
def test_what_has_ended_cannot_be_moved(control, on_v1, verb, code):
    with pytest.raises(InvalidRequest) as caught:
        verb(control.store, "digits-1", control.now_ms, who="eva")
    assert caught.value.code == code


def test_a_running_rollout_cannot_be_resumed(control, on_v1):
    control.roll_out("v2", soak="1h")
    on_v1.run(2)
    with pytest.raises(InvalidRequest, match="R204"):
        operations.resume(control.store, "digits-2", control.now_ms, who="eva")


def test_a_preview_changes_nothing_and_predicts_the_start(control, on_v1):
    events = control.store.events.span()
    spec = read_spec({"version": "digits/v2", "to": "site in (a, b)", "waves": ["3", "100%"]})
    shown = operations.preview(control.store, spec, control.world.approvals, control.now_ms)
    assert (shown["matched"], shown["targeted"], shown["over"]) == (8, 8, "v1")
    assert [wave["devices"] for wave in shown["waves"]] == [3, 8]
    assert control.store.events.span() == events


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
        control.roll_out("v2", waves=["1", "100%"])
        fleet.run({"wave": 6, "complete": 12, "abort": 4, "pin": 2}[which])
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
