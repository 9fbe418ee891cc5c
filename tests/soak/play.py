"""One run: a device, a schedule, and what was seen of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from protocol.errors import OutriderError
from tests.fakes.whole_fleet import MODEL, ready
from tests.soak.evidence import Evidence
from tests.soak.faults import Faults
from tests.soak.ground import Field, Ground
from tests.soak.invariants import CHECKS, violations
from tests.soak.judge import Judge
from tests.soak.listener import Listener
from tests.soak.schedule import Schedule, moves
from tests.soak.traffic import Caller
from tests.soak.watch import Watch
from tests.soak.wishes import Wisher

RATE: Final = 40.0
START_S: Final = 20.0
SETTLE_S: Final = 40.0
"""Long enough for a bundle that is given up and one that is fetched, on a busy machine. Pauses of
a development fleet are 5 s at most, but for uploads."""
RECORDS_S: Final = 130.0
"""An upload whose answer does not come, or cannot be stored, pauses twice as long each time: the
sixth for up to 64 s."""
LOOK_S: Final = 0.2
BACK_S: Final = 0.3
"""Until a service manager starts an agent again that has ended by itself."""
AT_END: Final = (2, 4, 6)


@dataclass(frozen=True, slots=True)
class Played:
    seed: int
    wrong: tuple[str, ...]
    said: tuple[str, ...]
    """What was done, in order."""
    log: str
    lasted_s: float
    small_disk: bool
    """Whether its disk could be full."""
    evidence: Evidence


class Run:
    def __init__(self, ground: Ground, listener: Listener, play: Schedule) -> None:
        self._ground = ground
        self._listener = listener
        self._play = play
        self._surprises: list[str] = []

    def play(self) -> Played:
        began = time.monotonic()
        ground = self._ground
        at = ground.field(f"s-{self._play.seed}")
        try:
            played = self._played(at, began)
        finally:
            ground.leave(at)
        return played

    def _played(self, at: Field, began: float) -> Played:
        ground, play = self._ground, self._play
        ground.start(at)
        _until(lambda: ready(at.device), START_S, f"the device answers; look at {at.log}")
        caller = Caller(at.device.port, MODEL, RATE, ground.weights())
        watch, faults = Watch(at, caller), Faults(ground, at)
        wisher = Wisher(ground, at, play.wishes)
        heard = self._listener.heard()
        watch.start()
        caller.start()
        try:
            _until(lambda: _linked(watch), START_S, f"the device is linked; look at {at.log}")
            begin = time.monotonic()
            wisher.start()
            for move in moves(play):
                self._pass(begin + move.at_s, at, faults)
                faults.play(move)
            self._pass(begin + play.length_s, at, faults)
            wisher.join()
            seen = self._settle(at, Judge(ground, at, wisher), caller, watch, faults)
        finally:
            caller.stop()
            watch.stop()
        seen = self._looked_on(seen, caller, watch, faults)
        after = self._listener.heard()
        seen = replace(
            seen,
            published={k: n - heard[0].get(k, 0) for k, n in after[0].items()},
            frame_bytes=after[1].get("frames", 0) - heard[1].get("frames", 0),
            restarts=faults.restarts,
            wishes=len(play.wishes),
            lasted_s=time.monotonic() - begin,
        )
        self._clean(wisher)
        said = tuple(sorted((*faults.said, *wisher.said)))
        lasted_s = time.monotonic() - began
        return Played(play.seed, violations(seen), said, str(at.log), lasted_s, at.disk.real, seen)

    def _pass(self, until: float, at: Field, faults: Faults) -> None:
        """Wait, and be the service manager meanwhile."""
        while (left := until - time.monotonic()) > 0:
            self._keep(at, faults)
            time.sleep(min(left, BACK_S))

    def _keep(self, at: Field, faults: Faults) -> None:
        process = at.device.process
        if process is None or faults.supervisor_is_down or process.poll() is None:
            return
        self._surprises.append(f"the agent ended by itself with {process.returncode}")
        faults.start_supervisor()

    def _settle(
        self, at: Field, judge: Judge, caller: Caller, watch: Watch, faults: Faults
    ) -> Evidence:
        """Look until all is as it must be, or until there was time enough; then let the traffic
        rest, and look at the records in the same way."""
        deadline = time.monotonic() + SETTLE_S
        seen = Evidence(answered=1)
        while True:
            self._keep(at, faults)
            try:
                seen = judge.settled(seen, watch.look())
                wrong = [text for number in AT_END for text in CHECKS[number](seen)]
            except OutriderError as error:
                wrong = [str(error)]
            if not wrong or time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
        caller.stop()
        deadline = time.monotonic() + RECORDS_S
        while True:
            self._keep(at, faults)
            status = watch.look()
            counts = replace(seen, answered=caller.answered, failures=tuple(caller.failures))
            counts = replace(counts, runners=watch.lives(), samples=tuple(watch.samples))
            try:
                seen = judge.records(counts, status)
                wrong = [text for number in (3, 8) for text in CHECKS[number](seen)]
            except OutriderError as error:
                wrong = [str(error)]
            if not wrong or time.monotonic() > deadline:
                return seen
            time.sleep(LOOK_S)

    def _looked_on(self, seen: Evidence, caller: Caller, watch: Watch, faults: Faults) -> Evidence:
        return replace(
            seen,
            answered=caller.answered,
            versions=dict(caller.versions),
            wrong=tuple(caller.wrong),
            failures=tuple(caller.failures),
            runners=watch.lives(),
            absences=tuple(watch.back(absence) for absence in faults.absences),
            harmless=tuple(faults.harmless),
            surprises=tuple(self._surprises),
            samples=tuple(watch.samples),
            peaks=dict(watch.peaks),
        )

    def _clean(self, wisher: Wisher) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                wisher.clean()
                self._ground.renew()
            except OutriderError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_S)
            else:
                return


def _linked(watch: Watch) -> bool:
    """Connected, and up to date with what it is told."""
    status = watch.look()
    if status is None or not status.link.connected:
        return False
    model = status.state.models.get(MODEL)
    return model is not None and model.plan_version > 0 and model.target is not None


def _until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {limit_s:g} s until {what}")
        time.sleep(0.05)
