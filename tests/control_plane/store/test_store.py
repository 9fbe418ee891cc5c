"""The store is as good as its transactions: migrations, writers in threads, what repeats."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from control_plane.store import Store, migrations
from control_plane.store.bundles import BundleRow, ManifestRow
from control_plane.store.idempotency import Answer
from control_plane.store.payloads import EncodedPayload
from control_plane.store.plans import Assignment, DenyRow, PlanRow
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.payload import HintEntry
from protocol.plan import Denied, Ended
from protocol.selector import Selector


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path):
    with_store = Store(path)
    yield with_store
    with_store.close()


def a_bundle(version="v1", model="digits", pushed_ms=1, **more):
    digest = digest_of(f"{model}/{version}".encode())
    return BundleRow(digest, model, version, 1000, pushed_ms, **more)


# --- migrations ---------------------------------------------------------------------------------


def test_migrations_are_applied_once_and_in_order(path):
    names = [name for name, _ in migrations.known()]
    assert names == sorted(names)
    for _ in range(2):
        store = Store(path)
        done = store.connection().execute("SELECT name FROM migration ORDER BY number").fetchall()
        assert [row[0] for row in done] == names
        store.close()


def test_a_migration_that_breaks_off_leaves_nothing_behind_and_is_done_again(path):
    def half(db):
        db.execute("CREATE TABLE one (a)")
        db["two"].insert({"a": 1})
        raise RuntimeError("power cut")

    def whole(db):
        db.execute("CREATE TABLE one (a)")

    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(RuntimeError):
        migrations.apply(connection, [("m1", half)])
    tables = "SELECT name FROM sqlite_master WHERE name IN ('one', 'two')"
    assert connection.execute(tables).fetchall() == []
    assert migrations.apply(connection, [("m1", whole)]) == ("m1",)
    assert migrations.apply(connection, [("m1", whole)]) == ()


def test_two_processes_that_start_together_migrate_once(path):
    failures = []

    def open_it():
        try:
            Store(path).close()
        except Exception as error:  # noqa: BLE001 - any failure is the test's result
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- transactions -------------------------------------------------------------------------------


def test_what_raises_inside_a_write_block_has_not_happened(store):
    def write_and_fail():
        with store.write():
            store.events.append("a", "b", {}, 1)
            store.bundles.put(a_bundle())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert store.events.span() == (0, 0)
    assert store.bundles.count() == 0


def test_an_inner_write_block_commits_with_the_outer_one(store, path):
    other = Store(path)
    with store.write():
        with store.write():
            store.events.append("a", "b", {}, 1)
        assert other.events.span() == (0, 0)
    assert other.events.span() == (1, 1)
    other.close()


def test_writers_in_many_threads_lose_nothing(store):
    def work(name):
        for n in range(25):
            with store.write():
                device = store.devices.enrol(f"north-d{name}-{n}", {}, None, 60_000)
                store.events.append("devices", "device.enrolled", {"n": n}, device.enrolled_ms)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.devices.count() == 100
    assert store.devices.sequence() == 100
    assert [event.id for event in store.events.after(0)] == list(range(1, 101))


def test_foreign_keys_hold(store):
    with pytest.raises(sqlite3.IntegrityError):
        store.plans.assign("digits", [Assignment(None, digest_of(b"nowhere"))])


def test_a_closed_store_is_closed_for_new_threads_too(path):
    store = Store(path)
    store.close()
    raised = []

    def use():
        try:
            store.bundles.count()
        except sqlite3.ProgrammingError as error:
            raised.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(raised) == 1


# --- tokens, events, requests -------------------------------------------------------------------


def test_of_many_who_use_one_token_exactly_one_gets_in(store):
    store.tokens.create("hash", {"site": "home"}, None, expires_ms=100)
    got = []

    def use():
        got.append(store.tokens.consume("hash", 50))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([token for token in got if token]) == 1


@pytest.mark.parametrize(
    "hash, now_ms", [("hash", 100), ("hash", 101), ("other", 1)], ids=["just", "late", "unknown"]
)
def test_a_token_that_is_over_or_unknown_gives_nothing(store, hash, now_ms):
    store.tokens.create("hash", {}, "cam-1", expires_ms=100)
    assert store.tokens.consume(hash, now_ms) is None


def test_events_of_a_topic_are_those_below_it_too(store):
    for topic in ("rollouts/digits-7", "rollouts/digits-8", "devices/a"):
        store.events.append(topic, "x", {"t": topic}, 5)
    assert [e.topic for e in store.events.after(0, ["rollouts"])] == [
        "rollouts/digits-7",
        "rollouts/digits-8",
    ]
    assert [e.topic for e in store.events.after(1, ["rollouts/digits-8", "devices"])] == [
        "rollouts/digits-8",
        "devices/a",
    ]


def test_event_ids_are_not_used_again_after_old_ones_are_forgotten(store):
    store.events.append("a", "b", {}, 1)
    store.events.forget(before_ms=10)
    assert store.events.append("a", "b", {}, 11) == 2


def test_a_repeated_request_gets_the_first_answer(store):
    kept = store.idempotency
    assert kept.begin("k", "request", 1) is None
    with pytest.raises(InvalidRequest, match="S141"):
        kept.begin("k", "request", 2)
    answer = Answer(201, {"Location": "/x"}, b"{}")
    kept.finish("k", answer)
    assert kept.begin("k", "request", 3) == answer
    with pytest.raises(InvalidRequest, match="S140"):
        kept.begin("k", "another", 4)


def test_a_request_that_was_interrupted_may_be_sent_again(store):
    store.idempotency.begin("k", "request", 1)
    assert store.idempotency.release_interrupted() == 1
    assert store.idempotency.begin("k", "request", 2) is None


def test_an_operation_ends_once(store):
    created = store.operations.create("push", {"name": "x"}, 1)
    assert (created.id, created.state) == ("op-1", "queued")
    store.operations.progress("op-1", 9, 20, "checks", 2)
    assert [each.id for each in store.operations.unfinished()] == ["op-1"]
    store.operations.succeed("op-1", {"version": "v1"}, 3)
    store.operations.fail("op-1", {"code": "OUT-S146"}, 4)
    ended = store.operations.get("op-1")
    assert (ended.state, ended.done, ended.result) == ("succeeded", 9, {"version": "v1"})
    assert store.operations.unfinished() == ()


# --- catalogue and plans ------------------------------------------------------------------------


def test_a_version_never_changes(store):
    store.bundles.put(a_bundle())
    store.bundles.set_state(a_bundle().digest, "approved")
    store.bundles.put(a_bundle())
    assert store.bundles.version("digits", "v1").state == "approved"
    other = BundleRow(digest_of(b"other"), "digits", "v1", 1, 1)
    with pytest.raises(sqlite3.IntegrityError):
        store.bundles.put(other)


@pytest.mark.parametrize("length", [16, 64, 71])
def test_a_bundle_is_found_by_the_first_digits_of_a_variant(store, length):
    manifest = digest_of(b"manifest")
    bundle = a_bundle(manifests=(ManifestRow(manifest, digest_of(b"profile")),))
    store.bundles.put(bundle)
    prefix = manifest if length == 71 else manifest[7 : 7 + length]
    assert store.bundles.by_manifest(prefix) == bundle
    assert store.bundles.by_manifest("0" * 16) is None


def test_lists_are_paged_by_key_so_new_items_neither_repeat_nor_hide_others(store):
    for n in range(5):
        store.bundles.put(a_bundle(f"v{n}", pushed_ms=n))
    first = store.bundles.page("digits", limit=2)
    assert [each.version for each in first.items] == ["v4", "v3"]
    store.bundles.put(a_bundle("v9", pushed_ms=9))
    second = store.bundles.page("digits", first.after, limit=2)
    assert [each.version for each in second.items] == ["v2", "v1"]
    third = store.bundles.page("digits", second.after, limit=2)
    assert ([each.version for each in third.items], third.after) == (["v0"], None)


def test_payloads_of_a_file_come_smallest_first(store):
    file = digest_of(b"file")
    for size in (300, 100, 200):
        entry = HintEntry(digest_of(bytes([size % 251])), size, 1, 1, 0)
        store.payloads.put(EncodedPayload("digits", file, entry, f"payloads/{size}", 1))
    found = store.payloads.of_file("digits", file)
    assert [each.entry.size for each in found] == [100, 200, 300]
    assert store.payloads.find(found[0].entry.payload) == found[0]


def test_plans_and_deny_lists_never_go_back(store):
    store.plans.put(PlanRow("digits", 5, 2, b"new"))
    store.plans.put(PlanRow("digits", 4, 3, b"old"))
    store.plans.put_deny_list(DenyRow(5, b"new"))
    store.plans.put_deny_list(DenyRow(5, b"other"))
    assert store.plans.get("digits") == PlanRow("digits", 5, 2, b"new")
    assert store.plans.deny_list() == DenyRow(5, b"new")


def test_assignments_keep_their_order_and_form(store):
    store.bundles.put(a_bundle())
    digest = a_bundle().digest
    site = Selector("eq", "site", ("leeds",))
    wanted = (Assignment(site, digest), Assignment(None, digest))
    store.plans.assign("digits", wanted)
    store.plans.assign("digits", wanted)
    assert store.plans.assignments("digits") == wanted


def test_what_ended_last_and_what_is_denied_is_kept(store):
    ended = Ended("digits-1", digest_of(b"c"), "aborted")
    store.plans.set_ended("digits", ended)
    assert store.plans.ended("digits") == ended
    assert store.plans.models() == ("digits",)
    denied = Denied("digits", digest_of(b"c"), "why")
    store.plans.deny(denied)
    assert store.plans.denied() == (denied,)
    assert store.plans.undeny(denied.digest)
    assert store.plans.denied() == ()
