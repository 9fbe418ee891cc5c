"""Payloads of the real encoder, decoded beside the agent: killed at any block, and resumed."""

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
from protocol.errors import TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.held_decoder import COMMAND
from tests.fakes.real_delta import RealDelta, real_delta, tensors_and_trees

OLD, NEW = tensors_and_trees(trained=False), tensors_and_trees(trained=True)


@pytest.fixture(scope="module", params=["from what runs", "from nothing"])
def delta(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RealDelta:
    base = OLD if request.param == "from what runs" else None
    return real_delta(tmp_path_factory.mktemp("payloads"), NEW, base)


@pytest.fixture
def task(delta: RealDelta, tmp_path: Path) -> Task:
    out = tmp_path / ".d-1"
    return Task(os.getpid(), delta.payload, out, delta.digest, len(delta.target), delta.base)


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One byte for each block that was decoded."""
    path = tmp_path / "decoded"
    monkeypatch.setenv("DECODED", str(path))
    return path


def test_killed_before_each_block_in_turn_it_goes_on_and_gives_the_same_file(
    task, delta, decoded, tmp_path, monkeypatch
):
    for number, border in enumerate(delta.borders):
        monkeypatch.setenv("KILL_AT", str(border))
        monkeypatch.setenv("KILLED", str(tmp_path / f"killed {number}"))
        with pytest.raises(Unavailable, match=r"F109.*signal 9"):
            decode_beside(task, command=COMMAND)
        assert task.out.stat().st_size <= border
    monkeypatch.delenv("KILL_AT")
    decode_beside(task, command=COMMAND)
    assert task.out.read_bytes() == delta.target
    # Small blocks that had not left the process are decoded again, and no others.
    assert len(delta.borders) <= decoded.stat().st_size < 3 * len(delta.borders)


@pytest.mark.parametrize("seed", range(6))
def test_any_part_of_what_was_written_is_gone_on_with(task, delta, decoded, seed):
    written = random.Random(seed).randrange(len(delta.target) + 1)
    task.out.write_bytes(delta.target[:written])
    decode_beside(task, command=COMMAND)
    assert task.out.read_bytes() == delta.target
    whole = sum(border <= written for border in delta.borders[1:])
    assert decoded.stat().st_size == len(delta.borders) - whole


def test_a_whole_file_is_hashed_and_not_decoded(task, delta, decoded):
    task.out.write_bytes(delta.target)
    decode_beside(task, command=COMMAND)
    assert not decoded.exists()


DAMAGES = {
    "zeros": lambda part: bytes(len(part)),
    "one bit": lambda part: part[:-1] + bytes([part[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_a_power_cut_damaged_costs_one_decode_from_the_beginning(task, delta, decoded, damage):
    task.out.write_bytes(damage(delta.target[: delta.borders[-3]]))
    decode_beside(task, command=COMMAND)
    assert task.out.read_bytes() == delta.target
    assert decoded.stat().st_size == 3 + len(delta.borders)


@pytest.mark.parametrize("passed", [0, 3, 7])
def test_a_decoder_whose_parent_was_killed_ends_and_is_followed_by_another(
    task, delta, tmp_path, passed
):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = (
        "import os\n"
        "from edge_agent.decoder import Task\n"
        "from edge_agent.decoding import decode_beside\n"
        f"task = Task.of([str(os.getpid()), *{task.arguments()[1:]!r}])\n"
        f"decode_beside(task, command={COMMAND!r})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "GATE": str(gate)})
    # Opens once the decoder has come to its first block.
    with gate.open("wb", buffering=0) as opened:
        opened.write(b"." * passed)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        opened.write(b"." * len(delta.borders))
        with task.out.open("rb") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            written = out.read()
    assert delta.target.startswith(written)
    assert len(written) <= delta.borders[passed], "it went on for nobody"
    decode_beside(task)
    assert task.out.read_bytes() == delta.target


def test_a_delta_becomes_the_file_that_it_stands_for_and_leaves_nothing_else(delta, tmp_path):
    target = tmp_path / "model.onnx"
    decode(delta.payload, target, delta.digest, len(delta.target), delta.base)
    assert target.read_bytes() == delta.target
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_delta_that_gives_something_else_than_what_is_signed_is_refused(delta, tmp_path):
    """As from a control plane that lies about the digest, and about it in the header."""
    other = delta.target[:-1] + b"?"
    payload = tmp_path / ".p-1"
    data = delta.payload.read_bytes()
    named = bytes.fromhex(delta.digest[7:])
    payload.write_bytes(data.replace(named, bytes.fromhex(digest_of(other)[7:]), 1))
    with pytest.raises(TrustError, match="T103"):
        decode(payload, tmp_path / "model.onnx", digest_of(other), len(other), delta.base)
    assert not (tmp_path / "model.onnx").exists()
