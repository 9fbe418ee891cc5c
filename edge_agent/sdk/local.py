"""Runs a model in the application's own process, as its device's agent says.

The device's runner stays as it is: candidates are loaded and probed there first, and it answers
whoever asks over HTTP. An application that runs the model itself follows what that runner serves.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from edge_agent import settings
from edge_agent.disk import Disk
from edge_agent.runner.feedback import parse_feedback
from edge_agent.runner.views import Load
from edge_agent.sdk import wire
from edge_agent.sdk.answer import Answer, Confidences, Inputs, Labels
from edge_agent.sdk.following import Following
from edge_agent.sdk.held import Check, Held
from protocol.errors import InvalidRequest, Unavailable
from protocol.identifiers import Digest, ModelName, model_name

LOOK_S: Final = 0.2
CLOSE_S: Final = 3.0
"""How long an application that ends waits for the agent to take its last counts."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an application stands to its agent."""

    version: str | None
    """What answers here; None: nothing may."""
    digest: Digest | None
    led: bool
    """Whether an agent has told it what to run. Without one it runs what was proven last."""
    problem: str = ""
    """Why it could not follow, if it could not."""


class Local:
    """One model in this process. `infer` may be called by many threads at once.

    The model is loaded with the options that its signed bundle says and no others. Make it after
    forking: a process that was forked with it has a copy that answers nothing.
    """

    def __init__(
        self,
        model: ModelName,
        *,
        home: str | os.PathLike[str] | None = None,
        check: Check = "shape",
        wait_s: float = 0.0,
    ) -> None:
        """Load what is proven for this model on the device whose agent lives at `home`, found like
        `outrider-agent` finds it. If there is nothing yet, wait for it at most `wait_s` seconds.

        `check="values"` refuses inputs with numbers outside of the contract's range, and NaN and
        infinity; without it they are answered, and rows of monitored inputs outside are counted.

        Raises `Unavailable` OUT-I122 where there is nothing to follow, `Failed` OUT-D302 for what
        cannot be loaded here, `InvalidRequest` OUT-S120 for a run folder with too long a path.
        """
        self.model = model_name(model)
        paths = settings.read(os.environ, Path(home) if home is not None else None).paths
        self._held: Held | None = _proven(paths.home, model, check, wait_s)
        self._following = Following(paths.run, self.model, self._held, check, self._point)
        self._following.start()
        self._last_words = partial(_close, weakref.ref(self))
        atexit.register(self._last_words)
        os.register_at_fork(after_in_child=partial(_forget, weakref.ref(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def infer(self, inputs: Inputs) -> Answer:
        """The model's answer, all outputs. Arrays are read, never kept or written.

        Raises `InvalidRequest` OUT-I101 to OUT-I104 for what breaks the contract, `Failed` OUT-I110
        where the model fails on this input, `Unavailable` OUT-I122 where the agent says that no
        model may answer now, or this is closed.
        """
        held = self._held
        if held is None:
            raise Unavailable("OUT-I122", f"nothing may answer as {self.model} now")
        return held.ask(inputs)

    def feedback(
        self,
        labels: Labels,
        predictions: Labels,
        confidences: Confidences | None = None,
        *,
        version: str | None = None,
    ) -> int:
        """Count true labels, as `Client.feedback` does, of answers that were given here.

        Raises `InvalidRequest` OUT-I117 for what does not fit, OUT-I107 for another version than
        the one that answers here now, `Unavailable` OUT-I122 like `infer`.
        """
        # By way of the same text as over the socket, so that the same is counted and refused.
        feedback = parse_feedback(wire.feedback(labels, predictions, confidences, version))
        held = self._held
        if held is None:
            raise Unavailable("OUT-I122", f"nothing may answer as {self.model} now")
        if version is not None and version != held.version:
            why = f"{self.model}/{version[:80]} does not run here, {held.version} does"
            raise InvalidRequest("OUT-I107", why)
        held.tally.feedback(feedback.correct, feedback.confidence)
        return len(feedback.correct)

    @property
    def version(self) -> str | None:
        """What would answer now; None: nothing."""
        held = self._held
        return held.version if held is not None else None

    def standing(self) -> Standing:
        """What runs here, and whether an agent leads."""
        held = self._held
        return Standing(
            held.version if held is not None else None,
            held.load.digest if held is not None else None,
            self._following.led,
            self._following.problem,
        )

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Answer nothing any more, and hand over what was counted. Waits at most so long for an
        agent that is there; counts that none takes are lost."""
        self._held = None
        atexit.unregister(self._last_words)
        self._following.finish(timeout_s)

    def forget(self) -> None:
        """In a forked child: the counts, the thread and the socket are the parent's."""
        self._held = None
        self._following.forget()

    def _point(self, held: Held | None) -> None:
        """From now on this one answers; calls that are under way end with the one before."""
        self._held = held


def _proven(home: Path, model: ModelName, check: Check, wait_s: float) -> Held:
    deadline = time.monotonic() + wait_s
    while True:
        load, why = _find(home, model)
        if load is not None:
            return Held(load, check)
        if time.monotonic() >= deadline:
            raise Unavailable("OUT-I122", why)
        time.sleep(LOOK_S)


def _find(home: Path, model: ModelName) -> tuple[Load | None, str]:
    """The bundle that is proven here, if its every byte is right; else why not."""
    if not (home / "state").is_dir():
        return None, f"no agent has run a model below {home}"
    disk = Disk(home)
    journal = disk.journal(model)
    if journal is None or journal.current is None:
        return None, f"no version of {model} is proven on this device yet"
    if journal.note(journal.current).revoked == "stop":
        return None, f"{model} was revoked and must not answer"
    if journal.note(journal.current).answering != "model":
        return None, f"{model} has been given up here; ask over the socket for what answers instead"
    found = disk.installed(journal.current)
    if found is None:
        return None, f"the files of {model} are damaged"
    return Load(model, journal.current, found.manifest, found.path), ""


def _close(local: weakref.ref[Local]) -> None:
    if (found := local()) is not None:
        found.close()


def _forget(local: weakref.ref[Local]) -> None:
    if (found := local()) is not None:
        found.forget()
