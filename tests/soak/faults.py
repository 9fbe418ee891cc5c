"""Does what a schedule says, and undoes it. One object per run; all calls from one thread.

Which file is damaged is chosen from those that the design promises to survive one at a time: a
member of the *committed* bundle while the one before is intact, one of a journal's two slots, the
cache of trusted metadata, one of the two copies of the high-water marks, a plan or the device's
document (their marks tell), and a page of the outbox (which may lose records, and says so).
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge_agent.disk import Disk
from tests.fakes.whole_fleet import MODEL
from tests.soak.evidence import Span
from tests.soak.ground import Field, Ground, runner_pids
from tests.soak.schedule import Fault, Move
from tests.soak.world import World, write

PAGE: Final = 4096
_YEARS_S: Final = 20 * 365.25 * 86_400


class Faults:
    def __init__(self, ground: Ground, at: Field) -> None:
        self._ground = ground
        self._at = at
        self._world = World()
        self._stopped: dict[Fault, list[int]] = {}
        self._begun: dict[Fault, float] = {}
        self.absences: list[Span] = []
        self.harmless: list[Span] = []
        self.restarts = 0
        self.said: list[str] = []
        """What was done, with its moment."""
        self.supervisor_is_down = False

    def play(self, move: Move) -> None:
        if move.what == "begin":
            self._begun[move.fault] = time.monotonic()
            self._begin(move.fault)
        else:
            self._end(move.fault)
            if move.fault.kind in ("cut cable", "noise", "clock jump", "stop control plane"):
                self.harmless.append(Span(self._begun[move.fault], time.monotonic()))

    def _begin(self, fault: Fault) -> None:
        at, ground = self._at, self._ground
        match fault.kind:
            case "kill supervisor":
                self._kill_supervisor()
            case "kill runner":
                self._signal(fault, runner_pids(at.home), signal.SIGKILL)
            case "kill control plane":
                self.restarts += 1
                ground.kill_control_plane()
            case "kill broker":
                self.restarts += 1
                self._signal(fault, [ground.broker_pid()], signal.SIGKILL)
            case "stop supervisor":
                process = at.device.process
                pid = process.pid if process is not None and process.poll() is None else None
                self._signal(fault, [pid], signal.SIGSTOP)
            case "stop runner":
                self._signal(fault, runner_pids(at.home), signal.SIGSTOP)
            case "stop broker":
                self._signal(fault, [ground.broker_pid()], signal.SIGSTOP)
            case "stop control plane":
                self._signal(fault, [ground.control_pid()], signal.SIGSTOP)
            case "cut cable":
                assert at.device.cable is not None
                at.device.cable.cut()
            case "noise":
                self._be(World(self._world.ahead_s, fault.salt | 1))
            case "disk full":
                at.disk.full()
            case "clock jump":
                self._be(World(ahead_s(fault), self._world.noise))
            case _:
                self._damage(fault)
        self._say(f"begin {fault.kind}")

    def _end(self, fault: Fault) -> None:
        at, ground = self._at, self._ground
        match fault.kind:
            case "kill supervisor":
                self.start_supervisor()
            case "kill control plane":
                ground.start_control_plane()
            case "stop supervisor" | "stop runner" | "stop broker" | "stop control plane":
                for pid in self._stopped.pop(fault, ()):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            case "cut cable":
                assert at.device.cable is not None
                at.device.cable.restore()
            case "noise":
                self._be(World(self._world.ahead_s, 0))
            case "disk full":
                at.disk.free()
            case "clock jump":
                self._be(World(0.0, self._world.noise))
            case _:
                return
        self._say(f"end {fault.kind}")

    # --- processes --------------------------------------------------------------------------------

    def _kill_supervisor(self) -> None:
        process = self._at.device.process
        assert process is not None
        self.supervisor_is_down = True
        self.absences.append(Span(time.monotonic(), float("inf")))
        process.kill()
        process.wait()

    def start_supervisor(self) -> None:
        self._ground.start(self._at)
        self.supervisor_is_down = False

    def _signal(self, fault: Fault, pids: list[int] | list[int | None], number: int) -> None:
        reached = []
        for pid in pids:
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                    reached.append(pid)
        if number == signal.SIGSTOP:
            self._stopped[fault] = reached

    # --- files ------------------------------------------------------------------------------------

    def _damage(self, fault: Fault) -> None:
        rng = random.Random(fault.salt)
        files = self._files(fault)
        files = [path for path in files if path.is_file() and path.stat().st_size]
        if not files:
            return
        path = rng.choice(files)
        before = path.stat()
        if fault.kind == "damage outbox":
            spoil_page(path, rng)
        else:
            spoil_byte(path, rng)
        if rng.random() < 0.5:
            # As a failing disk does it: nothing but the bytes tells.
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self._say(f"damaged {path.relative_to(self._at.home)}")

    def _files(self, fault: Fault) -> list[Path]:
        home = self._at.home
        match fault.kind:
            case "damage member":
                return self._members()
            case "damage journal":
                return [home / "state" / f"{MODEL}.{slot}" for slot in (0, 1)]
            case "damage trust":
                return [home / "tuf" / "trusted.json"]
            case "damage marks":
                return sorted((home / "tuf").glob("marks*.json"))
            case "damage document":
                return [
                    home / "documents" / f"plan-{MODEL}.json",
                    home / "documents" / "document.dsse",
                ]
            case "damage outbox":
                return [home / "outbox.db"]
        return []

    def _members(self) -> list[Path]:
        """Files that only the committed bundle has: one that it shares with the bundle before
        (as a hard link) would take both away."""
        disk = Disk(self._at.home)
        journal = disk.journal(MODEL)
        if journal is None or journal.current is None or journal.previous is None:
            return []
        place = self._at.home / "bundles"
        if not (place / journal.previous).is_dir():
            return []
        others = [path for path in place.glob("*/*") if path.parent.name != journal.current]
        inodes = {path.stat().st_ino for path in others}
        mine = (place / journal.current).glob("*")
        return sorted(path for path in mine if path.stat().st_ino not in inodes)

    # --- the rest ---------------------------------------------------------------------------------

    def _be(self, world: World) -> None:
        self._world = world
        write(self._at.world, world)

    def _say(self, what: str) -> None:
        self.said.append(f"{time.monotonic():.3f} {what}")


def ahead_s(fault: Fault) -> float:
    match fault.jump:
        case "to 1970":
            return -time.time()
        case "20 years forward":
            return _YEARS_S
    return -3600.0


def spoil_byte(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        data = file.read()
        # A slot of a journal is mostly padding, whose bytes mean nothing.
        used = len(data.rstrip(b"\0"))
        place = rng.randrange(max(used, 1))
        file.seek(place)
        file.write(bytes([data[place] ^ (1 << rng.randrange(8))]))


def spoil_page(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        pages = path.stat().st_size // PAGE
        file.seek(rng.randrange(max(pages, 1)) * PAGE)
        file.write(rng.randbytes(PAGE))
