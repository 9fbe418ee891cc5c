"""Runner processes: how they are started, watched and ended."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.runner.views import Door

ENVIRONMENT: Final[Mapping[str, str]] = {
    # glibc gives the memory of an unloaded model back only below this threshold.
    "MALLOC_MMAP_THRESHOLD_": "131072",
    # One thread answers; the other hardly allocates.
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Otherwise its makers hear what it runs.
    "ORT_DISABLE_TELEMETRY": "1",
    # Otherwise a model's file could bring session options of its own.
    "ORT_LOAD_CONFIG_FROM_MODEL": "0",
}
LOG_LIMIT: Final = 1_000_000
LINE_FD: Final = 3
LISTENER_FDS: Final[Mapping[Door, int]] = {"loopback": 4, "socket": 5, "network": 6}


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its pidfd, so that it can never be mistaken for a later one of that number."""

    pid: int
    pidfd: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """Raises `ProcessLookupError` if there is none."""
        return cls(pid, os.pidfd_open(pid))

    def exited(self, timeout_s: float = 0) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def status(self) -> int | None:
        """Exit status, or minus the signal, of an exited process. None if it is not our child."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        os.close(self.pidfd)


def spawn(
    run: Path,
    runner: str,
    listeners: Mapping[Door, socket.socket],
    *,
    token_file: Path | None,
    run_limit_s: float,
    address_space_bytes: int,
) -> tuple[Process, socket.socket]:
    """Start a runner in a session of its own; it gets the listeners and one end of a new line.

    Nothing else is inherited: every other descriptor of ours is CLOEXEC.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    arguments = [
        sys.executable,
        "-P",  # whatever lies in the current folder is none of our modules
        "-m",
        "edge_agent.runner.process",
        f"--run={run}",
        f"--id={runner}",
        *(f"--{door}={LISTENER_FDS[door]}" for door in listeners),
        *([] if token_file is None else [f"--token-file={token_file}"]),
        f"--line={LINE_FD}",
        f"--run-limit={run_limit_s}",
        f"--address-space={address_space_bytes}",
    ]
    output = _output(run)
    # Away from the targets: a duplicate onto one of them must not overwrite the next source.
    sources = [
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)
        for fd in (output, theirs.fileno(), *(each.fileno() for each in listeners.values()))
    ]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            sys.executable,
            arguments,
            {**os.environ, **ENVIRONMENT},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, sources[0], 1),
                (os.POSIX_SPAWN_DUP2, sources[0], 2),
                (os.POSIX_SPAWN_DUP2, sources[1], LINE_FD),
                *(
                    (os.POSIX_SPAWN_DUP2, source, LISTENER_FDS[door])
                    for door, source in zip(listeners, sources[2:], strict=True)
                ),
            ],
            setsid=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for descriptor in (null, output, *sources):
            os.close(descriptor)
    return Process.of(pid), ours


def _output(run: Path) -> int:
    """Where a runner writes: our stderr, or <run>/runner.log where that is a pipe.

    A runner outlives its supervisor, and would keep whoever reads that pipe waiting, or die
    writing to it.
    """
    try:
        if not stat.S_ISFIFO(os.fstat(2).st_mode):
            return fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 16)
    except OSError:
        pass
    path = run / "runner.log"
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_LIMIT:
            path.replace(run / "runner.log.1")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
