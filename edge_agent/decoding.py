"""Has a payload decoded by a process of its own, and says what became of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from edge_agent.decoder import Task
from edge_agent.runners.child import Process
from protocol.errors import OutriderError, PeerError, TrustError, Unavailable

COMMAND: Final = (sys.executable, "-P", "-m", "edge_agent.decoder")
START_S: Final = 60.0
LEAST_BYTES_PER_S: Final = 250_000
LOOK_S: Final = 0.5
"""How often the decoder is looked after by somebody who may want to stop."""
ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    # Every block takes what the one before gave back. Left to itself glibc gives arrays of a
    # block's size back to the kernel each time: a third of the time went into fetching pages.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
}
_MOST_SAID: Final = 4096
_FAMILIES: Final[dict[str, type[OutriderError]]] = {
    "OUT-F104": Unavailable,
    "OUT-F110": PeerError,
    "OUT-T103": TrustError,
}


def decode_beside(
    task: Task,
    *,
    stopping: Callable[[], bool] = lambda: False,
    command: tuple[str, ...] = COMMAND,
) -> None:
    """Have `task.out` made the file that it should be; returns when it is, synced.

    Raises `PeerError` OUT-F110, `TrustError` OUT-T103, `Unavailable` OUT-F104 as the decoder
    does; `Unavailable` OUT-F109 where it came to no end, or `stopping` said so; `OSError`. What
    was written so far stays, except after OUT-T103.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    process: Process | None = None
    try:
        try:
            pid = os.posix_spawn(
                command[0],
                [*command, *task.arguments()],
                {**os.environ, **ENVIRONMENT},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, writing, 1),
                ],
            )
        finally:
            os.close(writing)
        process = Process.of(pid)
        deadline_s = time.monotonic() + START_S + task.size / LEAST_BYTES_PER_S
        while not process.exited(LOOK_S):
            if stopping() or time.monotonic() > deadline_s:
                process.kill()
        status = process.status()
        said = os.read(reading, _MOST_SAID)
    finally:
        os.close(reading)
        if process is not None:
            process.close()
    if status != 0:
        raise _failure(status, said)


def _failure(status: int | None, said: bytes) -> Exception:
    """What a decoder said on its way out, as far as it makes sense."""
    try:
        found: Any = json.loads(said)
        if "errno" in found:
            return OSError(int(found["errno"]), str(found["why"]))
        return _FAMILIES[found["code"]](found["code"], str(found["why"])[:300])
    except (ValueError, KeyError, TypeError):
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        return Unavailable("OUT-F109", how)
