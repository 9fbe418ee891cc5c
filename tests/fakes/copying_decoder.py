"""A decoder whose payloads are the file itself in small blocks, and which can be held or killed.

Run as a module in the place of `edge_agent.decoder`; how it is held, `tests.fakes.held_decoder`
says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from edge_agent.decoder import FileBase, Resume, main
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_SEGMENTS, MAX_BLOCK, Header
from tests.fakes.held_decoder import held

BLOCK: Final = 16 * 1024
COMMAND: Final = (sys.executable, "-m", "tests.fakes.copying_decoder")


def payload_of(file: bytes, base: bytes = b"") -> bytes:
    """As this decoder reads it."""
    start = digest_of(base) if base else None
    return Header(FEATURE_SEGMENTS, start, digest_of(file), len(file), MAX_BLOCK).pack() + file


def resume(
    source: BinaryIO, _: Header, __: FileBase | None, written: int
) -> tuple[int, Iterator[bytes]]:
    at = written // BLOCK * BLOCK
    source.seek(at, os.SEEK_CUR)
    return at, held(iter(lambda: source.read(BLOCK), b""), at)


def _find() -> Resume:
    return resume


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _find))
