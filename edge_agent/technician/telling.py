"""Tells a technician what the running agent has logged: `outrider-agent logs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge_agent.recent import MOST, Recent
from edge_agent.technician.door import Line, Tell
from protocol.codec import to_wire
from protocol.errors import InvalidRequest

_EVERYTHING: Final = "1"


class Telling:
    """`logs` from any thread. Whoever follows asks again, for what is behind the last number."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent

    def logs(self, options: Mapping[str, str], tell: Tell) -> None:
        """Raises `InvalidRequest` OUT-S120 for numbers that are none."""
        try:
            after, since_ms = int(options.get("after", "0")), int(options.get("since_ms", "0"))
            most = min(int(options.get("most", str(MOST))), MOST)
        except ValueError as error:
            raise InvalidRequest("OUT-S120", f"logs: {error}") from error
        tell(Line("source", {"journal": self._recent.journal}))
        for said in self._recent.read(
            after=after,
            since_ms=since_ms,
            everything=options.get("everything") == _EVERYTHING,
            most=max(0, most),
        ):
            tell(Line("record", to_wire(said)))
        tell(Line("end", {"exit": 0}))
