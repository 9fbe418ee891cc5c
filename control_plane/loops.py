"""A thread that does the same thing again and again, sooner when it is woken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from protocol.errors import OutriderError, Unavailable

log = logging.getLogger(__name__)

STOP_S: Final = 10.0


class Loop:
    """Calls `step` every `interval_s` and at once after `wake()`; a failing step is logged.

    A step may return in how many seconds it wants to be called again, if that is sooner.
    A wake during a step is not lost: another step follows. The same failure is logged once until
    a step succeeds or fails differently.
    """

    def __init__(self, name: str, step: Callable[[], float | None], interval_s: float) -> None:
        self.name = name
        self._step = step
        self._interval_s = interval_s
        self._awake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.problem: str | None = None
        """What the last step failed with; None if it did not."""
        self.steps = 0
        self.last_step_s: float | None = None
        """Monotonic time of the last step's end."""

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._awake.set()

    def stop(self) -> None:
        self._stopped.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._awake.clear()
            sooner = self._once()
            self._awake.wait(self._interval_s if sooner is None else min(sooner, self._interval_s))

    def _once(self) -> float | None:
        sooner = None
        try:
            sooner = self._step()
            problem = None
        except Unavailable as missing:
            problem = str(missing)
            if problem != self.problem:
                log.warning("%s waits: %s", self.name, problem)
        except OutriderError as refusal:
            problem = str(refusal)
            if problem != self.problem:
                log.error("%s: %s", self.name, problem, exc_info=refusal)
        except Exception as fault:
            # Top of a loop: the other parts go on.
            problem = f"{type(fault).__name__}: {fault}"
            if problem != self.problem:
                log.error("%s: %s", self.name, problem, exc_info=fault)
        self.problem = problem
        self.steps += 1
        self.last_step_s = time.monotonic()
        return sooner
