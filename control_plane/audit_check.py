"""Once a day the control plane looks whether its own audit trail is whole, and says so if not.

That does not replace `outrider audit verify` on another machine: whoever can write the store here
can also change this program. It finds faults of storage, and hasty hands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from control_plane.audit import Findings, Line, anchors_of, verify
from protocol.approval import Approvals

log = logging.getLogger(__name__)

INTERVAL_S: Final = 86_400.0


class Trail(Protocol):
    def lines(self) -> Iterable[Line]: ...


class AuditCheck:
    """`step` reads the whole trail in bounded memory. Raises what reading the store raises."""

    def __init__(self, trail: Trail, approvals: Callable[[], Approvals]) -> None:
        self._trail = trail
        self._approvals = approvals
        self.found: Findings | None = None
        """Of the last check; None before the first."""

    def step(self) -> None:
        # Anchors first: what is signed meanwhile is anchored behind what is read.
        anchors = anchors_of(self._approvals().values())
        self.found = verify(self._trail.lines(), anchors)
        for problem in self.found.problems:
            log.error("audit trail: %s", problem)
