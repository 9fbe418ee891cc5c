"""What an agent process holds of its models in memory only. Losing it delays, never misleads."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.aftercare import Watched
from edge_agent.desired import Desired
from edge_agent.lease import Lease
from edge_agent.runner.views import Death, Load
from edge_agent.shadow import Beside
from edge_agent.watch.health import Verdict
from protocol.identifiers import Digest, ModelName


@dataclass(slots=True)
class Running:
    """Healthy running of one bundle in one runner since the last mark."""

    runner: str
    digest: Digest
    last_s: float
    """Monotonic time of the last look."""
    seconds: float = 0.0
    counted_answers: int = 0
    """Answers of this runner that the journal already has, or that nobody can vouch for."""
    answers: int = 0
    verdict: Verdict = Verdict()
    triggers: dict[str, str] = field(default_factory=dict)

    def saw(self, now_s: float, *, healthy: bool) -> None:
        if healthy:
            self.seconds += max(now_s - self.last_s, 0.0)
        self.last_s = now_s

    def marked(self) -> None:
        self.seconds = 0.0
        self.counted_answers = self.answers


@dataclass(slots=True)
class MakingWay:
    """Everything that served was let go, for one bundle that is loaded next."""

    model: ModelName
    digest: Digest
    since_s: float | None = None
    """Monotonic time of the first look after that."""


@dataclass(slots=True)
class Memory:
    synced: bool = False
    desired: dict[ModelName, Desired] = field(default_factory=dict)
    trials: dict[ModelName, Running] = field(default_factory=dict)
    bases: dict[ModelName, Running] = field(default_factory=dict)
    loads: dict[str, tuple[Load, ...]] = field(default_factory=dict)
    """Of every runner seen, to know what one held that died without a trace."""
    promoted: set[str] = field(default_factory=set)
    """Runners that began to serve under this process, whose counts begin at zero."""
    failed_starts: dict[ModelName, int] = field(default_factory=dict)
    start_after_ms: dict[ModelName, int] = field(default_factory=dict)
    crash_detail: dict[ModelName, str] = field(default_factory=dict)
    deaths: dict[ModelName, list[Digest]] = field(default_factory=dict)
    """Bundles that runners have died of, since the last look at their model."""
    uncharged: list[Death] = field(default_factory=list)
    """Deaths that no journal has yet, perhaps for want of room."""
    watched: dict[ModelName, Watched] = field(default_factory=dict)
    besides: dict[ModelName, Beside] = field(default_factory=dict)
    """Candidates that run, or are to run, beside what serves."""
    short_of_room: set[Digest] = field(default_factory=set)
    unfit_for_rescue: set[Digest] = field(default_factory=set)
    making_way: MakingWay | None = None
    lease: Lease = Lease()
