"""What both ends of an MQTT link agree on: the address, its limits, and when to try again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILTERS_PER_SUBSCRIBE: Final = 8
"""Hosted brokers refuse more."""
MAX_SUBSCRIPTIONS: Final = 50
"""Hosted brokers refuse more per connection."""
KEEPALIVE_S: Final = 60
RETRY_FIRST_S: Final = 1.0
RETRY_MOST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Tls:
    """Mutual TLS: whom we believe (`ca`), and who we are."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if not self.host or not 0 < self.port < 65_536:
            raise ValueError(f"a broker is host and port, got {self.host!r:.80}:{self.port}")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Retry:
    """Full jitter: a wait is drawn evenly between 0 and `ceiling(attempt)` seconds."""

    first_s: float = RETRY_FIRST_S
    most_s: float = RETRY_MOST_S

    def ceiling(self, attempt: int) -> float:
        """Upper bound in seconds before attempt `attempt`, which counts failures from 0."""
        return float(min(self.most_s, self.first_s * 2 ** min(attempt, 30)))


def in_packets(topics: Sequence[str]) -> Iterator[Sequence[str]]:
    """Topics in groups that one SUBSCRIBE or UNSUBSCRIBE may carry."""
    for start in range(0, len(topics), FILTERS_PER_SUBSCRIBE):
        yield topics[start : start + FILTERS_PER_SUBSCRIBE]
