"""A payload is decoded beside the agent: killed, orphaned, resumed, refused."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.decode import decode
from edge_agent.decoder import Task
from edge_agent.decoding import decode_beside
from protocol.errors import PeerError, TrustError, Unavailable
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_SEGMENTS, MAX_BLOCK, Header
from tests.fakes.copying_decoder import BLOCK, COMMAND, payload_of

FILE = random.Random(1).randbytes(5 * BLOCK + 100)
BLOCKS = 6


@pytest.fixture
def task(tmp_path: Path) -> Task:
    payload = tmp_path / ".p-1"
    payload.write_bytes(payload_of(FILE))
    return Task(os.getpid(), payload, tmp_path / ".d-1", digest_of(FILE), len(FILE))


def decoded(task: Task) -> bytes:
    decode_beside(task, command=COMMAND)
    return task.out.read_bytes()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_killed_at_any_block_decoding_goes_on_and_gives_the_same_file(task, monkeypatch, block):
    monkeypatch.setenv("KILL_AT", str(block * BLOCK))
    monkeypatch.setenv("KILLED", str(task.out.with_name("killed")))
    with pytest.raises(Unavailable, match=r"F109.*signal 9"):
        decode_beside(task, command=COMMAND)
    assert task.out.stat().st_size <= block * BLOCK
    assert decoded(task) == FILE


@pytest.mark.parametrize("size", [0, 1, BLOCK, 2 * BLOCK + 7, len(FILE)])
def test_what_lies_there_is_taken_over(task, monkeypatch, size):
    task.out.write_bytes(FILE[:size])
    # It would die if it decoded the first block once more.
    monkeypatch.setenv("KILL_AT", "0" if size >= BLOCK else "-1")
    monkeypatch.setenv("KILLED", str(task.out.with_name("killed")))
    assert decoded(task) == FILE


@pytest.mark.parametrize(
    "there", [bytes(3 * BLOCK), FILE[:BLOCK] + bytes(BLOCK), bytes(len(FILE)), bytes(10**6)]
)
def test_zeros_in_what_was_written_before_a_power_cut_cost_one_decode_from_the_beginning(
    task, there
):
    task.out.write_bytes(there)
    assert decoded(task) == FILE


def test_a_payload_that_gives_something_else_is_refused_and_leaves_nothing(task):
    task.payload.write_bytes(payload_of(FILE)[:-1] + b"?")
    with pytest.raises(TrustError, match="T103"):
        decode_beside(task, command=COMMAND)
    assert task.out.stat().st_size == 0


@pytest.mark.parametrize("data", [b"", b"nonsense", payload_of(FILE)[:-1], payload_of(b"other")])
def test_a_malformed_payload_is_refused(task, data):
    task.payload.write_bytes(data)
    with pytest.raises(PeerError, match="F110"):
        decode_beside(task, command=COMMAND)


def test_more_than_the_signed_size_is_never_written(task):
    task.payload.write_bytes(payload_of(FILE) + b"x")
    with pytest.raises(PeerError, match="F110"):
        decode_beside(task, command=COMMAND)
    assert task.out.stat().st_size <= len(FILE)


BASE = b"what it starts from" * 1000


def test_the_base_is_hashed_before_it_counts(task, tmp_path):
    base = tmp_path / ".b-1"
    task.payload.write_bytes(payload_of(FILE, BASE))
    with_base = Task(task.parent, task.payload, task.out, task.digest, task.size, base)
    with pytest.raises(Unavailable, match="F104"):
        decode_beside(task, command=COMMAND)
    with pytest.raises(Unavailable, match="F104"):
        decode_beside(with_base, command=COMMAND)
    base.write_bytes(BASE[:-1] + b"?")
    with pytest.raises(Unavailable, match="F104"):
        decode_beside(with_base, command=COMMAND)
    assert task.out.stat().st_size == 0
    base.write_bytes(BASE)
    assert decoded(with_base) == FILE


def test_whoever_stops_need_not_wait_for_the_end(task, tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    monkeypatch.setenv("GATE", str(gate))
    with pytest.raises(Unavailable, match="F109"):
        decode_beside(task, command=COMMAND, stopping=lambda: True)
    monkeypatch.delenv("GATE")
    assert decoded(task) == FILE


def test_a_decoder_whose_parent_was_killed_ends_by_itself(task, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edge_agent.decoder import Task\n"
        "from edge_agent.decoding import decode_beside\n"
        f"task = Task.of([str(os.getpid()), *{task.arguments()[1:]!r}])\n"
        f"decode_beside(task, command={COMMAND!r})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "GATE": str(gate)})
    # Opens once the decoder has come to its first block.
    with gate.open("wb", buffering=0) as held:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        held.write(b"." * BLOCKS)
        with task.out.open("rb") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            assert out.read() == b"", "it went on for nobody"
    assert decoded(task) == FILE


def test_what_the_disk_refuses_is_the_agents_to_see(task, tmp_path):
    away = Task(task.parent, task.payload, tmp_path / "no" / "out", task.digest, task.size)
    with pytest.raises(FileNotFoundError):
        decode_beside(away, command=COMMAND)


def test_the_real_decoder_refuses_what_is_no_payload_in_the_same_words(tmp_path):
    payload = tmp_path / ".p-1"
    header = Header(FEATURE_SEGMENTS, None, digest_of(FILE), len(FILE), MAX_BLOCK)
    payload.write_bytes(header.pack() + b"nonsense" * 100)
    with pytest.raises(PeerError, match="F110"):
        decode(payload, tmp_path / "out", digest_of(FILE), len(FILE))
    assert not (tmp_path / "out").exists()


def test_the_agent_itself_loads_neither_numpy_nor_the_coding_of_deltas():
    script = "import sys, edge_agent.wiring; print(*{n.partition('.')[0] for n in sys.modules})"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"numpy", "coding"} & set(said) == set()
