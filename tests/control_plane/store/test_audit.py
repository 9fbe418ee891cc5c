import sqlite3
import threading

import pytest

from control_plane.audit import verify
from control_plane.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


def note(store, number=1, **more):
    about = {"document": number}
    store.happened("ana", f"devices/cam-{number}", "device.pinned", about, 1000 + number, **more)


def test_records_are_chained_and_the_head_moves_with_them(store):
    assert store.audit.head() == ""
    for number in range(3):
        note(store, number)
    found = verify(store.audit.lines())
    assert (found.records, found.problems) == (3, ())
    assert found.head == store.audit.head()


def test_a_change_is_an_event_and_a_record_together(store):
    note(store, why="glare", before={"a": 1}, after={"a": 2}, evidence="sha256-00")
    event = store.events.after(0)[0]
    record = store.audit.page().items[0]
    assert (
        (event.type, event.data["why"]) == (record.what, record.why) == ("device.pinned", "glare")
    )
    assert (record.before, record.after, record.evidence) == ({"a": 1}, {"a": 2}, "sha256-00")


def test_a_change_that_is_rolled_back_leaves_no_record(store):
    def change_that_fails():
        with store.write():
            note(store)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_that_fails()
    assert store.audit.count() == 0
    assert store.events.after(0) == ()


@pytest.mark.parametrize("sql", ["UPDATE audit SET who = 'bo'", "DELETE FROM audit"])
def test_the_database_refuses_to_change_or_remove_a_record(store, sql):
    note(store)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), store.write() as connection:
        connection.execute(sql)
    assert store.audit.count() == 1


def test_many_threads_make_one_chain(store):
    threads = [
        threading.Thread(target=lambda: [note(store, n) for n in range(20)]) for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = verify(store.audit.lines())
    assert (found.records, found.problems) == (80, ())


def test_forgetting_events_forgets_no_record(store):
    note(store)
    store.events.forget(10**15)
    assert store.audit.count() == 1


def test_pages_go_from_the_newest_to_the_oldest_and_can_be_narrowed(store):
    for number in range(5):
        note(store, number)
    store.happened("gate", "rollouts/digits-1", "rollout.verdict", {}, 2000)
    first = store.audit.page(limit=4)
    rest = store.audit.page(first.after, 4)
    assert [each.number for each in (*first.items, *rest.items)] == [6, 5, 4, 3, 2, 1]
    assert rest.after is None
    assert [each.number for each in store.audit.page(who="gate").items] == [6]
    assert [each.number for each in store.audit.page(about="devices").items] == [5, 4, 3, 2, 1]
    assert [each.number for each in store.audit.page(about="devices/cam-2").items] == [3]


def test_lines_begin_behind_a_number_and_end_with_another(store):
    for number in range(6):
        note(store, number)
    assert len(list(store.audit.lines(2, 4))) == 2
