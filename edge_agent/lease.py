"""One change at a time on a device: from a candidate's probe to its commit.

Who holds the lease is derived from runners and journals each turn. Only the order of those that
wait is remembered, in memory: losing it costs a turn in the queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.identifiers import ModelName


@dataclass(frozen=True, slots=True)
class Lease:
    """Models that wait to begin a change, oldest first."""

    waiting: tuple[ModelName, ...] = ()

    def asked(self, model: ModelName) -> Lease:
        return self if model in self.waiting else Lease((*self.waiting, model))

    def dropped(self, model: ModelName) -> Lease:
        return Lease(tuple(other for other in self.waiting if other != model))

    def grants(self, model: ModelName, *, busy: bool) -> bool:
        """Whether `model` may begin; `busy`: another model is between probe and commit."""
        return not busy and self.waiting[:1] == (model,)
