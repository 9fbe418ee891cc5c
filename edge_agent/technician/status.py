"""What a running agent tells its technician; `page` says it in lines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from protocol.identifiers import Count, Digest
from protocol.reported import ReportedState


@dataclass(frozen=True, slots=True)
class LinkStatus:
    connected: bool = False
    address: str = ""
    since_ms: Count = 0
    """When it was connected or lost; 0 if it never was."""
    why: str = ""

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
    clock_unset: bool = False
    """Whether nobody vouches for the time: no time service, and no signed metadata yet."""
