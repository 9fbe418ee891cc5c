import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.runner import blame
from edge_agent.runner.blame import Blame, Notebook, read_blame
from protocol.identifiers import digest_of

MODELS = [("toy", digest_of(b"toy")), ("digits", digest_of(b"digits"))]


def test_an_idle_runner_blames_nobody(tmp_path):
    notebook = Notebook(tmp_path / "blame", MODELS)
    assert read_blame(tmp_path / "blame") is None
    assert notebook.busy_seconds() == 0


def test_the_model_that_is_busy_is_named_and_forgotten_afterwards(tmp_path):
    notebook = Notebook(tmp_path / "blame", MODELS)
    with notebook.busy("infer", 1):
        assert read_blame(tmp_path / "blame") == Blame("infer", "digits", digest_of(b"digits"))
        assert notebook.busy_seconds() >= 0
    with notebook.busy("load", 0):
        assert read_blame(tmp_path / "blame") == Blame("load", "toy", digest_of(b"toy"))
    assert read_blame(tmp_path / "blame") is None


def test_a_failed_run_does_not_leave_blame_behind(tmp_path):
    notebook = Notebook(tmp_path / "blame", MODELS)
    with pytest.raises(ValueError, match="it failed"), notebook.busy("infer", 1):
        raise ValueError("it failed")
    assert read_blame(tmp_path / "blame") is None


def test_the_note_survives_the_process_that_wrote_it(tmp_path):
    path = tmp_path / "blame"
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edge_agent.runner.blame import Notebook\n"
        f"with Notebook(Path({str(path)!r}), [('toy', {digest_of(b'toy')!r})]).busy('probe', 0):\n"
        "    os.abort()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode < 0
    assert read_blame(path) == Blame("probe", "toy", digest_of(b"toy"))


@pytest.mark.parametrize("taken", [None, 0, 10])
def test_a_full_disk_keeps_no_runner_from_working(tmp_path, monkeypatch, taken):
    """`taken`: bytes that still find room; None: an error instead."""

    def write(file, content):
        if taken is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return taken

    monkeypatch.setattr(os, "write", write)
    notebook = Notebook(tmp_path / "blame", MODELS)
    with notebook.busy("infer", 1):
        assert read_blame(tmp_path / "blame") is None
    assert notebook.busy_seconds() == 0
    assert not (tmp_path / "blame").exists()


def test_a_note_from_before_the_last_boot_blames_nobody(tmp_path, monkeypatch):
    notebook = Notebook(tmp_path / "blame", MODELS)
    with notebook.busy("infer", 0):
        monkeypatch.setattr(blame, "boot_id", lambda: "another boot")
        assert read_blame(tmp_path / "blame") is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x03\x00", id="cut short"),
        pytest.param(b"\x03\x00\x00\x00" + b"\0" * 12, id="no table"),
        pytest.param(b"\xff\xff\xff\xff" + b"\xff" * 100, id="noise"),
        pytest.param(b"\x03\x00\x09\x00" + b"\0" * 8 + b"\x02\0\0\0{}", id="empty table"),
    ],
)
def test_a_note_that_cannot_be_read_blames_nobody(tmp_path, content):
    (tmp_path / "blame").write_bytes(content)
    assert read_blame(tmp_path / "blame") is None
    assert read_blame(Path(os.devnull)) is None
    assert read_blame(tmp_path / "missing") is None
