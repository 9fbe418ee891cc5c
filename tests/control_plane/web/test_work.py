import threading

import pytest

from control_plane.store import Store
from control_plane.web.work import Work
from protocol.errors import InvalidRequest

SOON_S = 10


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


def ended(work: Work, store: Store, operation):
    work.stop()
    return store.operations.get(operation.id)


def test_an_operation_tells_how_far_it_is_and_what_came_of_it(store):
    work = Work(store, lambda: 1000)
    told, go_on = threading.Event(), threading.Event()

    def task(tell):
        tell(1, 2, "files")
        told.set()
        go_on.wait(SOON_S)
        return {"version": "v1"}

    operation = work.start("push", {"model": "digits"}, task)
    assert told.wait(SOON_S)
    running = store.operations.get(operation.id)
    assert (running.state, running.done, running.total, running.unit) == ("running", 1, 2, "files")
    go_on.set()
    done = ended(work, store, operation)
    assert (done.state, done.result) == ("succeeded", {"version": "v1"})


def test_an_operation_that_is_refused_has_its_problem(store):
    work = Work(store, lambda: 1000)

    def task(tell):
        raise InvalidRequest("OUT-B130", "digits/v1 is another one")

    failed = ended(work, store, work.start("push", {}, task))
    assert failed.state == "failed"
    assert failed.problem["code"] == "OUT-B130"
    assert failed.problem["detail"] == "digits/v1 is another one"


def test_a_fault_in_an_operation_is_told_without_leaking_and_the_next_one_runs(store, caplog):
    work = Work(store, lambda: 1000)

    def task(tell):
        raise RuntimeError("password=hunter2")

    first = work.start("push", {}, task)
    begun = threading.Event()

    def fine(tell):
        begun.set()
        return {}

    second = work.start("push", {}, fine)
    assert begun.wait(SOON_S)
    assert ended(work, store, second).state == "succeeded"
    failed = store.operations.get(first.id)
    assert failed.problem["code"] == "OUT-S160"
    assert "hunter2" not in str(failed.problem)
    assert "hunter2" in caplog.text


def test_what_a_killed_control_plane_left_is_failed_at_the_next_start(store):
    queued = store.operations.create("push", {}, 1000)
    running = store.operations.create("push", {}, 1000)
    store.operations.progress(running.id, 3, 9, "files", 1000)
    work = Work(store, lambda: 2000)
    assert work.recover() == 2
    for each, was in ((queued, "queued"), (running, "running")):
        found = store.operations.get(each.id)
        assert (found.state, found.problem["code"]) == ("failed", "OUT-S146")
        assert was in found.problem["detail"]
    assert work.recover() == 0
    work.stop()
