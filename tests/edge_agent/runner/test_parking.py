"""Runners that stay loaded and answer nobody, until they are needed again."""

import http.client
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_agent.runners import RunnerFailed
from tests.fakes.callers import ROW, Caller, call, inference
from tests.fakes.conditions import eventually
from tests.fakes.takes import take_everything

INFER = "/v2/models/toy/infer"
IDLE = "/v2/health/live"


def serve(runners, load):
    standby = runners.start((load,))
    runners.promote(standby.id)
    return standby


def roles(runners):
    return {view.id: view.role for view in runners.views()}


def score(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def answers(runners, runner):
    return sum(window.inference.answers for window in runners.take(runner, 0).windows)


def test_no_request_fails_while_runners_take_turns_and_every_answer_is_counted(runners, bundles):
    first = serve(runners, bundles(version="v1")).id
    callers = [Caller(runners.port) for _ in range(3)]
    for caller in callers:
        caller.start()
    callers[0].wait_for_more(20)
    second = serve(runners, bundles(version="v2", weights_seed=2)).id
    runners.park(first)
    for awake, asleep in ((first, second), (second, first), (first, second)):
        assert roles(runners) == {awake: "parked", asleep: "serving"}
        callers[0].wait_for_more(20)
        runners.promote(awake)
        runners.park(asleep)
        callers[0].wait_for_more(20)
    for caller in callers:
        caller.finish()
    assert [caller.errors for caller in callers] == [[]] * 3
    assert set(callers[0].versions) == {"v1", "v2"}
    for runner in (first, second):
        runners.drain(runner)
    taken = take_everything(runners, first) + take_everything(runners, second)
    assert taken == sum(caller.answered for caller in callers)
    assert runners.deaths() == ()


def test_a_parked_runner_answers_nobody_and_hands_over_its_counts(runners, bundles):
    old = serve(runners, bundles()).id
    assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200
    serve(runners, bundles(version="v2"))
    runners.park(old)
    for _ in range(5):
        assert call(runners.port, "GET", "/v2/models/toy")[1]["versions"] == ["v2"]
    assert answers(runners, old) == 1


def test_a_connection_that_is_open_while_its_runner_is_woken_stays_open(runners, bundles):
    runner = serve(runners, bundles()).id
    connection = http.client.HTTPConnection("127.0.0.1", runners.port, timeout=20)
    for _ in range(2):
        connection.request("GET", IDLE)
        response = connection.getresponse()
        response.read()
        assert response.getheader("connection") is None
        runners.park(runner)
        runners.promote(runner)
    connection.close()


def test_the_system_takes_a_parked_runner_first(runners, bundles):
    view = serve(runners, bundles())
    assert score(view.pid) == 500
    runners.park(view.id)
    assert score(view.pid) == 900
    runners.promote(view.id)
    assert score(view.pid) == 500


def test_only_who_serves_can_be_parked(runners, bundles):
    standby = runners.start((bundles(),))
    with pytest.raises(RunnerFailed, match="only a serving runner can be parked"):
        runners.park(standby.id)


def test_a_parked_runner_that_does_not_answer_is_ended_and_is_nobodys_death(
    new_runners, bundles, monkeypatch
):
    runners = new_runners()
    runners.adopt()
    view = serve(runners, bundles())
    runners.park(view.id)
    monkeypatch.setattr(runners, "_call_s", 1)
    os.kill(view.pid, signal.SIGSTOP)
    with pytest.raises(RunnerFailed, match="OUT-D313"):
        runners.promote(view.id)
    assert runners.views() == runners.deaths() == ()


def test_without_its_supervisor_a_parked_runner_answers_what_it_has_and_ends(runners, bundles):
    """Whoever comes next works without it, and finds its counts."""
    view = serve(runners, bundles())
    assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200
    runners.park(view.id)
    runners.close()
    runners.adopt()
    assert roles(runners) in ({view.id: "draining"}, {view.id: "parked"})
    runners.drain(view.id)
    assert take_everything(runners, view.id) == 1
    assert eventually(lambda: not runners.views())
    assert runners.deaths() == ()


def test_whoever_waits_is_woken_when_a_runner_ends(new_runners, bundles):
    woken = threading.Event()
    runners = new_runners(on_death=woken.set)
    runners.adopt()
    view = serve(runners, bundles())
    assert not woken.is_set()
    os.kill(view.pid, signal.SIGKILL)
    assert woken.wait(30)
    assert [death.runner for death in runners.deaths()] == [view.id]


def test_an_adopted_runner_is_watched_as_well(new_runners, bundles):
    woken = threading.Event()
    first = new_runners()
    first.adopt()
    view = serve(first, bundles())
    first.close()
    second = new_runners(on_death=woken.set)
    second.adopt()
    os.kill(view.pid, signal.SIGKILL)
    assert woken.wait(30)
    assert second.views() == ()


def test_nothing_is_watched_before_there_is_something(tmp_path):
    script = (
        "import threading; from pathlib import Path; from edge_agent.runners import Runners\n"
        f"Runners(Path({str(tmp_path)!r}), port=0).close(); print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "1\n"
