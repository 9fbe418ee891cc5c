"""What a running agent tells its technician; `page` says it in lines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Final

from protocol.identifiers import Count, Digest
from protocol.reported import ReportedState


@dataclass(frozen=True, slots=True)
class LinkStatus:
    connected: bool = False
    address: str = ""
    since_ms: Count = 0
    """When it was connected or lost; 0 if it never was."""
    why: str = ""
    next_try_s: float = 0.0
    """Seconds until it tries again; 0 while it does, or has no need to."""

    def lasting(self, since_s: float | None, now_s: float, now_ms: int) -> LinkStatus:
        """With its moment in trusted time as of now. Its age was measured in monotonic seconds:
        on a device without a clock, trusted time jumps by weeks once it is connected."""
        if since_s is None:
            return self
        ago_ms = int((now_s - since_s) * 1000)
        return dataclasses.replace(self, since_ms=max(0, now_ms - ago_ms))


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one model since the agent started."""

    answers: Count = 0
    errors: Count = 0
    p95_s: float | None = None
    per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class TrialStatus:
    """What a version on probation is held to, beside what `Answers` says of it."""

    error_share: float
    """At most."""
    crashes: Count
    crash_limit: Count
    window_s: float
    """Healthy running that it needs."""
    running_s: float = 0.0
    """Of that, so far."""
    p95_limit_s: float | None = None
    """None: the version before has answered too little to compare with."""


@dataclass(frozen=True, slots=True)
class RenewalStatus:
    """How the renewal of the certificate goes."""

    failures: Count = 0
    """Since the certificate in force."""
    since_ms: Count = 0
    """Of the first of them."""
    code: str = ""
    """Problem code of the last."""
    why: str = ""
    urgent: bool = False
    """Whether less than a tenth of the certificate's life is left, or none."""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that `outrider-agent status` shows; the same object is its `--json`."""

    device: str
    fleet: str
    now_ms: Count
    state: ReportedState
    link: LinkStatus = LinkStatus()
    versions: dict[Digest, str] = field(default_factory=dict)
    """`model/version` by digest, as far as approvals name it."""
    answers: dict[str, Answers] = field(default_factory=dict)
    certificate_until_ms: Count = 0
    port: Count = 0
    answered: Count = 0
    """Requests answered and counted, since this device was enrolled."""
    renewal: RenewalStatus = RenewalStatus()
    trials: dict[str, TrialStatus] = field(default_factory=dict)
    """By model, while one is on probation."""
    detail_until_ms: Count = 0
    """When the buffer will be full as it fills now, without a link; 0: not to be foreseen."""
    clock_unset: bool = False
    """Whether nobody vouches for the time: no time service, and no signed metadata yet."""


MEASURED_S: Final = 600.0
"""Less tells nothing of how fast a buffer fills."""
_FORESEEN_MS: Final = 10 * 365 * 86_400_000


def full_at_ms(
    before_bytes: int, used_bytes: int, limit_bytes: int, elapsed_s: float, now_ms: int
) -> int:
    """When a buffer that grew like this is full; 0 if that is not to be foreseen."""
    grown = used_bytes - before_bytes
    if elapsed_s < MEASURED_S or grown <= 0 or used_bytes >= limit_bytes:
        return 0
    left_ms = int((limit_bytes - used_bytes) / grown * elapsed_s * 1000)
    return now_ms + left_ms if left_ms < _FORESEEN_MS else 0
