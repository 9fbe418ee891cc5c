import sqlite3
from dataclasses import replace

import pytest

from control_plane.drift.alarms import Alarm
from control_plane.drift.findings import FoundFeature
from control_plane.store import Store
from control_plane.store.webhooks import matches
from protocol.identifiers import digest_of

DIGEST = digest_of(b"x")


@pytest.fixture
def store(tmp_path):
    kept = Store(tmp_path / "store.sqlite")
    yield kept
    kept.close()


def alarm(key="device/digits/p/cam-1", **more):
    features = (FoundFeature(3, "temperature", 3e-9, 0.61, "location"),)
    return Alarm(
        "", 0, key, "digits", DIGEST, DIGEST, DIGEST, "peer", "north-cam-1", "sensor broken",
        "sensor broken on device cam-1", features, **more,
    )  # fmt: skip


def test_an_alarm_is_kept_as_it_is(store):
    kept = store.alarms.add(alarm(opened_ms=1, until_ms=9, quiet=2, by="ana", why="x"))
    assert (kept.id, kept.number) == ("alarm-1", 1)
    assert store.alarms.get("alarm-1") == kept
    changed = replace(kept, state="snoozed", seen_ms=7, evidence="sha256-e")
    store.alarms.put(changed)
    assert store.alarms.get("alarm-1") == changed
    assert store.alarms.get("alarm-2") is None


def test_a_key_has_one_alarm_that_is_not_resolved(store):
    first = store.alarms.add(alarm())
    with pytest.raises(sqlite3.IntegrityError):
        store.alarms.add(alarm())
    store.alarms.put(replace(first, state="resolved", changed_ms=5))
    assert store.alarms.add(alarm()).id == "alarm-2"
    assert [each.id for each in store.alarms.open()] == ["alarm-2"]
    assert [each.id for each in store.alarms.resolved_since(4)] == ["alarm-1"]
    assert store.alarms.resolved_since(5) == ()


def test_numbers_are_never_used_again(store):
    store.alarms.add(alarm())
    store.connection().execute("DELETE FROM alarm")
    assert store.alarms.add(alarm()).id == "alarm-2"


def test_records_of_an_alarm_are_numbered_and_found_by_their_digest(store):
    kept = store.alarms.add(alarm())
    for number in (1, 2):
        store.alarms.add_record(kept.id, f"sha256-{number}", f"body {number}", 10 * number)
    store.alarms.add_record("alarm-9", "sha256-9", "of another", 1)
    rows = store.alarms.records(kept.id)
    assert [(each.number, each.body, each.at_ms) for each in rows] == [
        (1, "body 1", 10),
        (2, "body 2", 20),
    ]
    assert store.alarms.record(kept.id) == rows[1]
    assert store.alarms.record(kept.id, "sha256-1") == rows[0]
    assert store.alarms.record(kept.id, "sha256-9") is None


def test_a_topic_stands_for_what_is_below_it():
    assert matches(["alarms"], "alarms/alarm-1")
    assert matches(["x", "alarms"], "alarms")
    assert not matches(["alarms"], "alarmsystems/1")
    assert not matches([], "alarms")
