"""A supervisor dies; its runner serves on, and the next supervisor finds everything."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.runner.blame import Notebook
from edge_agent.runner.control import blame_path, socket_path
from edge_agent.runners import Load, Take
from protocol.identifiers import digest_of
from tests.fakes.callers import Caller, call
from tests.fakes.conditions import eventually
from tests.fakes.takes import take_everything

ROOT = Path(__file__).parents[3]


@contextmanager
def supervisor(run: Path, *loads: Load) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """A supervisor process, and what it says about its runner. It is killed at the end."""
    arguments = [str(run), "0", *(str(load.path) for load in loads)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.supervisor", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_no_request_fails_and_no_answer_is_lost_when_the_supervisor_is_killed(
    tmp_path, new_runners, bundles
):
    load = bundles()
    with supervisor(tmp_path / "run", load) as (process, told):
        callers = [Caller(told["port"]) for _ in range(3)]
        for caller in callers:
            caller.start()
        callers[0].wait_for_more(50)
        process.kill()
        process.wait()
        callers[0].wait_for_more(50)
        runners = new_runners()
        runners.adopt()
        assert runners.port == told["port"]
        (view,) = runners.views()
        assert (view.id, view.pid, view.role) == (told["runner"], told["pid"], "serving")
        assert view.loads == (load,)
        assert runners.deaths() == ()
        callers[0].wait_for_more(50)

        # Its successor takes over the port as well: a swap, under the same callers.
        new = runners.start((bundles(version="v2"),))
        runners.promote(new.id)
        runners.drain(view.id)
        callers[0].wait_for_more(200)
        taken = take_everything(runners, view.id)
        for caller in callers:
            caller.finish()
    assert [caller.errors for caller in callers] == [[]] * 3
    assert taken == sum(caller.versions["v1"] for caller in callers)
    assert runners.peek(new.id)["toy"].answers == sum(c.versions["v2"] for c in callers)


def test_a_take_whose_answer_was_lost_with_the_supervisor_is_repeated(new_runners, bundles):
    first = new_runners()
    first.adopt()
    runner = first.start((bundles(),)).id
    first.promote(runner)
    call(first.port, "POST", "/v2/models/toy/infer", b"{}")
    lost = first.take(runner, 0)
    first.close()
    second = new_runners()
    second.adopt()
    call(second.port, "POST", "/v2/models/toy/infer", b"{}")
    assert second.take(runner, 0) == lost
    assert lost.windows[0].inference.refused == 1
    assert second.take(runner, lost.seq).windows[0].inference.refused == 1


def test_a_runner_does_not_hold_the_pipes_of_a_killed_supervisor(tmp_path, new_runners, bundles):
    with supervisor(tmp_path / "run", bundles()) as (process, told):
        process.kill()
        # Reading to the end returns only if nobody else has them open.
        process.communicate(timeout=20)
        assert call(told["port"], "GET", "/v2/health/ready")[0] == 200
    new_runners().adopt()
    assert (tmp_path / "run" / "runner.log").exists()


def test_a_runner_holds_nothing_of_its_supervisor_but_what_it_needs(runners, bundles, tmp_path):
    with (tmp_path / "lock").open("w"):
        standby = runners.start((bundles(),))
    held = [path.resolve() for path in Path(f"/proc/{standby.pid}/fd").iterdir()]
    assert tmp_path / "lock" not in held


def test_two_serving_runners_are_both_found_and_one_can_be_drained(new_runners, bundles):
    first = new_runners()
    first.adopt()
    load = bundles()
    both = {first.start((load,)).id for _ in range(2)}
    for runner in both:
        first.promote(runner)
    first.close()
    second = new_runners()
    second.adopt()
    assert {(view.id, view.role) for view in second.views()} == {(r, "serving") for r in both}
    caller = Caller(second.port)
    caller.start()
    caller.wait_for_more(20)
    leaving = both.pop()
    second.drain(leaving)
    take_everything(second, leaving)
    caller.wait_for_more(20)
    caller.finish()
    assert caller.errors == []
    assert {view.id for view in second.views()} == both


def test_a_listener_that_serves_is_kept_although_another_port_is_wanted(new_runners, bundles):
    first = new_runners()
    first.adopt()
    first.promote(first.start((bundles(),)).id)
    kept = first.port
    first.close()
    second = new_runners(port=1 + kept % 60000)
    second.adopt()
    assert second.port == kept
    assert call(kept, "GET", "/v2/health/ready")[0] == 200


def test_a_standby_ends_with_its_supervisor(new_runners, bundles):
    first = new_runners()
    first.adopt()
    standby = first.start((bundles(),))
    process = os.pidfd_open(standby.pid)
    first.close()
    eventually(lambda: os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    os.close(process)
    second = new_runners()
    second.adopt()
    assert second.views() == second.deaths() == ()


def test_a_runner_that_does_not_say_hello_is_killed_and_its_port_is_bound_anew(
    tmp_path, new_runners, bundles
):
    with supervisor(tmp_path / "run", bundles()) as (process, told):
        os.kill(told["pid"], signal.SIGSTOP)
        process.kill()
        process.wait()
    runners = new_runners(port=told["port"], hello_s=0.5)
    runners.adopt()
    assert runners.views() == ()
    assert runners.port == told["port"]
    runners.promote(runners.start((bundles(version="v2"),)).id)
    assert call(told["port"], "GET", "/v2/models/toy")[1]["versions"] == ["v2"]


def test_a_stale_socket_is_removed_and_a_death_nobody_saw_is_told(new_runners):
    runners = new_runners()
    run = runners._run
    run.mkdir()
    notes = {}
    for runner in ("idle", "busy"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(socket_path(run, runner)))
        notes[runner] = Notebook(blame_path(run, runner), [("toy", digest_of(b"toy"))])
    with notes["busy"].busy("infer", 0):
        runners.adopt()
    (death,) = runners.deaths()
    assert (death.runner, death.model, death.status) == ("busy", "toy", None)
    assert [path.name for path in run.iterdir()] == ["infer.sock"]


def test_a_draining_runner_is_adopted_and_gives_its_last_counts(new_runners, bundles):
    first = new_runners()
    first.adopt()
    runner = first.start((bundles(),)).id
    first.promote(runner)
    call(first.port, "POST", "/v2/models/toy/infer", b"{}")
    first.drain(runner)
    first.close()
    second = new_runners()
    second.adopt()
    (view,) = second.views()
    assert (view.id, view.role) == (runner, "draining")
    first_take = second.take(runner, 0)
    assert first_take.windows[0].inference.refused == 1

    def last_take() -> Take | None:
        take = second.take(runner, first_take.seq)
        return take if take.final else None

    final = first_take if first_take.final else eventually(last_take)
    assert final is not None
    second.take(runner, final.seq)
    eventually(lambda: not second.views())
    assert second.deaths() == ()
