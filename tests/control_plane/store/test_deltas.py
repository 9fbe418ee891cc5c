"""What was tried is known, also when nothing was worth keeping, and nothing else is."""

from __future__ import annotations

import sqlite3

import pytest

from control_plane.store import Store, migrations
from protocol.bundle import Facts
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_PATCH, FEATURE_SEGMENTS, PLAIN_FEATURES
from protocol.reported import ModelState, ReportedState

FILE, BASE = digest_of(b"file"), digest_of(b"base")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


def test_what_was_tried_is_known_per_model_base_recipe_and_ability(store):
    store.deltas.put("digits", FILE, BASE, 1, [(3, 8), (7, 8)], 40, 1)
    store.deltas.put("digits", FILE, None, 1, [(3, 8)], None, 1)
    assert store.deltas.tried("digits", FILE, BASE, 1) == {(3, 8), (7, 8)}
    assert store.deltas.tried("digits", FILE, None, 1) == {(3, 8)}
    assert store.deltas.tried("digits", FILE, BASE, 2) == set()
    assert store.deltas.tried("toy", FILE, BASE, 1) == set()
    assert store.deltas.tried("digits", BASE, FILE, 1) == set()


def test_what_is_lost_is_forgotten_alone(store):
    store.deltas.put("digits", FILE, BASE, 1, [(3, 8), (7, 8)], 40, 1)
    store.deltas.put("digits", FILE, None, 1, [(3, 8)], None, 1)
    assert store.deltas.forget("digits", FILE, BASE) == 2
    assert store.deltas.tried("digits", FILE, BASE, 1) == set()
    assert store.deltas.tried("digits", FILE, None, 1) == {(3, 8)}


def test_devices_are_counted_by_what_they_can_decode(store):
    patching = ("payload/1", "payload-patch/1", "hot-swap/9")
    for name, features in (("a", patching), ("b", patching), ("c", ()), ("silent", None)):
        store.devices.enrol(f"local-{name}", {}, None, 1)
        if features is not None:
            state = ReportedState(1, "0.1", features=features, facts=Facts())
            store.devices.put_state(f"local-{name}", state, 1)
    assert store.devices.abilities() == {PLAIN_FEATURES | FEATURE_PATCH: 2, 0: 1}
    again = ReportedState(2, "0.1", features=("payload/1", "payload-segments/1"))
    store.devices.put_state("local-a", again, 2)
    store.devices.retire("local-b", 3)
    assert store.devices.abilities() == {PLAIN_FEATURES | FEATURE_SEGMENTS: 1, 0: 1}


def test_devices_are_counted_by_what_they_run_or_go_back_to(store):
    v1, v2, v3 = (digest_of(each) for each in (b"v1", b"v2", b"v3"))
    states = {
        "a": ModelState(current=v1, serving=v1),
        "b": ModelState(current=v1, serving=v2),
        "there": ModelState(current=v1, serving=v3),
        "new": ModelState(),
    }
    for name, state in states.items():
        store.devices.enrol(f"local-{name}", {}, None, 1)
        reported = ReportedState(1, "0.1", models={"digits": state})
        store.devices.put_state(f"local-{name}", reported, 1)
    assert store.devices.holding("digits", v3) == {v1: 2, v2: 1}
    assert store.devices.holding("digits", v2) == {v1: 2, v3: 1}
    assert store.devices.holding("toy", v3) == {}


def test_devices_that_were_heard_before_the_migration_count(tmp_path):
    path = tmp_path / "store.sqlite"
    before = [each for each in migrations.known() if each[0] < "m0015"]
    with sqlite3.connect(path, isolation_level=None) as connection:
        migrations.apply(connection, before)
        connection.execute(
            "INSERT INTO device (id, local, labels, version, since, changed, pins, allow, settings,"
            " enrolled_ms, state) VALUES ('local-a', 'a', '{}', 1, 1, 1, '{}', '{}', '{}', 1, ?)",
            ('{"order":1,"agent":"0.1","features":["payload/1","payload-patch/1"]}',),
        )
    connection.close()
    store = Store(path)
    assert store.devices.abilities() == {PLAIN_FEATURES | FEATURE_PATCH: 1}
    store.close()
