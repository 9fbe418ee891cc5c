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
