"""What a decoder takes does not depend on the size of a model."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coding import decoding
from edge_agent.decode import file_digest
from edge_agent.decoder import Task
from edge_agent.decoding import decode_beside
from protocol.identifiers import digest_from_hex
from protocol.payload import MAX_DECODE_MEMORY, Header
from tests.coding import bodies
from tests.fakes.measured_decoder import COMMAND

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


class Repeated:
    """A file that is the same block again and again, which nobody has to hold."""

    def __init__(self, block: bytes, times: int) -> None:
        self._block = block
        self.size = times * len(block)

    def read(self, offset: int, length: int) -> bytes:
        at = offset % len(self._block)
        return (2 * self._block)[at : at + length]


def test_64_mb_of_floats_are_decoded_within_8_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (head, block, times), old = bodies.large()
    base, payload, out = tmp_path / "base", tmp_path / ".p-1", tmp_path / ".d-1"
    with base.open("wb") as file:
        for _ in range(times):
            file.write(old)
    header = replace(bodies.large_header(), base=file_digest(base))
    with payload.open("wb") as file:
        file.write(header.pack() + head)
        for _ in range(times):
            file.write(block)
    header = replace(header, target=_target(payload, header, Repeated(old, times)))
    with payload.open("r+b") as file:
        file.write(header.pack())
    peak = tmp_path / "peak"
    monkeypatch.setenv("PEAK", str(peak))
    task = Task(os.getpid(), payload, out, header.target, header.target_size, base)
    decode_beside(task, command=COMMAND)
    assert out.stat().st_size == header.target_size == 64 * 1024 * 1024
    assert int(peak.read_text()) < MAX_DECODE_MEMORY


def _target(payload: Path, header: Header, base: Repeated) -> str:
    """Digest of what it becomes."""
    seen = hashlib.sha256()
    with payload.open("rb") as source:
        source.seek(len(header.pack()))
        for block in decoding.blocks(source, header, base):
            seen.update(block)
    return digest_from_hex(seen.hexdigest())
