"""The real decoder, which can be held or killed between two blocks.

Run as a module in the place of `edge_agent.decoder`. `GATE` names a FIFO of which one byte is read
before each block; `KILL_AT` the byte of the file at which the block begins before which it kills
itself, unless the file `KILLED` says that it did so already; `DECODED` a file that gets one byte
for each block.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from edge_agent.decoder import FileBase, Resume, main
from protocol.payload import Header

COMMAND: Final = (sys.executable, "-m", "tests.fakes.held_decoder")


def held(blocks: Iterator[bytes], at: int) -> Iterator[bytes]:
    """The same blocks, the first of which begins at byte `at`."""
    gate = os.open(os.environ["GATE"], os.O_RDONLY) if "GATE" in os.environ else None
    counted = Path(os.environ.get("DECODED", os.devnull))
    once = Path(os.environ.get("KILLED", "/nowhere"))
    for block in blocks:
        if gate is not None:
            os.read(gate, 1)
        if at == int(os.environ.get("KILL_AT", "-1")) and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with counted.open("ab") as count:
            count.write(b".")
        yield block
        at += len(block)


def _find() -> Resume:
    from coding.decoding import resume

    def holding(
        source: BinaryIO, header: Header, base: FileBase | None, written: int
    ) -> tuple[int, Iterator[bytes]]:
        at, blocks = resume(source, header, base, written)
        return at, held(blocks, at)

    return holding


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _find))
