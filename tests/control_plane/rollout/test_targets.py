"""Members follow documents: labels, pins, agents and devices that come and go during a rollout.

Long because every case needs the same fleet, and the cases are the point.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.fleet import grammar
from control_plane.rollout.phase import MAY_LEAVE, Counts
from control_plane.rollout.spec import RolloutSpec, ShadowSpec, WaveSpec
from control_plane.rollout.targets import as_member, choose, follow_changes
from control_plane.rollout.waves import Target, plan_waves, wave_of
from control_plane.store import Store, connections
from control_plane.store.bundles import BundleRow
from control_plane.store.rollouts import Rollout
from protocol.approval import ApprovedBundle
from protocol.bundle import Facts, Needs
from protocol.device import Pin, TransferWindow
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE, position
from protocol.reported import ModelState, Note, ReportedState
from protocol.selector import matches

V1, V2 = digest_of(b"v1"), digest_of(b"v2")
SALT = "5a" * 16
NOW = 1000 * 86_400_000
FACTS = Facts("x86_64", "1.20", 1_024_000_000, "0.1", "3.11", "linux")
BARE = ApprovedBundle("digits", "v2", V2)
APPROVALS = {V2: BARE}
SERVES = ModelState(current=V1, serving=V2, target=V2, phase="probation")
KEPT = ModelState(current=V2, serving=V2)
WAITS = ModelState(current=V1, serving=V1, target=V1, origin="stable")


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(connections, "SYNCHRONOUS", "OFF")


class Fleet:
    """Devices of two sites and a rollout to site a: one device first, then everyone."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store.sqlite")
        self.order = 0
        for version, digest in (("v1", V1), ("v2", V2)):
            self.store.bundles.put(BundleRow(digest, "digits", version, 1000, 1, "approved"))

    def enrol(self, *names: str, site: str = "a") -> None:
        for name in names:
            self.store.devices.enrol(f"north-{name}", {"site": site}, None, NOW)

    def says(self, name: str, model: ModelState | None = None, **more: Any) -> None:
        self.order += 1
        models = {"digits": model} if model is not None else {}
        state = ReportedState(self.order, "0.1", models=models, **more)
        self.store.devices.put_state(f"north-{name}", state, NOW)

    def start(self, holdback: int = 0, **spec: Any) -> None:
        wanted = RolloutSpec("digits", "v2", **{"to": "site = a", **spec})
        selector = grammar.parse(wanted.to)
        chosen = choose(self.store.devices.all(), selector, "digits", V2, Needs(), NOW)
        targets = [Target(device.id, device.selectable) for device in chosen.targets]
        sizes = (WaveSpec(devices=1), WaveSpec(percent=100))
        sequence = self.store.devices.sequence()
        rollout = Rollout(
            "digits-1", "digits", 1, 1, V2, V1, wanted, selector, SALT, sequence,
            plan_waves(sizes, targets, SALT, holdback), status="running", wave=1,
            looked=sequence, started_ms=NOW, holdback=holdback,
        )  # fmt: skip
        self.store.rollouts.put(rollout)
        joined = [as_member(rollout, device, NOW) for device in chosen.targets]
        self.store.rollouts.members.add(each for each in joined if each is not None)

    def change(self, name: str, **fields: Any) -> None:
        device = self.store.devices.need(name)
        self.store.devices.change(dataclasses.replace(device, **fields), NOW)

    def label(self, name: str, **labels: str) -> None:
        self.change(name, labels={**self.store.devices.need(name).labels, **labels})

    def pin(self, name: str, digest: str | None, until_ms: int | None = None) -> None:
        self.change(name, pins={"digits": Pin(digest, until_ms)} if digest else {})

    def follow(self, approvals=APPROVALS) -> None:
        looked = follow_changes(self.store, self.rollout, approvals, NOW)
        self.store.rollouts.put(dataclasses.replace(self.rollout, looked=looked))

    @property
    def rollout(self) -> Rollout:
        (found,) = self.store.rollouts.active()
        return found

    def at(self, name: str) -> Any:
        """Wave, phase and reason; None: it is no member."""
        member = self.store.rollouts.members.get("digits-1", f"north-{name}")
        return (member.wave, member.phase, member.reason) if member else None

    @property
    def all(self) -> Counts:
        found = Counts()
        for each in self.store.rollouts.members.counts("digits-1").values():
            found += each
        return found


@pytest.fixture
def fleet(tmp_path):
    it = Fleet(tmp_path)
    it.enrol("a-1", "a-2", "a-3", "a-4")
    it.enrol("b-1", "b-2", site="b")
    it.start()
    yield it
    it.store.close()


@pytest.fixture
def first(fleet):
    """The device of the first wave."""
    return min(("a-1", "a-2", "a-3", "a-4"), key=lambda name: position(SALT, f"north-{name}"))


@pytest.fixture
def second(fleet, first):
    return next(name for name in ("a-1", "a-2") if name != first)


def test_only_devices_that_the_selector_has_are_members(fleet, first):
    assert fleet.at(first) == (1, "targeted", None)
    assert fleet.at("b-1") is None
    assert fleet.all == Counts(targeted=4)


def test_a_device_that_is_enrolled_later_comes_with_everyone_and_is_no_control(fleet):
    fleet.enrol("a-9")
    fleet.follow()
    assert fleet.at("a-9") == (2, "targeted", None)
    assert not fleet.store.rollouts.members.get("digits-1", "north-a-9").bets


def test_labels_that_match_now_bring_a_device_in_with_everyone(fleet):
    fleet.label("b-1", site="a")
    fleet.follow()
    assert fleet.at("b-1") == (2, "targeted", None)


@pytest.mark.parametrize("model", [None, WAITS], ids=["never heard", "waiting"])
def test_labels_that_match_no_more_take_out_a_device_that_has_not_activated(fleet, first, model):
    if model is not None:
        fleet.says(first, model)
    fleet.label(first, site="b")
    fleet.follow()
    assert fleet.at(first) is None


@pytest.mark.parametrize(
    "model, phase",
    [
        (SERVES, "activated"),
        (KEPT, "healthy"),
        (dataclasses.replace(KEPT, committed_unexercised=True), "unexercised"),
        (ModelState(current=V1, notes={V2: Note("OUT-D310", activated=True, attempt=1)}),
         "rolled_back"),
        (ModelState(current=V1, notes={V2: Note("OUT-D301", definite=True, attempt=1)}), "failed"),
    ],
    ids=["activated", "healthy", "unexercised", "rolled back", "failed"],
)  # fmt: skip
@pytest.mark.parametrize("change", ["labels", "pin", "agent"])
def test_a_device_that_has_tried_stays_what_it_is_until_the_end(fleet, first, model, phase, change):
    fleet.says(first, model, facts=FACTS)
    if change == "labels":
        fleet.label(first, site="b")
    elif change == "pin":
        fleet.pin(first, V1)
    fleet.follow({V2: dataclasses.replace(BARE, terms=dataclasses.replace(
        BARE.terms, needs=Needs(ram_bytes=2 * FACTS.ram_bytes)))})  # fmt: skip
    wave, found, _ = fleet.at(first)
    assert (wave, found) == (1, phase)


def test_labels_that_still_match_move_a_device_to_everyone_and_keep_what_is_known_of_it(
    fleet, first
):
    staged = ModelState(current=V1, target=V2, rollout="digits-1", phase="staged")
    fleet.says(first, staged)
    fleet.label(first, floor="3")
    fleet.follow()
    member = fleet.store.rollouts.members.get("digits-1", f"north-{first}")
    assert (member.wave, member.phase, member.bets) == (2, "staged", False)


# --- pins -----------------------------------------------------------------------------------------


def test_a_pin_takes_a_device_out_and_its_end_brings_it_back_to_its_wave(fleet, first):
    fleet.pin(first, V1)
    fleet.follow()
    assert fleet.at(first) == (1, "excluded", "pinned")
    assert (fleet.all.all, fleet.all.excluded) == (3, 1)
    fleet.pin(first, None)
    fleet.follow()
    assert fleet.at(first) == (1, "targeted", None)
    assert fleet.store.rollouts.members.get("digits-1", f"north-{first}").bets


def test_a_pin_that_ends_by_itself_brings_the_device_back_once_it_heads_for_the_candidate(
    fleet, first
):
    fleet.pin(first, V1, NOW + 1000)
    fleet.follow()
    fleet.says(first, dataclasses.replace(WAITS, origin="pin"))
    assert fleet.at(first) == (1, "excluded", "pinned")
    fleet.says(first, ModelState(current=V1, target=V2, rollout="digits-1", phase="fetching"))
    assert fleet.at(first) == (1, "downloading", None)


def test_a_pin_at_the_device_is_told_by_the_device(fleet, first):
    fleet.says(first, dataclasses.replace(WAITS, origin="technician"))
    assert fleet.at(first) == (1, "excluded", "pinned")


@pytest.mark.parametrize("model, phase", [(SERVES, "activated"), (KEPT, "healthy")])
def test_a_pin_after_activation_hides_nothing_of_what_the_device_was(fleet, first, model, phase):
    fleet.says(first, model)
    fleet.pin(first, V1)
    fleet.follow()
    fleet.says(first, dataclasses.replace(WAITS, origin="pin"))
    assert fleet.at(first)[:2] == (1, phase)


# --- what a device cannot do ----------------------------------------------------------------------


WINDOW = TransferWindow(60, 120)


@pytest.mark.parametrize(
    "spec, features, why",
    [
        ({"maintenance_windows": (WINDOW,)}, ("plan/1",), "agent without maintenance windows"),
        ({"maintenance_windows": (WINDOW,)}, ("plan/1", "window/1"), None),
        ({"shadow": ShadowSpec()}, ("plan/1", "window/1"), "agent without shadow mode"),
        ({"shadow": ShadowSpec()}, ("plan/1", "shadow/1"), None),
        ({}, ("plan/1",), None),
        # It has not said what it knows.
        ({"shadow": ShadowSpec()}, (), None),
    ],
)
def test_an_agent_that_is_too_old_for_the_spec_is_excluded_and_comes_back_when_it_is_renewed(
    tmp_path, spec, features, why
):
    it = Fleet(tmp_path)
    it.enrol("a-1")
    it.start(**spec)
    it.says("a-1", WAITS, features=features, facts=FACTS)
    it.follow()
    assert it.at("a-1")[1:] == (("excluded", why) if why else ("targeted", None))
    newer = dataclasses.replace(FACTS, agent="0.2")
    it.says("a-1", WAITS, features=("plan/1", "shadow/1", "window/1"), facts=newer)
    it.follow()
    # What it says of itself changed its labels, so it comes with everyone.
    assert it.at("a-1") == (2, "targeted", None)
    it.store.close()


def test_a_device_that_turns_out_to_be_too_small_is_excluded(fleet, first):
    needs = dataclasses.replace(BARE.terms, needs=Needs(ram_bytes=2 * FACTS.ram_bytes))
    fleet.says(first, WAITS, facts=FACTS)
    fleet.follow({V2: dataclasses.replace(BARE, terms=needs)})
    assert fleet.at(first) == (2, "excluded", "too little RAM")


def test_who_has_the_candidate_already_is_a_target_only_where_that_is_wanted(fleet, first):
    fleet.says(first, KEPT)
    devices = fleet.store.devices.all()
    selector = grammar.parse("site = a")
    chosen = choose(devices, selector, "digits", V2, Needs(), NOW)
    assert (len(chosen.targets), chosen.excluded) == (3, {"already there": 1})
    chosen = choose(devices, selector, "digits", V2, Needs(), NOW, settled=True)
    assert (len(chosen.targets), chosen.excluded) == (4, {})


# --- devices that come and go ---------------------------------------------------------------------


def test_a_device_whose_hardware_is_replaced_begins_anew_in_its_place(fleet, first):
    fleet.says(first, KEPT)
    fleet.store.devices.certify(f"north-{first}", digest_of(b"new key"), NOW)
    fleet.follow()
    assert fleet.at(first) == (1, "healthy", None)
    fleet.says(first)
    assert fleet.at(first) == (1, "targeted", None)


def test_a_device_that_left_after_it_activated_and_was_reset_then_is_no_target(fleet, first):
    fleet.says(first, KEPT)
    fleet.label(first, site="b")
    fleet.follow()
    assert fleet.at(first) == (1, "healthy", None)
    fleet.says(first, WAITS)
    fleet.follow()
    assert fleet.at(first) is None


def test_a_new_attempt_asks_nobody_again_who_has_left_meanwhile(fleet, first, second):
    for name in (first, second):
        gave_up = {V2: Note("OUT-D301", definite=True, attempt=1)}
        fleet.says(name, ModelState(current=V1, notes=gave_up))
    fleet.label(first, site="b")
    fleet.follow()
    assert fleet.all == Counts(targeted=2, failed=2)
    assert fleet.store.rollouts.members.again("digits-1", NOW) == 2
    fleet.follow()
    assert fleet.at(first) is None
    assert fleet.all == Counts(targeted=3)


def test_a_retired_device_is_missed_by_no_count_and_its_replacement_is_a_new_device(fleet, first):
    fleet.says(first, KEPT)
    fleet.store.devices.retire(f"north-{first}", NOW)
    fleet.enrol("a-7")
    fleet.follow()
    assert fleet.at(first) is None
    assert fleet.at("a-7") == (2, "targeted", None)
    assert fleet.all == Counts(targeted=4)


def test_what_is_held_back_is_behind_the_last_wave(tmp_path):
    it = Fleet(tmp_path)
    names = [f"a-{n}" for n in range(10)]
    it.enrol(*names)
    by_place = sorted(names, key=lambda name: position(SALT, f"north-{name}"))
    it.start(holdback=EVERYONE - position(SALT, f"north-{by_place[-2]}"))
    assert [it.at(name)[0] for name in by_place] == [1] + [2] * 7 + [3] * 2
    it.label(by_place[-1], floor="3")
    it.follow()
    # Its labels changed: the hash no longer says where it is.
    assert it.at(by_place[-1])[0] == 2
    it.store.close()


# --- cost, and any sequence -----------------------------------------------------------------------


def test_it_looks_at_what_changed_and_at_nothing_else(fleet, first, monkeypatch):
    looked: list[str] = []

    def noted(selector, labels):
        looked.append(labels["id"])
        return matches(selector, labels)

    monkeypatch.setattr("control_plane.rollout.targets.matches", noted)
    fleet.follow()
    assert looked == []
    fleet.label("b-2", site="c")
    fleet.pin(first, V1)
    fleet.follow()
    assert looked == ["b-2", first]
    fleet.follow()
    assert len(looked) == 2


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["a-1", "a-2", "b-1"]),
        st.sampled_from(
            ["to a", "to b", "pin", "unpin", "serves", "kept", "wiped", "floor", "follow"]
        ),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=40)
@given(changes=CHANGES)
def test_members_are_what_documents_say_unless_they_have_tried(changes):
    with tempfile.TemporaryDirectory() as name:
        it = Fleet(Path(name))
        it.enrol("a-1", "a-2", "a-3")
        it.enrol("b-1", site="b")
        it.start()
        for number, (device, what) in enumerate(changes):
            match what:
                case "to a" | "to b":
                    it.label(device, site=what[-1])
                case "pin" | "unpin":
                    it.pin(device, V1 if what == "pin" else None)
                case "floor":
                    it.label(device, floor=str(number))
                case "follow":
                    it.follow()
                case _:
                    it.says(device, {"serves": SERVES, "kept": KEPT, "wiped": None}[what])
        it.follow()
        rollout = it.rollout
        for row in it.store.devices.all():
            member = it.store.rollouts.members.get("digits-1", row.id)
            if member is not None and member.phase not in MAY_LEAVE:
                continue
            late = row.since > rollout.as_of
            inside = row.labels["site"] == "a"
            assert (member is not None) == inside or _never_joined(row, member)
            if member is not None:
                wanted = wave_of(rollout.waves, SALT, row.id, row.selectable, late=late)
                assert (member.wave, bool(row.pins)) == (wanted, member.phase == "excluded")
        it.store.close()


def _never_joined(row, member) -> bool:
    """Pinned, or running the candidate, before it was ever a target."""
    settled = row.state is not None and row.state.models.get("digits") == KEPT
    return member is None and (bool(row.pins) or settled)
