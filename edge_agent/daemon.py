"""The process that `outrider-agent run` becomes, without what it takes to read a command line.

It stays for months on a device with little memory; the command line's libraries would stay too.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn

from edge_agent import installed, journald
from edge_agent.recent import Recent
from edge_agent.settings import Settings, read
from protocol.errors import Failed, InvalidRequest, OutriderError, Unavailable
from protocol.telling import told

_LEVELS: Final = (logging.INFO, logging.DEBUG)
_NONE: Final = "-"
_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def become(settings: Settings, verbose: int) -> NoReturn:
    """Replace this process, which keeps its number, its streams and its place."""
    listen = "[{}]:{}".format(*settings.listen) if settings.listen else _NONE
    arguments = (
        settings.paths.home,
        settings.port,
        settings.broker or _NONE,
        listen,
        settings.token or _NONE,
        verbose,
    )
    # -P: what lies in the current folder is not ours to import.
    command = [sys.executable, "-P", "-m", __name__, *map(str, arguments)]
    installed.remember()
    # Threads of the agent allocate little: an arena for each would hold more than they do.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)


def main(arguments: Sequence[str]) -> int:
    _leave_out_urllib3()
    from edge_agent.wiring import run_agent

    home, port, broker, listen, token, verbose = arguments
    recent = _log(_LEVELS[min(int(verbose), 1)])
    # It says of each missing signature of a quorum that it is missing, at every refresh.
    logging.getLogger("tuf").setLevel(logging.WARNING)
    settings = read(
        os.environ,
        Path(home),
        int(port),
        None if broker == _NONE else broker,
        None if listen == _NONE else listen,
        None if token == _NONE else Path(token),
    )
    try:
        run_agent(settings, recent)
    except OutriderError as error:
        return _failed(error)
    except OSError as error:
        return _failed(of_the_machine(error))
    return 0


def _leave_out_urllib3() -> None:
    """`tuf.ngclient` brings a fetcher of its own for whoever gives it none, and with it urllib3,
    which would keep more than a megabyte of this process. The agent always gives it one."""
    module = ModuleType("tuf.ngclient.urllib3_fetcher")
    module.Urllib3Fetcher = type("Urllib3Fetcher", (), {})  # type: ignore[attr-defined] # as said
    sys.modules.setdefault(module.__name__, module)


def _log(level: int) -> Recent:
    """To stderr as whoever reads it there likes it, and to memory for `outrider-agent logs`."""
    journal = journald.is_stderr(os.environ)
    stream = logging.StreamHandler(sys.stderr)
    formatter = journald.Prefixed() if journal else logging.Formatter(_FORMAT)
    stream.setFormatter(formatter)
    recent = Recent(journal=journal)
    logging.basicConfig(level=level, handlers=[stream, recent])
    return recent


def of_the_machine(error: OSError) -> OutriderError:
    """What a device's storage refuses, in our words."""
    why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno == errno.ENOSPC:
        return Unavailable("OUT-D201", why)
    if isinstance(error, PermissionError):
        return InvalidRequest("OUT-D405", why)
    return Failed("OUT-D405", why, do="check the storage, or choose another folder with --home")


def _failed(error: OutriderError) -> int:
    sys.stderr.write("\n".join(told(error)) + "\n")
    return error.problem.exit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
