"""Moves counts from runners into the outbox, each exactly once.

A runner keeps what it counted until it hears that it was committed, and the outbox remembers the
last take of each runner in the transaction that stores it. So it does not matter where a
supervisor dies: the next one acknowledges what is durable and takes the rest.
"""

from __future__ import annotations

import logging
from typing import Protocol

from edge_agent.buffer import Outbox
from edge_agent.runner.views import RunnerFailed, RunnerView, Take

log = logging.getLogger(__name__)


class Takes(Protocol):
    """The part of `Runners` that this needs."""

    def views(self) -> tuple[RunnerView, ...]: ...
    def take(self, runner: str, ack: int) -> Take: ...


class Collector:
    """One per agent, used by the supervisor's thread."""

    def __init__(self, runners: Takes, outbox: Outbox, checkpoint_s: float = 300.0) -> None:
        """`checkpoint_s`: how old counts in a runner that serves may get."""
        self._runners = runners
        self._outbox = outbox
        self._checkpoint_s = checkpoint_s
        self._all_taken_s: float | None = None
        """When all of them were asked last. What is taken from one that leaves or is parked, each
        turn, says nothing of the age of what the others hold."""

    def collect(self, now_s: float, now_ms: int, *, whole: bool = False) -> None:
        """Take from runners that leave always, from the others when a checkpoint is due or `whole`.

        Raises `Unavailable` (OUT-D50x); nothing is lost by that, runners keep their counts.
        """
        views = [view for view in self._runners.views() if view.role != "standby"]
        last = self._all_taken_s
        due = whole or last is None or now_s - last >= self._checkpoint_s
        for view in views:
            if due or view.role in ("draining", "parked"):
                self._take(view, now_s, now_ms)
        if due:
            self._all_taken_s = now_s
        self._outbox.close_due(now_s)
        self._outbox.close_unserved({load.manifest for view in views for load in view.loads})

    def _take(self, view: RunnerView, now_s: float, now_ms: int) -> None:
        try:
            take = self._runners.take(view.id, self._outbox.acknowledged(view.id))
            self._outbox.commit_take(take, now_s, now_ms)
            if take.final:
                self._runners.take(view.id, take.seq)
        except RunnerFailed as error:
            log.info("runner %s: %s", view.id, error.why)
        except ValueError:
            # A runner whose counts do not merge is at fault, not the rest of the agent.
            log.exception("counts of runner %s", view.id)
