"""An agent in a world that is not right: `python -m tests.soak.agent HOME PORT BROKER WORLD DIARY`.

Everything in it is the real agent, but for three places: the wall clock, what its link hands in,
and how long it waits for a runner that hangs (2 s, so that a schedule sees it). What it decides
about its runners it also writes into a diary, because from outside one cannot tell a runner that
was told to leave from one that died.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Timer
from typing import Any, Final

from edge_agent import daemon, wiring
from edge_agent.inbox import Inbox
from edge_agent.runners import Runners
from edge_agent.runners.child import Process
from edge_agent.settings import read
from protocol.errors import OutriderError
from tests.soak.world import WorldFile

HANGS_S: Final = 2.0
OLD: Final = 200
"""Earlier messages that noise may bring back."""


class Format(logging.Formatter):
    """With the time of the machine's monotonic clock, which no jump can touch."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{time.monotonic():.3f} {super().format(record)}"


def jump(world: WorldFile) -> None:
    """From now on this process reads a wall clock that may be wrong."""
    right: Callable[[], int] = time.time_ns

    def wrong_ns() -> int:
        return max(0, right() + int(world.read().ahead_s * 1e9))

    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9


class NoisyInbox(Inbox):
    """While the world is noisy: every message twice, late and out of order, with a damaged copy
    of itself and with old ones. All of it is what a bad network or a hostile broker can do."""

    def __init__(self, world: WorldFile) -> None:
        super().__init__()
        self._world = world
        self._rng = random.Random()
        self._old: deque[tuple[str, bytes]] = deque(maxlen=OLD)

    def message(self, topic: str, data: bytes) -> None:
        if not self._world.read().noise:
            self._old.append((topic, data))
            super().message(topic, data)
            return
        told = [(topic, data), (topic, data), (topic, self._damaged(data))]
        if self._old:
            told += self._rng.choices(self._old, k=3)
        self._old.append((topic, data))
        for each in told:
            later = Timer(self._rng.uniform(0.0, 0.5), super().message, each)
            later.daemon = True
            later.start()
        # Not lost: it comes once more after all these. Old ones that later messages bring back may
        # still follow, and must change nothing.
        last = Timer(0.6, super().message, (topic, data))
        last.daemon = True
        last.start()

    def _damaged(self, data: bytes) -> bytes:
        if not data:
            return b"\0" * 100_000
        place = self._rng.randrange(len(data))
        match self._rng.randrange(3):
            case 0:
                return data[:place]
            case 1:
                return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        return data * 40


class Diary:
    """Lines of JSON behind each other; nothing that fails here may fail the agent."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, what: str, pid: int) -> None:
        line = json.dumps({"at": time.monotonic(), "what": what, "pid": pid})
        os.write(self._file, line.encode() + b"\n")


def watch(runners: Any, process: Any, diary: Diary) -> None:
    """Have all runners, of whatever class below `Runners`, written about."""
    begin, adopt, kill = runners.__init__, runners.adopt, process.kill

    def impatient(self: Any, *positional: Any, **named: Any) -> None:
        begin(self, *positional, **{"call_s": HANGS_S, **named})

    def adopting(self: Any) -> None:
        adopt(self)
        diary.note("listens", os.getpid())

    def killing(self: Any) -> None:
        diary.note("kill", self.pid)
        kill(self)

    def noted(what: str) -> Callable[[Any, str], None]:
        do = getattr(runners, what)

        def noting(self: Any, runner: str) -> None:
            known = self._known.get(runner)
            if known is not None:
                diary.note(what, known.process.pid)
            do(self, runner)

        return noting

    runners.__init__, runners.adopt, process.kill = impatient, adopting, killing
    for what in ("promote", "drain", "park"):
        if hasattr(runners, what):
            setattr(runners, what, noted(what))


def main(arguments: Sequence[str]) -> int:
    home, port, broker, world_file, diary_file = arguments
    world, diary = WorldFile(Path(world_file)), Diary(Path(diary_file))
    jump(world)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Format("%(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("tuf").setLevel(logging.WARNING)
    parts: Any = wiring
    parts.Inbox = functools.partial(NoisyInbox, world)
    watch(Runners, Process, diary)
    try:
        wiring.run_agent(read(os.environ, Path(home), int(port), broker))
    except OutriderError as error:
        sys.stderr.write(f"{error}\n")
        return error.problem.exit
    except OSError as error:
        sys.stderr.write(f"{daemon.of_the_machine(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
