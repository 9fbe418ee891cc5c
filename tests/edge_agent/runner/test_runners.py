"""Real runner processes, from standby to grave."""

import http.client
import os
import signal
import socket
import subprocess
import sys

import pytest

from edge_agent.runner.blame import read_blame
from edge_agent.runner.control import blame_path, socket_path
from edge_agent.runner.fault import VARIABLE
from edge_agent.runners import Load, RunnerFailed, Runners
from protocol.errors import InvalidRequest, Unavailable
from tests.fakes.callers import ROW, Caller, call, inference
from tests.fakes.conditions import eventually
from tests.fakes.takes import take_everything

INFER = "/v2/models/toy/infer"
HUNG = 75  # exit status of a runner that ended itself because a model did not return


def serve(runners: Runners, *loads: Load) -> str:
    standby = runners.start(loads)
    for load in loads:
        runners.probe(standby.id, load.model)
    runners.promote(standby.id)
    return standby.id


def swap(runners: Runners, old: str, *loads: Load) -> str:
    new = serve(runners, *loads)
    runners.drain(old)
    return new


def test_a_runner_loads_proves_serves_and_counts(runners, bundles):
    load = bundles()
    standby = runners.start((load,))
    assert [(view.role, view.loads) for view in runners.views()] == [("standby", (load,))]
    runners.probe(standby.id, "toy")
    runners.promote(standby.id)
    status, answer = call(runners.port, "POST", INFER, inference(ROW, ROW))
    assert (status, answer["model_version"]) == (200, "v1")
    assert [output["shape"] for output in answer["outputs"]] == [[2], [2, 3]]
    (view,) = runners.views()
    assert view.role == "serving"
    assert runners.peek(standby.id)["toy"].rows == 2
    take = runners.take(standby.id, 0)
    assert (take.seq, take.final, take.windows[0].inference.answers) == (1, False, 1)
    assert take.windows[0].drift.rows == 2
    assert (take.windows[0].model, take.windows[0].digest) == ("toy", load.digest)
    assert runners.take(standby.id, 0) == take
    assert runners.take(standby.id, 1).windows == ()


def test_a_runner_holds_several_models(runners, bundles):
    serve(runners, bundles(), bundles(model="other", version="v7", features=2, classes=("x", "y")))
    assert call(runners.port, "GET", "/v2/models/other")[1]["versions"] == ["v7"]
    assert call(runners.port, "GET", "/v2/models/toy/versions/v1/ready")[0] == 200
    assert call(runners.port, "GET", "/v2/models/toy/versions/v7/ready")[0] == 404


def test_wrong_golden_vectors_fail_the_probe_and_leave_the_runner_standing(runners, bundles):
    load = bundles(golden_offset=0.21)
    standby = runners.start((load,))
    with pytest.raises(RunnerFailed) as caught:
        runners.probe(standby.id, "toy")
    assert (caught.value.code, caught.value.digest) == ("OUT-D301", load.digest)
    assert caught.value.why == "toy: 8 of 8 differ by up to 0.21"
    runners.kill(standby.id)
    assert runners.views() == runners.deaths() == ()


@pytest.mark.parametrize(
    "wishes, why",
    [
        pytest.param({"damage": lambda data: data[: len(data) // 2]}, "rotobuf", id="cut short"),
        pytest.param({"damage": lambda data: b"\x00" * 100}, "rotobuf", id="zeros"),
        pytest.param({"opset": 200}, "opset", id="opset from the future"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(runners, bundles, wishes, why):
    load = bundles(**wishes)
    with pytest.raises(RunnerFailed) as caught:
        runners.start((bundles(model="fine"), load))
    assert (caught.value.code, caught.value.model) == ("OUT-D302", "toy")
    assert why in caught.value.why
    assert runners.views() == runners.deaths() == ()


def test_a_file_that_is_missing_is_refused_with_the_reason(runners, bundles):
    load = bundles()
    (load.path / "contract.json").unlink()
    with pytest.raises(RunnerFailed, match=r"OUT-D302.*contract\.json"):
        runners.start((load,))


def test_a_model_that_aborts_while_loading_is_named(runners, bundles, monkeypatch):
    load = bundles(version="v2")
    monkeypatch.setenv(VARIABLE, "toy/v2:load")
    with pytest.raises(RunnerFailed) as caught:
        runners.start((bundles(model="fine"), load))
    assert (caught.value.code, caught.value.digest) == ("OUT-D311", load.digest)
    (death,) = runners.deaths()
    assert (death.role, death.status) == ("standby", -signal.SIGABRT)
    assert (death.model, death.digest) == ("toy", load.digest)
    assert runners.deaths() == ()
    serve(runners, bundles())


def test_a_model_that_aborts_in_the_probe_is_named(runners, bundles, monkeypatch):
    load = bundles()
    monkeypatch.setenv(VARIABLE, "toy:probe")
    standby = runners.start((load,))
    with pytest.raises(RunnerFailed, match="OUT-D311"):
        runners.probe(standby.id, "toy")
    (death,) = runners.deaths()
    assert (death.runner, death.digest) == (standby.id, load.digest)


def test_a_model_that_aborts_in_a_request_is_named_and_the_next_runner_serves(
    runners, bundles, monkeypatch
):
    broken = bundles(model="broken")
    monkeypatch.setenv(VARIABLE, "broken:infer")
    first = serve(runners, bundles(), broken)
    assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        call(runners.port, "POST", "/v2/models/broken/infer", inference(ROW))
    (death,) = eventually(runners.deaths)
    assert (death.runner, death.role, death.model) == (first, "serving", "broken")
    assert death.digest == broken.digest
    assert death.detail == "ended by signal 6 during infer of broken"
    assert not socket_path(runners._run, first).exists()
    serve(runners, bundles())
    assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200


def test_a_runner_that_dies_idle_blames_no_model(runners, bundles):
    runner = serve(runners, bundles())
    (view,) = runners.views()
    os.kill(view.pid, signal.SIGKILL)
    (death,) = eventually(runners.deaths)
    assert (death.runner, death.status, death.model) == (runner, -signal.SIGKILL, None)


def test_a_standby_that_does_not_answer_is_killed_and_too_slow(new_runners, bundles, monkeypatch):
    runners = new_runners()
    runners.adopt()
    load = bundles()
    standby = runners.start((load,))
    # Only now: a busy machine takes longer than that to load one.
    monkeypatch.setattr(runners, "_ready_s", 1)
    os.kill(standby.pid, signal.SIGSTOP)
    with pytest.raises(RunnerFailed) as caught:
        runners.probe(standby.id, "toy")
    assert (caught.value.code, caught.value.model) == ("OUT-D313", "toy")
    assert runners.views() == runners.deaths() == ()


def test_a_serving_runner_that_does_not_answer_is_killed_and_is_a_death(
    new_runners, bundles, monkeypatch
):
    runners = new_runners()
    runners.adopt()
    runner = serve(runners, bundles())
    monkeypatch.setattr(runners, "_call_s", 1)
    (view,) = runners.views()
    os.kill(view.pid, signal.SIGSTOP)
    with pytest.raises(RunnerFailed, match="OUT-D313"):
        runners.take(runner, 0)
    (death,) = runners.deaths()
    assert (death.runner, death.model) == (runner, None)
    assert "no answer to take within 1 s" in death.detail


def test_a_model_that_never_comes_back_ends_its_runner_and_is_named(new_runners, bundles):
    runners = new_runners(run_limit_s=0.5)
    runners.adopt()
    runner = serve(runners, bundles(hangs=True))
    assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        call(runners.port, "POST", INFER, inference((10.0, 0.0, 0.0, 0.0)))
    (death,) = eventually(runners.deaths)
    assert (death.runner, death.status, death.model) == (runner, HUNG, "toy")


def test_counts_are_taken_while_a_model_is_busy(new_runners, bundles):
    runners = new_runners(run_limit_s=60)
    runners.adopt()
    runner = serve(runners, bundles(hangs=True))
    call(runners.port, "POST", INFER, inference(ROW))
    with socket.create_connection(("127.0.0.1", runners.port)) as caller:
        body = inference((10.0, 0.0, 0.0, 0.0))
        caller.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\n" % INFER.encode())
        caller.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        eventually(lambda: read_blame(blame_path(runners._run, runner)))
        assert runners.take(runner, 0).windows[0].inference.answers == 1


def test_a_call_to_a_runner_that_has_gone_says_so(runners):
    with pytest.raises(RunnerFailed, match="runner nobody has gone"):
        runners.take("nobody", 0)


def test_no_request_fails_while_runners_are_swapped_and_every_answer_is_taken(runners, bundles):
    loads = [bundles(version=f"v{n}", weights_seed=n) for n in range(4)]
    runner = serve(runners, loads[0])
    callers = [Caller(runners.port) for _ in range(4)]
    taken = 0
    for caller in callers:
        caller.start()
    for load in loads[1:]:
        callers[0].wait_for_more(50)
        old, runner = runner, swap(runners, runner, load)
        taken += take_everything(runners, old)
        callers[0].wait_for_more(50)
    for caller in callers:
        caller.finish()
    assert [caller.errors for caller in callers] == [[]] * 4
    assert set(callers[0].versions) == {"v0", "v1", "v2", "v3"}
    assert runners.deaths() == ()
    runners.drain(runner)
    taken += take_everything(runners, runner)
    assert taken == sum(caller.answered for caller in callers)


def test_a_connection_that_was_idle_while_its_runner_drained_gets_its_last_answer(runners, bundles):
    old = serve(runners, bundles())
    connection = http.client.HTTPConnection("127.0.0.1", runners.port, timeout=20)
    connection.request("GET", "/v2/health/live")
    connection.getresponse().read()
    swap(runners, old, bundles(version="v2"))
    connection.request("GET", "/v2/models/toy")
    response = connection.getresponse()
    assert b'"v1"' in response.read()
    assert response.getheader("connection") == "close"
    connection.request("GET", "/v2/models/toy")
    assert b'"v2"' in connection.getresponse().read()
    connection.close()
    take_everything(runners, old)


def test_sigterm_drains(runners, bundles):
    runner = serve(runners, bundles())
    call(runners.port, "POST", INFER, inference(ROW))
    os.kill(runners.views()[0].pid, signal.SIGTERM)
    assert take_everything(runners, runner) == 1
    assert runners.deaths() == ()


def test_a_runner_leaves_no_files_behind(runners, bundles):
    runner = serve(runners, bundles())
    run = runners._run
    assert socket_path(run, runner).exists()
    assert blame_path(run, runner).exists()
    runners.drain(runner)
    take_everything(runners, runner)
    assert not socket_path(run, runner).exists()
    assert not blame_path(run, runner).exists()


def test_two_agents_cannot_share_a_port(runners, tmp_path):
    other = Runners(tmp_path / "other", port=runners.port)
    with pytest.raises(Unavailable, match="OUT-N106"):
        other.adopt()


def test_a_run_folder_whose_sockets_would_have_too_long_paths_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="at most 107 bytes"):
        Runners(tmp_path / ("x" * 100), port=0)


def test_the_supervisors_side_imports_neither_numpy_nor_onnxruntime():
    script = (
        "import sys, edge_agent.runners\n"
        "print(sorted({'numpy', 'onnxruntime', 'uvicorn', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"
