"""Moves copies of requests from what serves to a candidate that runs beside it, and takes in what
came of them.

Called in every turn; what it finds is what it goes by. No copy is kept here, none is written down,
none leaves the device. Where something fails, the candidate learns less: what serves goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from edge_agent.collaborators import Runners
from edge_agent.desired import Run
from edge_agent.memory import Memory
from edge_agent.runner.views import Death, Load, RunnerFailed, RunnerView, Sample
from edge_agent.shadow import EVERY_S, Beside
from protocol.errors import OutriderError
from protocol.identifiers import Digest, ModelName

log = logging.getLogger(__name__)


class Shadowing:
    """Used by the supervisor's thread. A call to a runner returns at once."""

    def __init__(
        self,
        runners: Runners,
        memory: Memory,
        load: Callable[[Digest], Load | None],
    ) -> None:
        self._runners = runners
        self._memory = memory
        self._load = load
        self._sampling: set[tuple[str, ModelName]] = set()
        """Runners that keep copies of requests, and of which model."""

    def turn(self, now_s: float) -> None:
        views = {view.id: view for view in self._runners.views()}
        wanted: set[tuple[str, ModelName]] = set()
        for model, beside in tuple(self._memory.besides.items()):
            run = self._memory.desired.get(model)
            shadows = isinstance(run, Run) and run.shadow and run.digest == beside.asked.candidate
            standby = views.get(beside.runner or "")
            if not shadows or standby is None or standby.role != "standby":
                continue
            serving = _serving(views.values(), model, beside.asked.base)
            if serving is None:
                continue
            wanted.add((serving, model))
            if now_s >= beside.next_s:
                self._move(model, beside, serving, standby, now_s)
        for runner, model in self._sampling - wanted:
            self._end_sampling(runner, model)

    def _move(
        self, model: ModelName, beside: Beside, serving: str, standby: RunnerView, now_s: float
    ) -> None:
        base = self._load(beside.asked.base) if beside.asked.base is not None else None
        if base is None:
            return
        try:
            # First what came of those before: whoever is not hungry is given no more.
            said = self._runners.shadow(standby.id, model, base, ())
            if said.hungry:
                samples = self._samples(serving, model)
                if samples:
                    said = self._runners.shadow(standby.id, model, base, samples)
            beside.moved(said.shadow, now_s)
        except RunnerFailed as error:
            log.warning("beside, %s: %s", model, error.why)
            if error.code == "OUT-D313":
                # It was ended for that; a runner that ended by itself is among the deaths.
                gone = Death(standby.id, "standby", None, model, beside.asked.candidate, error.why)
                self._memory.uncharged.append(gone)

    def _samples(self, serving: str, model: ModelName) -> tuple[Sample, ...]:
        self._sampling.add((serving, model))
        try:
            return self._runners.sample(serving, model, EVERY_S)
        except OutriderError as error:
            # Its own troubles are dealt with elsewhere, and are no fault of the candidate.
            log.info("no requests are copied in runner %s: %s", serving, error)
            return ()

    def _end_sampling(self, runner: str, model: ModelName) -> None:
        self._sampling.discard((runner, model))
        if not any(view.id == runner for view in self._runners.views()):
            return
        try:
            self._runners.unsample(runner, model)
        except OutriderError as error:
            log.info("runner %s gives up its copies by itself: %s", runner, error)


def _serving(views: Iterable[RunnerView], model: ModelName, bundle: Digest | None) -> str | None:
    """The runner whose model answers by this bundle."""
    for view in views:
        for load in view.loads if view.role == "serving" else ():
            if (load.model, load.digest, load.answering) == (model, bundle, "model"):
                return view.id
    return None
