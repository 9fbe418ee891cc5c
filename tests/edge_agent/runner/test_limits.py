"""What one model may take of a device: memory, time, and options of its session."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from edge_agent.room import Need, address_space
from edge_agent.runner.blame import Notebook
from edge_agent.runner.bundle import read_bundle
from edge_agent.runner.served import Served
from edge_agent.runner.session import Session
from edge_agent.runners import RunnerFailed
from edge_agent.runners.child import ENVIRONMENT
from protocol.members import Policy, SessionOptions
from tests.fakes.callers import ROW, call, inference

INFER = "/v2/models/toy/infer"
HUNGRY_ROW = (10.0, 0.0, 0.0, 0.0)
SIDE = 3536
"""A matrix of 50 MB."""


def serve(runners, load):
    standby = runners.start((load,))
    runners.probe(standby.id, "toy")
    runners.promote(standby.id)
    return standby


def private_dirty(pid):
    """Bytes of memory that only the end of a process gives back."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) * 1024


def test_a_request_for_which_a_model_wants_8_gib_is_answered_with_its_failure(new_runners, bundles):
    runners = new_runners(
        address_space_bytes=lambda loads: address_space([load.need for load in loads], 2**40)
    )
    runners.adopt()
    view = serve(runners, bundles(hungry=True))
    status, answer = call(runners.port, "POST", INFER, inference(HUNGRY_ROW))
    assert status == 500
    assert "OUT-I110" in answer["error"]
    assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200
    assert runners.peek(view.id)["toy"].errors == 1
    assert runners.deaths() == ()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for buffer of 5"),
        MemoryError(),
    ],
)
def test_a_bundle_that_memory_does_not_suffice_for_is_not_called_broken(
    bundles, tmp_path, monkeypatch, error
):
    def fail(*given, **named):
        raise error

    load = bundles()
    notebook = Notebook(tmp_path / "note", [(load.model, load.digest)])
    served = Served(load, 0, notebook, lambda *what: None)
    monkeypatch.setattr(served._session, "_bare", fail)
    with pytest.raises(RunnerFailed, match="OUT-D202"):
        served.probe()
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(RunnerFailed, match="OUT-D202"):
        Served(load, 0, notebook, lambda *what: None)


def test_a_runner_is_limited_by_what_it_is_to_hold(new_runners, bundles):
    runners = new_runners(address_space_bytes=lambda loads: 2**30 + 2**20 * len(loads))
    runners.adopt()
    view = runners.start((bundles(), bundles(model="other")))
    limits = Path(f"/proc/{view.pid}/limits").read_text().splitlines()
    (space,) = [line.split()[3:5] for line in limits if line.startswith("Max address space")]
    assert space == [str(2**30 + 2**21)] * 2


def test_weights_in_a_file_of_their_own_stay_in_it(runners, bundles):
    """Loosely: what 50 MB of weights add to private memory, in a runner that has used them."""
    taken = []
    for load in (bundles(), bundles(ballast=SIDE)):
        # Pages of a file that is not written out yet would count as private.
        os.sync()
        view = serve(runners, load)
        assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200
        taken.append(private_dirty(view.pid))
        runners.kill(view.id)
    assert taken[1] - taken[0] < 40_000_000


@pytest.mark.parametrize(
    "chosen, found",
    [
        pytest.param(SessionOptions(), (1, False, "ORT_ENABLE_ALL", ""), id="defaults"),
        pytest.param(
            SessionOptions(2, True, "off", "basic"), (2, True, "ORT_ENABLE_BASIC", "1"), id="chosen"
        ),
        pytest.param(
            SessionOptions(8, False, "on", "none"), (8, False, "ORT_DISABLE_ALL", ""), id="others"
        ),
    ],
)
def test_a_session_has_the_options_of_its_signed_policy(bundles, chosen, found):
    bundle = read_bundle(bundles().path)
    session = Session(replace(bundle, policy=Policy(session=chosen)))
    options = session._session.get_session_options()
    try:
        packing = options.get_session_config_entry("session.disable_prepacking")
    except RuntimeError:
        packing = ""
    assert (
        options.intra_op_num_threads,
        options.enable_cpu_mem_arena,
        options.graph_optimization_level.name,
        packing,
    ) == found


def test_a_models_file_can_set_no_option():
    """onnxruntime would read options from a model's metadata where its environment says so."""
    assert ENVIRONMENT["ORT_LOAD_CONFIG_FROM_MODEL"] == "0"


def test_the_memory_a_load_needs_is_no_part_of_what_it_is(bundles):
    load = bundles()
    assert replace(load, need=Need(5, 7)) == load


def test_onnxruntimes_makers_do_not_hear_what_runs_here(tmp_path):
    import_it = "import edge_agent.runner.session as s; s.onnxruntime.SessionOptions()"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", import_it], check=True, env=environment)
    # Where they keep what was not sent yet.
    assert list(tmp_path.iterdir()) == []
