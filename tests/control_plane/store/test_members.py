"""Counters are right after any sequence of operations, and time makes devices quiet and overdue.

Long because what reports do to members and what time does to them is one state.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rollout.evidence import Silence
from control_plane.rollout.phase import AHEAD, HEARD, PHASES, WATCHED, Counts
from control_plane.rollout.spec import RolloutSpec
from control_plane.rollout.waves import PlannedWave
from control_plane.store import Store, connections, migrations
from control_plane.store.bundles import BundleRow
from control_plane.store.members import Member
from control_plane.store.rollouts import Rollout
from control_plane.store.waiting import CAP_MS, Fell
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE
from protocol.plan import Wave
from protocol.reported import ModelState, Note, ReportedState

V1, V2 = digest_of(b"v1"), digest_of(b"v2")
HOUR = 3_600_000
NOW = 1000 * 24 * HOUR
SILENT = 3 * HOUR


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(connections, "SYNCHRONOUS", "OFF")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    with_versions(store)
    yield store
    store.close()


def with_versions(store: Store) -> None:
    for version, digest in (("v1", V1), ("v2", V2)):
        store.bundles.put(BundleRow(digest, "digits", version, 1000, 1, "approved"))


def start(store: Store, number: int = 1, wave: int = 1, **spec: Any) -> str:
    id = f"digits-{number}"
    waves = (PlannedWave(Wave(1), 1), PlannedWave(Wave(EVERYONE), 9))
    known = RolloutSpec("digits", "v2", **spec)
    store.rollouts.put(
        Rollout(
            id, "digits", number, number, V2, V1, known, None, "5a" * 16, 0, waves,
            status="running", wave=wave,
        )
    )  # fmt: skip
    return id


def end(store: Store, id: str) -> None:
    with store.write():
        store.rollouts.members.freeze(id)
        store.connection().execute("UPDATE rollout SET ended_ms = 5 WHERE id = ?", (id,))


def enrol(store: Store, *names: str, at_ms: int = NOW) -> list[str]:
    return [store.devices.enrol(f"north-{name}", {}, None, at_ms).id for name in names]


def join(store: Store, rollout: str, *devices: str, wave: int = 1, **more: Any) -> None:
    store.rollouts.members.add(
        Member(rollout, device, wave, **{"since_ms": NOW, **more}) for device in devices
    )


def says(store: Store, device: str, order: int, model: ModelState, now_ms: int = NOW) -> None:
    state = ReportedState(order, "0.1", models={"digits": model})
    store.devices.put_state(device, state, now_ms)


SERVES = ModelState(current=V1, serving=V2, target=V2, phase="probation")
KEPT = ModelState(current=V2, serving=V2)
FETCHES = ModelState(current=V1, target=V2, rollout="digits-1", phase="fetching")


# --- silence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_no_contact_is_silence_after_staging_and_no_link_before(store, phase):
    (device,) = enrol(store, "a")
    rollout = start(store)
    store.rollouts.members.sweep(NOW, NOW)
    join(store, rollout, device, phase=phase)
    swept = store.rollouts.members.sweep(NOW + SILENT, NOW)
    counts = store.rollouts.members.counts(rollout)[1]
    assert counts.silent == (phase in HEARD or phase == "silent")
    assert counts.unlinked == (phase in AHEAD)
    assert len(swept.fell) == (phase in WATCHED)
    assert store.rollouts.members.get(rollout, device).told == (
        "silent" if phase in HEARD else phase
    )


def test_who_had_the_candidate_before_and_is_away_has_not_fallen_silent_with_it(store):
    (device,) = enrol(store, "a", at_ms=NOW - 10 * 24 * HOUR)
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW - 20 * 24 * HOUR)
    join(store, rollout, device, phase="healthy")
    assert members.sweep(NOW + 9 * HOUR, NOW - 20 * 24 * HOUR).fell == ()
    assert members.counts(rollout) == {1: Counts(healthy=1)}
    store.devices.contact(device, NOW + 10 * HOUR)
    assert len(members.sweep(NOW + 10 * HOUR + CAP_MS, NOW).fell) == 1


def test_a_device_is_quiet_to_the_millisecond_after_its_allowance_and_no_longer_once_heard(store):
    (device,) = enrol(store, "a")
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, device, phase="activated")
    store.devices.contact(device, NOW + HOUR)
    assert members.sweep(NOW + HOUR + SILENT - 1, NOW).fell == ()
    swept = members.sweep(NOW + HOUR + SILENT, NOW)
    assert swept.fell == (Fell(rollout, device, 1, "a", "quiet", "activated", bets=True),)
    assert members.counts(rollout) == {1: Counts(silent=1)}
    assert members.sweep(NOW + 90 * HOUR, NOW).fell == ()
    store.devices.contact(device, NOW + 90 * HOUR)
    assert members.counts(rollout) == {1: Counts(activated=1)}


@pytest.mark.parametrize(
    "contacts, allowance",
    [
        pytest.param([0], SILENT, id="no gap is known"),
        pytest.param([0, HOUR], SILENT, id="a short one"),
        pytest.param([0, 10 * HOUR], 20 * HOUR, id="twice its longest"),
        pytest.param([0, 10 * HOUR, 11 * HOUR], 20 * HOUR, id="a shorter one after it"),
        pytest.param([0, 60 * HOUR], CAP_MS, id="at most 72 h"),
        pytest.param([0, 10 * HOUR, *range(11 * HOUR, 400 * HOUR, HOUR)], SILENT, id="long ago"),
        pytest.param(
            [0, 10 * HOUR, *range(11 * HOUR, 170 * HOUR, HOUR)], 20 * HOUR, id="last week"
        ),
    ],
)
def test_a_device_that_is_often_away_may_be_away_for_longer(store, contacts, allowance):
    (device,) = enrol(store, "a", at_ms=0)
    rollout = start(store)
    members = store.rollouts.members
    week = NOW - NOW % (7 * 24 * HOUR)
    members.listen(week)
    for contact in contacts:
        store.devices.contact(device, week + contact)
    last = week + contacts[-1]
    join(store, rollout, device, phase="activated", since_ms=last)
    assert members.sweep(last + allowance - 1, week).fell == ()
    assert len(members.sweep(last + allowance, week).fell) == 1


def test_a_longer_gap_gives_a_member_more_time_from_then_on(store):
    (device,) = enrol(store, "a")
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, device, phase="healthy")
    store.devices.contact(device, NOW + 1)
    for back in (NOW + 10 * HOUR, NOW + 29 * HOUR):
        store.devices.contact(device, back)
        members.sweep(back, NOW)
    assert members.sweep(NOW + 29 * HOUR + 38 * HOUR - 1, NOW).fell == ()
    assert len(members.sweep(NOW + 29 * HOUR + 38 * HOUR, NOW).fell) == 1


def test_nobody_falls_quiet_while_nobody_listens_and_allowances_begin_again_after_it(store):
    devices = enrol(store, "a", "b")
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, *devices, phase="activated")
    assert members.sweep(NOW + 50 * HOUR, None).fell == ()
    back = NOW + 50 * HOUR
    assert members.sweep(back, back).fell == ()
    store.devices.contact(devices[0], back + HOUR)
    assert members.sweep(back + SILENT - 1, back).fell == ()
    assert [each.device for each in members.sweep(back + SILENT, back).fell] == [devices[1]]
    # Time in which nobody listened is no habit of the device either.
    assert [each.device for each in members.sweep(back + HOUR + SILENT, back).fell] == [devices[0]]


def test_who_was_away_before_the_start_is_not_linked_from_the_start_and_has_not_fallen(store):
    devices = enrol(store, "a", "b", at_ms=NOW - 100 * HOUR)
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW - 100 * HOUR)
    store.devices.contact(devices[1], NOW - HOUR)
    join(store, rollout, *devices)
    assert members.counts(rollout) == {1: Counts(targeted=2, unlinked=1)}
    assert members.at_risk(rollout) == {1: 1}
    assert [f.device for f in members.sweep(NOW + 190 * HOUR, NOW - 100 * HOUR).fell] == devices[1:]


def test_who_comes_while_nobody_knows_since_when_anybody_listened_gets_a_whole_allowance(store):
    (device,) = enrol(store, "a", at_ms=NOW - 100 * HOUR)
    rollout = start(store)
    join(store, rollout, device)
    assert store.rollouts.members.counts(rollout) == {1: Counts(targeted=1)}


def test_silence_counts_on_both_sides_and_each_device_once(store):
    a, b, late, held = enrol(store, "a", "b", "late", "held")
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, a, phase="activated")
    join(store, rollout, b, wave=2)
    join(store, rollout, late, wave=2, bets=False)
    join(store, rollout, held, wave=3)
    store.devices.contact(held, NOW + HOUR)
    first = members.sweep(NOW + SILENT, NOW)
    assert [(each.device, each.side) for each in first.fell] == [(a, "a"), (b, "b"), (late, "b")]
    silence = Silence(1, 2, "ab", NOW + SILENT)
    assert first.silences() == ((rollout, 1, silence),)
    for device in (a, b):
        store.devices.contact(device, NOW + 4 * HOUR)
    again = members.sweep(NOW + 40 * HOUR, NOW)
    assert {each.device for each in again.fell} == {a, b, held}
    assert again.silences() == ((rollout, 1, Silence(0, 1, "b", NOW + 40 * HOUR)),)


def test_a_wave_is_compared_with_those_that_wait_and_not_with_those_before_it(store):
    first, second, third = enrol(store, "first", "second", "third")
    rollout = start(store, wave=2)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    for wave, device in enumerate((first, second, third), start=1):
        join(store, rollout, device, wave=wave, phase="healthy")
    swept = members.sweep(NOW + SILENT, NOW)
    assert [each.side for each in swept.fell] == ["a", "a", "b"]
    assert swept.silences() == ((rollout, 2, Silence(1, 1, "ab", NOW + SILENT)),)


def test_before_the_first_wave_nobody_bets(store):
    devices = enrol(store, "a", "b")
    rollout = start(store, wave=0)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, *devices)
    swept = members.sweep(NOW + SILENT, NOW)
    assert len(swept.fell) == 2
    assert swept.silences() == ()


def test_a_sweep_is_bounded_goes_by_time_and_says_that_there_is_more(store):
    devices = enrol(store, *"abcde")
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, *devices, phase="staged")
    for minute, device in enumerate(reversed(devices), start=1):
        store.devices.contact(device, NOW + minute)
    now_ms = NOW + 9 * HOUR
    # Due times from before the contacts are put off first: each costs a look.
    found = [members.sweep(now_ms, NOW, limit=2) for _ in range(8)]
    assert [each.device for swept in found for each in swept.fell] == devices[::-1]
    assert max(len(swept.fell) for swept in found) <= 2
    assert found[0].more
    assert not found[-1].more


def test_an_ended_rollout_keeps_what_was_true_at_its_end(store):
    a, b, c = enrol(store, "a", "b", "c")
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, a, b, phase="activated")
    join(store, rollout, c)
    for device in (a, c):
        store.devices.contact(device, NOW + 3 * HOUR)
    members.sweep(NOW + 4 * HOUR, NOW)
    end(store, rollout)
    kept = {1: Counts(targeted=1, activated=1, silent=1)}
    assert members.counts(rollout) == kept
    says(store, a, 1, KEPT)
    store.devices.contact(b, NOW + 5 * HOUR)
    assert members.sweep(NOW + 500 * HOUR, NOW).fell == ()
    assert members.counts(rollout) == kept
    assert [each.device for each in members.of(rollout, ["silent"])] == [b]


# --- in_progress_timeout --------------------------------------------------------------------------


def heard_until(store: Store, device: str, until_ms: int) -> None:
    for at_ms in range(NOW + HOUR, until_ms + 1, HOUR):
        store.devices.contact(device, at_ms)
        store.rollouts.members.sweep(at_ms, NOW)


def test_who_comes_to_no_end_in_time_counts_as_failed_until_it_does(store):
    (device,) = enrol(store, "a")
    rollout = start(store, in_progress_timeout_s=6 * 3600)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, device)
    says(store, device, 1, FETCHES)
    heard_until(store, device, NOW + 5 * HOUR)
    assert members.counts(rollout) == {1: Counts(downloading=1)}
    store.devices.contact(device, NOW + 6 * HOUR)
    swept = members.sweep(NOW + 6 * HOUR, NOW)
    assert [(each.device, each.what) for each in swept.fell] == [(device, "overdue")]
    assert swept.silences() == ()
    assert members.reasons(rollout) == {"OUT-R211": 1}
    says(store, device, 2, SERVES)
    assert members.counts(rollout) == {1: Counts(failed=1)}
    says(store, device, 3, KEPT)
    assert members.counts(rollout) == {1: Counts(healthy=1)}
    assert members.reasons(rollout) == {}


def test_phases_on_the_way_share_one_time_limit(store):
    (device,) = enrol(store, "a")
    rollout = start(store, in_progress_timeout_s=6 * 3600)
    store.rollouts.members.sweep(NOW, NOW)
    join(store, rollout, device)
    says(store, device, 1, FETCHES)
    heard_until(store, device, NOW + 4 * HOUR)
    says(store, device, 2, SERVES, NOW + 4 * HOUR)
    heard_until(store, device, NOW + 6 * HOUR)
    assert store.rollouts.members.counts(rollout) == {1: Counts(failed=1)}


@pytest.mark.parametrize("phase", ["targeted", "healthy", "unexercised"])
def test_who_has_not_begun_or_has_ended_is_never_overdue(store, phase):
    (device,) = enrol(store, "a")
    rollout = start(store, in_progress_timeout_s=3600)
    store.rollouts.members.sweep(NOW, NOW)
    join(store, rollout, device, phase=phase)
    heard_until(store, device, NOW + 9 * HOUR)
    assert getattr(store.rollouts.members.counts(rollout)[1], phase) == 1


def test_a_device_that_was_away_has_its_time_again(store):
    (device,) = enrol(store, "a")
    rollout = start(store, in_progress_timeout_s=6 * 3600)
    members = store.rollouts.members
    members.sweep(NOW, NOW)
    join(store, rollout, device, phase="reached")
    members.sweep(NOW + 4 * HOUR, NOW)
    assert members.counts(rollout) == {1: Counts(reached=1, unlinked=1)}
    assert members.sweep(NOW + 50 * HOUR, NOW).fell == ()
    back = NOW + 50 * HOUR
    for hour in range(6):
        store.devices.contact(device, back + hour * HOUR)
        assert members.sweep(back + hour * HOUR, NOW).fell == ()
    assert [each.what for each in members.sweep(back + 6 * HOUR, NOW).fell] == ["overdue"]


def test_without_a_time_limit_nobody_is_overdue(store):
    (device,) = enrol(store, "a")
    rollout = start(store)
    store.rollouts.members.sweep(NOW, NOW)
    join(store, rollout, device, phase="reached")
    heard_until(store, device, NOW + 100 * HOUR)
    assert store.rollouts.members.counts(rollout) == {1: Counts(reached=1)}


# --- who is in, and why ---------------------------------------------------------------------------


def test_a_new_attempt_asks_those_again_who_gave_up_and_nobody_else(store):
    names = enrol(store, *"abcde")
    rollout = start(store)
    phases = ("failed", "rolled_back", "refused", "healthy", "targeted")
    for device, phase in zip(names, phases, strict=True):
        join(store, rollout, device, phase=phase, reason="OUT-D301")
    assert store.rollouts.members.again(rollout, NOW) == 2
    assert store.rollouts.members.counts(rollout) == {1: Counts(targeted=3, refused=1, healthy=1)}
    assert store.rollouts.members.reasons(rollout) == {"OUT-D301": 1}


def test_a_retired_device_is_in_no_rollout_that_goes_on_and_stays_in_those_that_ended(store):
    a, b = enrol(store, "a", "b")
    old, new = start(store, 1), start(store, 2)
    for rollout in (old, new):
        join(store, rollout, a, b, phase="healthy")
    end(store, old)
    store.devices.retire(a, NOW)
    assert store.rollouts.members.counts(old) == {1: Counts(healthy=2)}
    assert store.rollouts.members.counts(new) == {1: Counts(healthy=1)}


def test_devices_overlap_that_another_rollout_may_change(store):
    a, b, c, d = enrol(store, *"abcd")
    rollout = start(store)
    join(store, rollout, a, b)
    join(store, rollout, c, phase="excluded", reason="pinned")
    assert store.rollouts.members.overlap(rollout, [d, c, b, a, a]) == 2
    assert store.rollouts.members.overlap(rollout, []) == 0


def test_who_had_activated_is_back_once_it_serves_something_else(store):
    a, b, c, d = enrol(store, *"abcd")
    rollout = start(store)
    join(store, rollout, a, b, c)
    join(store, rollout, d, wave=2)
    for device in (a, b, c):
        says(store, device, 1, SERVES)
    end(store, rollout)
    assert store.rollouts.members.returned(rollout) == (0, 3)
    says(store, a, 2, ModelState(current=V1, serving=V1))
    assert store.rollouts.members.returned(rollout) == (1, 3)
    store.devices.retire(b, NOW)
    assert store.rollouts.members.returned(rollout) == (1, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda members: members.counts("digits-1"),
        lambda members: members.at_risk("digits-1"),
        lambda members: members.sweep(NOW + 1, NOW),
        lambda members: members.contact("north-d1", NOW),
        lambda members: members.moved("north-d1", ReportedState(1, "0.1"), NOW),
        lambda members: members.leave("north-d1"),
        lambda members: members.reasons("digits-1"),
        lambda members: members.overlap("digits-1", ["north-d1"]),
    ],
    ids=["counts", "at_risk", "sweep", "contact", "moved", "leave", "reasons", "overlap"],
)
def test_what_is_called_all_the_time_costs_the_same_in_a_larger_fleet(store, call):
    rollout = start(store)
    members = store.rollouts.members
    members.sweep(NOW, NOW)

    def work(size: int) -> int:
        known = store.devices.count()
        names = enrol(store, *(f"d{n}" for n in range(known, size)))
        join(store, rollout, *names)
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        store.connection().set_progress_handler(count, 1)
        call(members)
        store.connection().set_progress_handler(None, 1)
        return steps

    work(50)
    assert work(1000) <= work(50) + 20


def test_members_from_before_there_were_counters_are_counted_and_looked_at(tmp_path):
    path = tmp_path / "store.sqlite"
    earlier = [each for each in migrations.known() if each[0] < "m0010"]
    store = Store(path, changes=earlier)
    with_versions(store)
    with store.write() as connection:
        for name in "ab":
            connection.execute(
                "INSERT INTO device (id, local, labels, version, since, changed, pins, allow, "
                "settings, enrolled_ms) VALUES (?, ?, '{}', 1, 1, 1, '{}', '{}', '{}', ?)",
                (f"north-{name}", name, NOW),
            )
        for number, ended_ms in ((1, 5), (2, None)):
            connection.execute(
                "INSERT INTO rollout (id, model, number, attempt, candidate, spec, salt, as_of, "
                "waves, excluded, status, looked, started_ms, ended_ms) VALUES (?, 'digits', ?, "
                "1, ?, '{\"silent_after_s\":3600}', '', 0, '[]', '{}', 'running', 0, 0, ?)",
                (f"digits-{number}", number, V2, ended_ms),
            )
            for name, phase in (("a", "activated"), ("b", "failed")):
                connection.execute(
                    "INSERT INTO member VALUES (?, ?, 1, ?, ?, NULL)",
                    (f"digits-{number}", f"north-{name}", phase, NOW),
                )
    store.close()
    store = Store(path)
    members = store.rollouts.members
    for rollout in ("digits-1", "digits-2"):
        assert members.counts(rollout) == {1: Counts(activated=1, failed=1)}
    assert members.sweep(NOW + HOUR - 1, NOW).fell == ()
    (fell,) = members.sweep(NOW + HOUR, NOW).fell
    assert (fell.rollout, fell.device, fell.what) == ("digits-2", "north-a", "quiet")
    store.close()


# --- any sequence of operations -------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
DEVICES = st.sampled_from([f"north-{name}" for name in NAMES])
ROLLOUTS = st.sampled_from(["digits-1", "digits-2"])
MODELS = st.sampled_from(
    [
        ModelState(current=V1, serving=V1),
        ModelState(current=V1, target=V1, origin="pin"),
        FETCHES,
        SERVES,
        KEPT,
        ModelState(current=V1, notes={V2: Note("OUT-D310", definite=True, attempt=2)}),
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("join"), ROLLOUTS, DEVICES, st.integers(1, 3), st.booleans()),
    st.tuples(st.just("remove"), ROLLOUTS, DEVICES),
    st.tuples(st.just("place"), ROLLOUTS, DEVICES, st.integers(1, 3)),
    st.tuples(st.just("exclude"), ROLLOUTS, DEVICES),
    st.tuples(st.just("again"), ROLLOUTS),
    st.tuples(st.just("says"), DEVICES, MODELS),
    st.tuples(st.just("contact"), DEVICES),
    st.tuples(st.just("retire"), DEVICES),
    st.tuples(st.just("wait"), st.integers(1, 9)),
    st.tuples(st.just("sweep"), st.integers(1, 9)),
    st.tuples(st.just("deaf")),
    st.tuples(st.just("end"), ROLLOUTS),
)


class Scene:
    """A store under operations. `restarts`: it is closed and opened between any two of them."""

    def __init__(self, folder: Path, *, restarts: bool) -> None:
        self.path, self.restarts = folder / "store.sqlite", restarts
        self.store = Store(self.path)
        with_versions(self.store)
        enrol(self.store, *NAMES)
        start(self.store, 1, in_progress_timeout_s=5 * 3600)
        start(self.store, 2, wave=2)
        self.now_ms, self.since_ms, self.order = NOW, NOW, 0
        self.store.rollouts.members.listen(NOW)

    def do(self, what: str, *args: Any) -> object:
        if self.restarts:
            self.store.close()
            self.store = Store(self.path)
        self.now_ms += 60_000
        return getattr(self, f"_{what}")(*args)

    def _join(self, rollout, device, wave, late):
        if rollout in [each.id for each in self.store.rollouts.active()]:
            more = {"bets": not late, "since_ms": self.now_ms}
            join(self.store, rollout, device, wave=wave, **more)

    def _remove(self, rollout, device):
        self.store.rollouts.members.remove(rollout, device)

    def _place(self, rollout, device, wave):
        self.store.rollouts.members.place(rollout, device, wave)

    def _exclude(self, rollout, device):
        self.store.rollouts.members.exclude(rollout, device, "pinned", self.now_ms)

    def _again(self, rollout):
        self.store.rollouts.members.again(rollout, self.now_ms)

    def _says(self, device, model):
        self.order += 1
        state = ReportedState(self.order, "0.1", models={"digits": model})
        self.store.devices.put_state(device, state, self.now_ms)

    def _contact(self, device):
        self.store.devices.contact(device, self.now_ms)

    def _retire(self, device):
        self.store.devices.retire(device, self.now_ms)

    def _wait(self, hours):
        self.now_ms += hours * HOUR

    def _sweep(self, limit):
        return self.store.rollouts.members.sweep(self.now_ms, self.since_ms, limit)

    def _deaf(self):
        self.store.rollouts.members.sweep(self.now_ms, None)
        self.since_ms = self.now_ms = self.now_ms + HOUR

    def _end(self, rollout):
        end(self.store, rollout)

    def rows(self, table: str) -> list[tuple[object, ...]]:
        return self.store.connection().execute(f"SELECT * FROM {table}").fetchall()

    def brute_force(self, rollout: str) -> dict[int, Counts]:
        found: dict[int, dict[str, int]] = {}
        members = sorted(self.store.rollouts.members.of(rollout), key=lambda m: m.wave)
        for wave, group in itertools.groupby(members, key=lambda m: m.wave):
            mine = found.setdefault(wave, {})
            for member in group:
                mine[member.told] = mine.get(member.told, 0) + 1
                if member.quiet and member.phase in AHEAD:
                    mine["unlinked"] = mine.get("unlinked", 0) + 1
        return {wave: Counts(**numbers) for wave, numbers in found.items()}

    def check(self) -> None:
        counted = self.store.connection().execute(
            "SELECT rollout, wave, phase, quiet, bets, n FROM phase_count WHERE n > 0"
        )
        grouped = self.store.connection().execute(
            "SELECT rollout, wave, phase, quiet, bets, count(*) FROM member GROUP BY 1, 2, 3, 4, 5"
        )
        assert sorted(counted) == sorted(grouped)
        for rollout in ("digits-1", "digits-2"):
            assert self.store.rollouts.members.counts(rollout) == self.brute_force(rollout)
        # Whoever time may change will be looked at, and not too late. Who came while nobody knew
        # since when anybody listened has a whole allowance from then on.
        forgotten = self.store.connection().execute(
            f"""
            SELECT m.* FROM member m JOIN device d ON d.id = m.device
            JOIN rollout r ON r.id = m.rollout AND r.ended_ms IS NULL
            WHERE m.quiet = 0 AND m.phase IN ({", ".join(f"'{phase}'" for phase in WATCHED)})
              AND coalesce(m.due_ms, 9e15) >
                  max(coalesce(d.last_contact_ms, d.enrolled_ms), m.since_ms, ?)
                  + m.allowance_ms
            """,
            (self.since_ms,),
        )
        assert forgotten.fetchall() == []

    def finish(self) -> None:
        """Let time do all that it would."""
        while self._sweep(1).more:
            pass

    def close(self) -> None:
        self.store.close()


@pytest.fixture(scope="module")
def blank():
    """A store that is made once: migrations take longer than the scenes."""
    with tempfile.TemporaryDirectory() as name:
        Scene(Path(name), restarts=False).close()
        yield Path(name) / "store.sqlite"


def scene(blank: Path, name: str, *, restarts: bool = False) -> Scene:
    made = Scene.__new__(Scene)
    made.path, made.restarts = Path(name) / "store.sqlite", restarts
    shutil.copy(blank, made.path)
    made.store = Store(made.path)
    made.now_ms, made.since_ms, made.order = NOW, NOW, 0
    return made


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEPS, max_size=25))
def test_counters_equal_a_count_of_all_members_after_every_operation(blank, steps):
    with tempfile.TemporaryDirectory() as name:
        it = scene(blank, name)
        for each in steps:
            it.do(*each)
            it.check()
        it.close()


@settings(deadline=None, max_examples=25)
@given(steps=st.lists(STEPS, max_size=15))
def test_restarting_between_any_two_operations_changes_nothing(blank, steps):
    ends = []
    for restarts in (False, True):
        with tempfile.TemporaryDirectory() as name:
            it = scene(blank, name, restarts=restarts)
            for each in steps:
                it.do(*each)
            ends.append([it.rows(table) for table in ("member", "phase_count", "device")])
            it.close()
    assert ends[0] == ends[1]


@settings(deadline=None, max_examples=25)
@given(steps=st.lists(STEPS, max_size=15), hours=st.integers(0, 30))
def test_sweeps_of_any_size_come_to_the_same_end(blank, steps, hours):
    ends = []
    for limit in (1, 1000):
        with tempfile.TemporaryDirectory() as name:
            it = scene(blank, name)
            for what, *args in steps:
                it.do(what, *((limit,) if what == "sweep" else args))
                if what == "sweep":
                    it.finish()
            it.now_ms += hours * HOUR
            it.finish()
            ends.append(it.rows("member"))
            it.close()
    assert ends[0] == ends[1]
