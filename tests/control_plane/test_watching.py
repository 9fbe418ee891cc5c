import json
from dataclasses import replace

import numpy as np
import pytest

from control_plane.drift import record
from control_plane.drift.alarms import RUNS_NO_MORE, WATCH, resolve, snooze
from control_plane.store import Store
from tests.fakes.watched import HOUR_MS, WatchedFleet

BURN_IN_H = 62
FAR = (1.5, 0, 0)
OFF = (0.8, 0, 0)
"""Plain beside its peers, and too little for a detector that still learns what is usual."""


@pytest.fixture
def store(tmp_path):
    kept = Store(tmp_path / "store.sqlite")
    yield kept
    kept.close()


def replayed(fleet, alarm):
    """The newest record of an alarm, computed again as `drift explain` does."""
    kept = fleet.store.alarms.record(alarm.id)
    body = json.loads(kept.body)
    asked = record.query_of(body)
    rows = fleet.store.drift.within(
        fleet.manifest, fleet.digest, asked.from_ms, asked.to_ms, devices=asked.devices
    )
    return record.replay(body, rows, fleet.profile)


def opened(fleet):
    (alarm,) = fleet.store.alarms.open()
    return alarm


def told(alarm):
    return alarm.verdict, alarm.subject, alarm.kind


def test_a_fleet_in_which_nothing_drifts_has_no_alarms(store):
    fleet = WatchedFleet(store, rows=100)
    fleet.hour(30)
    assert fleet.alarms == []
    assert fleet.events() == []


def test_one_device_unlike_its_peers_is_a_broken_sensor(store):
    fleet = WatchedFleet(store)
    fleet.hour(2)
    fleet.shifted["cam-3"] = OFF
    fleet.hour(5)
    alarm = opened(fleet)
    assert told(alarm) == ("sensor broken", "north-cam-3", "peer")
    assert alarm.sentence.startswith("sensor broken on device cam-3: temperature (2 of the last 3")
    assert [each.name for each in alarm.features] == ["temperature"]
    assert fleet.events() == ["alarm.opened"]
    assert replayed(fleet, alarm).same


def test_an_alarm_opens_with_its_record_in_one_transaction(store, monkeypatch):
    fleet = WatchedFleet(store)
    fleet.shifted["cam-3"] = OFF

    def killed(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(store, "happened", killed)
        with pytest.raises(KeyboardInterrupt):
            fleet.hour(8)
    assert store.alarms.open() == ()
    assert store.connection().execute("SELECT count(*) FROM alarm_record").fetchone() == (0,)
    fleet.settle()
    alarm = opened(fleet)
    kept = store.alarms.record(alarm.id)
    assert kept.digest == alarm.evidence
    assert (kept.number, json.loads(kept.body)["previous"]) == (1, "")
    noted = store.audit.page().items[0]
    assert (noted.who, noted.what, noted.about, noted.evidence) == (
        WATCH, "alarm.opened", f"alarms/{alarm.id}", alarm.evidence,
    )  # fmt: skip


def test_a_step_that_breaks_off_is_gone_on_with(store, monkeypatch):
    fleet = WatchedFleet(store, many=6)
    fleet.hour(6, settle=False)

    def killed(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(store.drift, "set_mark", killed)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                fleet.watch.step()
    assert store.drift.judged_in(fleet.manifest, fleet.digest, START + 1) == frozenset()
    fleet.watch = fleet.another_watch()
    fleet.settle()
    assert len(store.drift.judged_in(fleet.manifest, fleet.digest, START + 1)) == 6


START = 500_000 - 500_000 % 24


def test_a_slot_waits_for_its_grace(store):
    fleet = WatchedFleet(store, many=6)

    def judged(slot):
        return len(store.drift.judged_in(fleet.manifest, fleet.digest, slot))

    fleet.hour(2)
    assert judged(START) == 0
    fleet.clock[0] += HOUR_MS - 1
    fleet.settle()
    assert judged(START) == 0
    fleet.clock[0] += 1
    fleet.settle()
    assert (judged(START), judged(START + 1)) == (6, 0)


def test_late_windows_are_judged_once_against_the_pool_of_their_hour(store):
    fleet = WatchedFleet(store)
    fleet.silent = {"cam-3"}
    fleet.hour(6)
    began = fleet.clock[0] - 5 * HOUR_MS
    slot = began // HOUR_MS
    assert "north-cam-3" not in store.drift.judged_in(fleet.manifest, fleet.digest, slot)
    fleet.shifted["cam-3"] = OFF
    for number in range(2):
        fleet.count("cam-3", began + number * HOUR_MS)
    before = store.drift.judged(fleet.manifest, fleet.digest, "north-cam-1", 3)
    fleet.settle()
    assert fleet.alarms == []
    fleet.shifted.clear()
    fleet.hour(24)
    assert "north-cam-3" in store.drift.judged_in(fleet.manifest, fleet.digest, slot)
    assert before[0] in store.drift.judged(fleet.manifest, fleet.digest, "north-cam-1", 100)
    assert fleet.alarms == [("sensor broken", "north-cam-3", "open")]


def test_a_block_that_is_longer_than_two_slots_is_compared_with_nobody(store):
    fleet = WatchedFleet(store, many=6)
    fleet.silent = {"cam-3"}
    fleet.hour(4, settle=False)
    fleet.count("cam-3", fleet.clock[0] - 4 * HOUR_MS, 4 * HOUR_MS)
    fleet.hour(4)
    judged = store.drift.judged(fleet.manifest, fleet.digest, "north-cam-3", 10)
    assert judged == ()


def test_a_device_that_heals_resolves_its_alarm_by_itself(store):
    fleet = WatchedFleet(store)
    fleet.shifted["cam-3"] = OFF
    fleet.hour(6)
    assert fleet.alarms == [("sensor broken", "north-cam-3", "open")]
    fleet.shifted.clear()
    fleet.hour(10)
    assert fleet.alarms == [("sensor broken", "north-cam-3", "resolved")]
    assert fleet.events() == ["alarm.opened", "alarm.resolved"]


def test_a_version_that_runs_no_more_resolves_its_alarms(store):
    fleet = WatchedFleet(store)
    fleet.shifted["cam-3"] = OFF
    fleet.hour(6)
    fleet.serve("cam-3", fleet.push("v2"))
    fleet.settle()
    (alarm,) = store.alarms.resolved_since(0)
    assert (alarm.by, alarm.why) == (WATCH, RUNS_NO_MORE)


def test_another_version_of_the_same_variant_is_no_other_to_its_alarms(store):
    fleet = WatchedFleet(store)
    fleet.shifted["cam-3"] = OFF
    fleet.hour(6)
    again = fleet.push("v2", same=True)
    for name in fleet.names:
        fleet.serve(name, again)
    fleet.hour()
    assert opened(fleet).number == 1


def test_a_snooze_ends_by_itself(store):
    fleet = WatchedFleet(store)
    fleet.shifted["cam-3"] = OFF
    fleet.hour(6)
    until = fleet.clock[0] + 90 * 60_000
    store.alarms.put(snooze(opened(fleet), until, "ana", "", fleet.clock[0]))
    fleet.hour()
    assert opened(fleet).state == "snoozed"
    fleet.hour()
    assert opened(fleet).state == "open"
    assert fleet.events()[-1] == "alarm.reopened"


def test_what_a_person_resolved_opens_again_when_it_is_seen_twice(store):
    fleet = WatchedFleet(store)
    fleet.shifted["cam-3"] = OFF
    fleet.hour(6)
    store.alarms.put(resolve(opened(fleet), "ana", "", fleet.clock[0]))
    fleet.hour()
    assert store.alarms.open() == ()
    fleet.hour()
    assert opened(fleet).number == 2


def test_two_devices_of_one_fault_are_two_alarms(store):
    fleet = WatchedFleet(store)
    for name in ("cam-3", "cam-8"):
        fleet.shifted[name] = OFF
    fleet.hour(6)
    assert [subject for _, subject, _ in fleet.alarms] == ["north-cam-3", "north-cam-8"]


def test_twelve_of_sixteen_are_one(store):
    fleet = WatchedFleet(store)
    fleet.hour(BURN_IN_H)
    for number in range(12):
        fleet.shifted[f"cam-{number}"] = FAR
    fleet.hour(8)
    assert fleet.alarms == [("cohort drifted", "all", "open")]
    assert replayed(fleet, opened(fleet)).same


def test_a_cohort_that_moved_as_a_whole_is_found_by_its_day(store):
    """Too little for a detector within the day, and no peer is another than the rest."""
    fleet = WatchedFleet(store, rows=60, sites=2, many=24)
    store.drift.set_terms(1.0, "site", fleet.clock[0])
    for number in range(1, 24, 2):
        fleet.shifted[f"cam-{number}"] = (0.35, 0, 0)
    fleet.hour(26, settle=False)
    fleet.settle()
    assert fleet.alarms == [("cohort drifted", "site=b", "open")]
    alarm = opened(fleet)
    assert alarm.sentence.startswith("cohort site=b drifted: temperature, PSI .")
    assert replayed(fleet, alarm).same


def test_half_a_cohort_that_moved_is_one_alarm_and_no_broken_sensor(store):
    fleet = WatchedFleet(store, rows=60, many=26)
    for number in range(13):
        fleet.shifted[f"cam-{number}"] = (0.6, 0, 0)
    fleet.hour(26, settle=False)
    fleet.settle()
    # Whoever fired before the others had an alarm of its own, which ends.
    fleet.hour(4)
    alarm = opened(fleet)
    assert told(alarm) == ("half of the cohort drifted", "all", "part")
    assert not any(verdict == "sensor broken" for verdict, _, _ in fleet.alarms)
    assert "13 of 26 devices, temperature" in alarm.sentence
    assert replayed(fleet, alarm).same


def test_a_cohort_alarm_ends_when_its_label_is_asked_for_no_more(store):
    fleet = WatchedFleet(store, rows=60, sites=2, many=24)
    store.drift.set_terms(1.0, "site", fleet.clock[0])
    for number in range(1, 24, 2):
        fleet.shifted[f"cam-{number}"] = (0.35, 0, 0)
    fleet.hour(26, settle=False)
    fleet.settle()
    fleet.shifted.clear()
    store.drift.set_terms(1.0, None, fleet.clock[0])
    fleet.hour(24, settle=False)
    fleet.settle()
    assert ("cohort drifted", "site=b", "resolved") in fleet.alarms


def test_a_few_devices_without_peers_are_told_by_their_own_detectors(store):
    fleet = WatchedFleet(store, many=2)
    fleet.hour(BURN_IN_H)
    fleet.shifted["cam-1"] = FAR
    fleet.hour(6)
    alarm = opened(fleet)
    assert told(alarm) == ("device drifted", "north-cam-1", "detector")
    assert replayed(fleet, alarm).same


def test_what_all_devices_differ_by_is_no_alarm_of_any_of_them(store):
    """Their detectors fire, as they should: each is for good a little off its reference."""
    fleet = WatchedFleet(store)
    fleet.usual[:] = 0
    fleet.usual[:, 0] = np.linspace(-0.3, 0.3, fleet.many)
    fleet.hour(66)
    threshold = fleet.terms().ln_threshold
    ends = [fleet.newest(name).body for name in ("cam-0", "cam-15")]
    assert all(dict(body.evidence)[0] / 10 > threshold for body in ends)
    assert fleet.alarms == []


def test_a_device_that_its_peers_do_not_resemble_is_told_by_its_detector(store):
    """Too little for a single hour beside the others, and plain in a day."""
    fleet = WatchedFleet(store, rows=50)
    fleet.hour(BURN_IN_H)
    fleet.shifted["cam-15"] = (0.35, 0, 0)
    fleet.hour(28)
    alarm = opened(fleet)
    assert told(alarm) == ("device drifted", "north-cam-15", "detector")
    assert replayed(fleet, alarm).same


def test_what_a_device_claims_without_counts_that_show_it_opens_nothing(store):
    fleet = WatchedFleet(store, many=2)
    fleet.hour(3)
    body = next(store.drift.of_device("north-cam-1", fleet.manifest, fleet.digest)).body
    lie = replace(body, looks=4, evidence=((0, 390),))
    fleet.send("cam-1", lie, fleet.clock[0], fleet.clock[0] + HOUR_MS)
    fleet.settle()
    assert fleet.alarms == []


def test_alarms_go_on_after_a_restart(store):
    fleet = WatchedFleet(store)
    fleet.shifted["cam-3"] = OFF
    fleet.hour(3)
    fleet.watch = fleet.another_watch()
    fleet.hour(4)
    fleet.watch = fleet.another_watch()
    fleet.hour(4)
    assert fleet.events() == ["alarm.opened"]


def test_thresholds_follow_from_what_runs(store):
    fleet = WatchedFleet(store, many=4)

    assert (fleet.terms().streams, fleet.terms().starts) == (12, 12)
    fleet.push("v2")
    assert (fleet.terms().streams, fleet.terms().starts) == (12, 24)
    store.drift.set_terms(10.0, None, fleet.clock[0])
    assert fleet.terms().per_year == 10.0
