from dataclasses import replace

import pytest

from control_plane.store import Store
from control_plane.store.drift_rows import Hit
from protocol.codec import encode
from protocol.identifiers import digest_of
from protocol.telemetry import DriftWindow, Record, stream_name

MANIFEST, PROFILE, OTHER = (digest_of(each) for each in (b"m", b"p", b"other"))
WINDOW = DriftWindow(MANIFEST, PROFILE, 30, ((10, 20),), looks=1)


@pytest.fixture
def store(tmp_path):
    kept = Store(tmp_path / "store.sqlite")
    yield kept
    kept.close()


def record(number, t0, t1, body=WINDOW, **more):
    stream = stream_name("drift", body.manifest, body.profile)
    made = Record(7, stream, number, number, body.rows, {}, t0=t0, t1=t1, **more)
    return made, encode(body).decode()


def bring(store, device, *records):
    store.records.ingest(f"north-{device}", list(records))


def numbers(rows):
    return [(each.device, each.lo) for each in rows]


def test_what_is_new_comes_by_transactions_that_are_never_cut(store):
    bring(store, "a", *(record(n, n, n + 1) for n in range(5)))
    bring(store, "b", record(0, 0, 1))
    first = store.drift.since(0, 2)
    assert numbers(first) == [("north-a", n) for n in range(5)]
    assert numbers(store.drift.since(first[-1].c, 2)) == [("north-b", 0)]
    assert store.drift.since(store.drift.number(), 2) == ()


def test_open_windows_come_too_and_say_that_they_are(store):
    bring(store, "a", record(0, 0, 1, part=3))
    (row,) = store.drift.since(0, 10)
    assert (row.final, row.body) == (False, WINDOW)
    assert list(store.drift.within(MANIFEST, PROFILE, 0, 10)) == []


def test_windows_are_placed_by_their_middle(store):
    bring(store, "a", record(0, 0, 10), record(1, 8, 12), record(2, 9, 13), record(3, 18, 24))
    assert numbers(store.drift.within(MANIFEST, PROFILE, 5, 11)) == [("north-a", 0), ("north-a", 1)]
    assert numbers(store.drift.within(MANIFEST, PROFILE, 11, 21)) == [("north-a", 2)]


def test_of_a_time_and_of_devices_only_those_are_read(store):
    bring(store, "a", record(0, 0, 2))
    upto = store.drift.number()
    bring(store, "b", record(0, 0, 2))
    assert numbers(store.drift.within(MANIFEST, PROFILE, 0, 9, upto=upto)) == [("north-a", 0)]
    found = store.drift.within(MANIFEST, PROFILE, 0, 9, devices={"north-b"})
    assert numbers(found) == [("north-b", 0)]


def test_windows_of_another_reference_or_without_histograms_are_left_out(store):
    bare = replace(WINDOW, counts=())
    # Names of streams have only the first digits of a digest.
    alike = PROFILE[:-1] + ("0" if PROFILE[-1] != "0" else "1")
    bring(
        store,
        "a",
        record(0, 0, 2, bare),
        record(1, 0, 2, replace(WINDOW, profile=alike)),
        record(2, 0, 2, replace(WINDOW, profile=OTHER)),
        record(3, 0, 2),
    )
    assert numbers(store.drift.within(MANIFEST, PROFILE, 0, 9)) == [("north-a", 3)]
    assert numbers(store.drift.of_device("north-a", MANIFEST, PROFILE)) == [("north-a", 3)]
    assert numbers(store.drift.lately("north-a", MANIFEST, PROFILE, 9)) == [("north-a", 3)]


def test_the_last_windows_of_a_device_come_oldest_first(store):
    bring(store, "a", *(record(n, n, n + 1) for n in range(5)))
    assert numbers(store.drift.lately("north-a", MANIFEST, PROFILE, 2)) == [
        ("north-a", 3),
        ("north-a", 4),
    ]


def test_of_each_device_the_newest_window(store):
    bring(store, "a", record(0, 0, 5), record(1, 5, 9))
    bring(store, "b", record(0, 0, 7))
    bring(store, "c", record(0, 0, 2))
    found = store.drift.newest(MANIFEST, PROFILE, 3)
    assert {device: row.t1_ms for device, row in found.items()} == {"north-a": 9, "north-b": 7}


def test_the_first_window_from_a_time_on(store):
    assert store.drift.first_ms(MANIFEST, PROFILE, 0) is None
    bring(store, "a", record(0, 10, 20), record(1, 30, 40))
    assert store.drift.first_ms(MANIFEST, PROFILE, 0) == 15
    assert store.drift.first_ms(MANIFEST, PROFILE, 16) == 35
    assert store.drift.first_ms(MANIFEST, PROFILE, 36) is None


def test_a_device_is_judged_once_per_slot(store):
    drift = store.drift
    drift.put_judged(MANIFEST, PROFILE, 4, {"north-a": [Hit(0, 1e-9)], "north-b": []})
    drift.put_judged(MANIFEST, PROFILE, 4, {"north-a": []})
    drift.put_judged(MANIFEST, PROFILE, 5, {"north-a": []})
    assert drift.judged(MANIFEST, PROFILE, "north-a", 3) == ((4, (Hit(0, 1e-9),)), (5, ()))
    assert drift.judged(MANIFEST, PROFILE, "north-a", 1) == ((5, ()),)
    assert drift.judged_in(MANIFEST, PROFILE, 4) == {"north-a", "north-b"}
    assert drift.forget_judged(5) == 2


def test_marks_are_kept_by_name(store):
    drift = store.drift
    assert drift.mark("day") is None
    for value in (3, 4):
        drift.set_mark("day", value)
    drift.set_mark("muted/alarms/alarm-1", 1)
    drift.set_mark("muted0", 1)
    assert drift.mark("day") == 4
    assert drift.marks("muted") == {"alarms/alarm-1"}
    drift.unmark("muted/alarms/alarm-1")
    assert drift.marks("muted") == frozenset()


def test_the_budget_begins_with_one_false_alarm_a_year(store):
    assert (store.drift.terms().per_year, store.drift.terms().by) == (1.0, None)
    changed = store.drift.set_terms(4.0, "site", 99)
    assert (changed.per_year, changed.by, changed.number, changed.changed_ms) == (
        4.0, "site", 2, 99,
    )  # fmt: skip
