"""A process that decodes what it is given, and somebody who watches it."""

from __future__ import annotations

import multiprocessing as mp
import os
import resource
import time
from contextlib import suppress
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Final

from coding import decoding
from protocol.errors import PeerError
from protocol.payload import MAX_BLOCK, MAX_DECODE_MEMORY
from tests.coding.bodies import Bytes
from tests.fakes.peak import peak_of
from tests.fuzz.corpus import Case, by_hand

SECONDS: Final = 5
ROOM: Final = 64 * 1024 * 1024
"""Address space beyond what the process has once it is warm."""


def decoded(case: Case, written: int = 0) -> str:
    """What is wrong with how the decoder took it; empty: nothing."""
    size = case.header.target_size
    base = None if case.base is None else Bytes(case.base)
    whole = bytearray()
    try:
        for block in decoding.blocks(BytesIO(case.body), case.header, base):
            if len(block) > MAX_BLOCK or len(whole) + len(block) > size:
                return "a block is too large"
            whole += block
    except PeerError:
        return ""
    if len(whole) != size:
        return f"it gave {len(whole):,} of {size:,} bytes"
    at, rest = decoding.resume(BytesIO(case.body), case.header, base, written)
    if at > written or b"".join(rest) != whole[at:]:
        return f"from byte {written:,} on it is another"
    return ""


class Watched:
    """Decodes one case after the other, in a process that may die of it."""

    def __init__(self) -> None:
        self._context = mp.get_context("spawn")
        self._start()

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def wrong(self, case: Case, written: int = 0) -> str:
        """What is wrong; empty: nothing."""
        self._ours.send((case, written))
        # The process itself is held to its time; what is left here is for a busy machine.
        if not self._ours.poll(20 * SECONDS):
            self._end()
            self._start()
            return f"no answer within {20 * SECONDS} s"
        try:
            found: str = self._ours.recv()
        except EOFError:
            self._end()
            self._start()
            return "it died"
        return found

    def _start(self) -> None:
        self._ours, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        self._ours.close()
        self._process.kill()
        self._process.join()


def _work(connection: Connection) -> None:
    for case in by_hand():
        decoded(case)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            case, written = connection.recv()
            began = time.process_time()
            with peak_of(os.getpid()) as peak:
                try:
                    found = decoded(case, written)
                except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
                    found = repr(error)
                # What was decoded is held here, twice: that is not the decoder's.
                grown = peak() - 2 * min(case.header.target_size, 16 * MAX_BLOCK)
            lasted = time.process_time() - began
            if not found and lasted > SECONDS:
                found = f"it took {lasted:.1f} s"
            if not found and grown > MAX_DECODE_MEMORY:
                found = f"it took {grown:,} bytes"
            connection.send(found)
