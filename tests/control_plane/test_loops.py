import threading

import pytest

from control_plane.loops import Loop
from protocol.errors import Unavailable

SOON_S = 10


@pytest.fixture
def started():
    loops = []

    def start(step, interval_s=3600.0):
        loop = Loop("test", step, interval_s)
        loops.append(loop)
        loop.start()
        return loop

    yield start
    for loop in loops:
        loop.stop()


def test_a_wake_brings_the_next_step_forward(started):
    turns = threading.Semaphore(0)
    loop = started(turns.release)
    assert turns.acquire(timeout=SOON_S)
    loop.wake()
    assert turns.acquire(timeout=SOON_S)


def test_a_wake_during_a_step_is_not_lost(started):
    inside, go_on, turns = threading.Event(), threading.Event(), threading.Semaphore(0)

    def step():
        inside.set()
        go_on.wait(SOON_S)
        turns.release()

    loop = started(step)
    assert inside.wait(SOON_S)
    loop.wake()
    go_on.set()
    assert turns.acquire(timeout=SOON_S)
    assert turns.acquire(timeout=SOON_S)


@pytest.mark.parametrize("error", [Unavailable("OUT-N102", "refused"), KeyError("x")])
def test_a_failing_step_is_told_and_the_loop_goes_on(started, error, caplog):
    outcomes = iter([error, error, None])
    turns = threading.Semaphore(0)

    def step():
        outcome = next(outcomes, None)
        turns.release()
        if outcome:
            raise outcome

    loop = started(step)
    for _ in range(3):
        assert turns.acquire(timeout=SOON_S)
        loop.wake()
    assert turns.acquire(timeout=SOON_S)
    loop.stop()
    assert loop.problem is None
    assert len([r for r in caplog.records if r.name == "control_plane.loops"]) == 1
