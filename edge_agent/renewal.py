"""When to ask for a new certificate: pure decisions.

A certificate is renewed from half of its life on. Each device has a moment of its own in the tenth
of the life that follows, drawn from the certificate, so that a fleet that was enrolled in one day
does not come back in one minute, and a restart changes nothing. What fails is tried again after
pauses that grow, and that stay short once less than a tenth of the life is left, or none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from edge_agent.backoff import full_jitter
from protocol.identifiers import Count, DeviceId

FROM: Final = 0.5
"""Share of the life after which a certificate is renewed."""
SPREAD: Final = 0.1
"""Share of the life over which a fleet spreads its first tries."""
URGENT: Final = 0.1
"""Share of the life that is left when it becomes urgent."""
FIRST_S: Final = 300.0
"""Upper bound of the first pause."""
MOST_S: Final = 24 * 3600.0
MOST_URGENT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Validity:
    """Of a certificate: Unix ms, and what tells it from others."""

    from_ms: int
    until_ms: int
    fingerprint: str = ""

    @property
    def life_ms(self) -> int:
        return max(self.until_ms - self.from_ms, 1)

    def urgent(self, now_ms: int) -> bool:
        """Whether little of its life is left, or nothing."""
        return self.until_ms - now_ms < self.life_ms * URGENT


@dataclass(frozen=True, slots=True)
class Tries:
    """What was tried for the certificate in force."""

    failures: Count = 0
    since_ms: Count = 0
    """When the first of them failed, in trusted time."""
    code: str = ""
    """Problem code of the last failure."""
    why: str = ""
    next_s: float = 0.0
    """Not before this moment, in monotonic seconds."""


def begins_ms(validity: Validity, device: DeviceId) -> int:
    """When this device renews this certificate: half of its life, and its own share of a tenth."""
    text = f"{validity.fingerprint} {device}".encode()
    share = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    return validity.from_ms + int(validity.life_ms * (FROM + SPREAD * share))


def due(
    validity: Validity,
    device: DeviceId,
    tries: Tries,
    now_ms: int,
    now_s: float,
    *,
    doubted: bool = False,
) -> bool:
    """Whether to ask now. `doubted`: the broker closes connections before it accepts them, and
    trusted time, a lower bound, cannot tell whether that is because the certificate expired."""
    if now_s < tries.next_s:
        return False
    return doubted or now_ms >= begins_ms(validity, device)


def failed(
    tries: Tries,
    validity: Validity,
    code: str,
    why: str,
    *,
    now_ms: int,
    now_s: float,
    random: float,
    first_s: float = FIRST_S,
) -> Tries:
    """What is known after one more failure. `random` is uniform in [0, 1)."""
    most_s = MOST_URGENT_S if validity.urgent(now_ms) else MOST_S
    # Half of the pause is certain: a control plane that says no is not asked at once again.
    pause_s = full_jitter(tries.failures, first_s, most_s, 0.5 + random / 2)
    return Tries(
        tries.failures + 1,
        tries.since_ms if tries.failures else now_ms,
        code,
        why,
        now_s + pause_s,
    )
