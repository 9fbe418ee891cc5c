"""A technician's commands start fast: they load nothing heavy. No timing: what is not loaded."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp", "cryptography", "numpy", "onnxruntime", "paho", "securesystemslib", "sqlite3",
    "ssl", "tuf", "uvicorn", "zstandard",
}  # fmt: skip
ASKING = (
    ("status",),
    ("doctor",),
    ("logs",),
    ("rollback",),
    ("pin", "digits/v1"),
    ("unpin",),
    ("install", "--from", "."),
)


def loaded(words, home) -> set[str]:
    """Top-level modules after a command that ran against a device that answers."""
    script = (
        "import json, sys\n"
        "from edge_agent import cli\n"
        f"cli.run_command({[*words, '--home', str(home)]!r})\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    return set(json.loads(said.splitlines()[-1]))


@pytest.mark.parametrize("words", ASKING, ids=lambda words: words[0])
def test_a_command_that_asks_the_agent_loads_no_heavy_library(words, tmp_path):
    from tests.fakes.attended import Attended

    device = Attended(tmp_path / "device")
    with device.answering():
        assert loaded(words, device.home) & HEAVY == set()


def test_the_control_plane_is_never_loaded_on_a_device(tmp_path):
    assert "control_plane" not in loaded(("status",), tmp_path)


def test_the_supervisor_loads_neither_numpy_nor_what_runs_models(tmp_path):
    """Detectors of drift are stepped there, and the wire's batches made: both in plain Python."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge_agent import daemon, wiring\n"
        "from edge_agent.buffer import Outbox\n"
        "from protocol.members import Feature, Profile\n"
        "from tests.fakes.telemetry import Counts, Take, drift, inference\n"
        "feature = Feature('x', (0.5,), (100, 100, 0, 0))\n"
        "profile = Profile(200, (feature, feature))\n"
        "outbox = Outbox(Path(sys.argv[1]) / 'outbox.db', profile_of=lambda _: profile)\n"
        "outbox.commit_take(Take('r', 1, (Counts(inference(60), drift(60)),)), 0.0, 1)\n"
        "outbox.close_all()\n"
        "assert outbox.drift(drift(60).manifest).windows == 1\n"
        "assert not {'numpy', 'onnxruntime'} & set(sys.modules)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
