"""What only the running agent can tell `doctor`: golden vectors now, and its marks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from edge_agent.parts import Parts
from edge_agent.runner.views import RunnerFailed
from edge_agent.technician.door import Line, Tell

BUDGET_S: Final = 0.4
"""For the golden vectors of all models: the supervisor does nothing else meanwhile."""
WAIT_S: Final = 0.7
"""A supervisor that is busy for longer is not waited for."""


class Examining:
    """`doctor` from any thread."""

    def __init__(self, parts: Parts, *, wait_s: float = WAIT_S) -> None:
        self._parts = parts
        self._wait_s = wait_s

    def doctor(self, _options: Mapping[str, str], tell: Tell) -> None:
        """Tells what was found; what cannot be had in time is said to be busy."""
        asked: Future[list[dict[str, Any]]] = self._parts.inbox.errand(self._golden)
        try:
            found = asked.result(self._wait_s)
        except TimeoutError:
            asked.cancel()
            found = [{"name": "all models", "how": "busy", "why": "the agent is busy; ask again"}]
        for each in found:
            tell(Line("golden", each))
        tell(Line("trust", {"marks_intact": self._parts.trust.marks_intact}))
        tell(Line("end", {"exit": 0}))

    def _golden(self) -> list[dict[str, Any]]:
        """On the supervisor's thread: each serving model answers its golden vectors once."""
        parts, began = self._parts, time.monotonic()
        found: list[dict[str, Any]] = []
        approvals = parts.trust.approvals
        for view in parts.runners.views():
            if view.role != "serving":
                continue
            for load in view.loads:
                approved = approvals.get(load.digest)
                name = f"{load.model}/{approved.version}" if approved else load.model
                if time.monotonic() - began > BUDGET_S:
                    found.append({"name": name, "how": "busy", "why": "no time left; ask again"})
                    continue
                found.append({"name": name, **self._asked(view.id, load.model)})
        return found

    def _asked(self, runner: str, model: str) -> dict[str, Any]:
        began = time.monotonic()
        try:
            self._parts.runners.probe(runner, model)
        except RunnerFailed as error:
            return {"how": "differs", "why": f"{error.code} {error.why}"}
        return {"how": "answered", "milliseconds": (time.monotonic() - began) * 1000}
