"""A decoder whose payloads are the file itself in small blocks, and which can be held or killed.

Run as a program in the place of `edge_agent.decoder`. `GATE` names a FIFO of which one byte is
read before each block; `KILL_AT` the block before which it kills itself, once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from edge_agent.decoder import FileBase, Resume, main
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_SEGMENTS, MAX_BLOCK, Header

BLOCK: Final = 16 * 1024
COMMAND: Final = (sys.executable, str(Path(__file__)))


def payload_of(file: bytes, base: bytes = b"") -> bytes:
    """As this decoder reads it."""
    start = digest_of(base) if base else None
    return Header(FEATURE_SEGMENTS, start, digest_of(file), len(file), MAX_BLOCK).pack() + file


def resume(
    source: BinaryIO, _: Header, __: FileBase | None, written: int
) -> tuple[int, Iterator[bytes]]:
    at = written // BLOCK * BLOCK
    source.seek(at, os.SEEK_CUR)
    return at, _blocks(source, at // BLOCK)


def _blocks(source: BinaryIO, number: int) -> Iterator[bytes]:
    gate = os.open(os.environ["GATE"], os.O_RDONLY) if "GATE" in os.environ else None
    while block := source.read(BLOCK):
        if gate is not None:
            os.read(gate, 1)
        once = Path(os.environ.get("KILLED", "/nowhere"))
        if number == int(os.environ.get("KILL_AT", "-1")) and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield block
        number += 1


def _find() -> Resume:
    return resume


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _find))
