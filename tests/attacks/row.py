"""What a reader is told of one attack; the page about attacks is made of these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    has: str
    """What the attacker holds."""
    tries: str
    outcome: str
    test: str
    """`file::function`, below `tests/`."""
