"""Everything that a decision about one model looks at, as it was found this turn.

Derived anew each turn from journal, directory and runners. What only lives in memory (running
times, looks spent, who waits for the lease) merely saves time: losing it delays, never misleads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.journal import Journal, Revocation
from edge_agent.room import Room
from edge_agent.watch.health import Fault, Terms, Verdict
from protocol.identifiers import Digest, ModelName
from protocol.members import Policy
from protocol.reported import Answering, Outcome, Shadow


@dataclass(frozen=True, slots=True)
class Serving:
    """One runner that accepts requests."""

    runner: str
    digest: Digest | None
    """What it serves of this model; None if it lacks the model."""
    covered: bool = False
    """Whether another serving runner has every model that this one has, so that it may go."""
    twin: bool = False
    """Whether an earlier runner serves exactly the same bundles."""
    answering: Answering = "model"
    """What answers in it for this model."""


@dataclass(frozen=True, slots=True)
class Standby:
    """One runner that is loaded and accepts no requests."""

    runner: str
    digest: Digest | None
    """The bundle that it would change of this model; None if the model is not its subject."""
    fit: bool = True
    """Whether everything else in it is what is served now."""
    parked: bool = False
    """Whether it has served before: it stays loaded in case the trial fails."""
    answering: Answering = "model"
    """What would answer in it for this model."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that serves and is not committed."""

    digest: Digest
    runner: str
    terms: Terms
    running_s: float = 0.0
    """Healthy monotonic seconds since the last mark."""
    requests: int = 0
    """Answers of the whole trial."""
    verdict: Verdict = Verdict()


@dataclass(frozen=True, slots=True)
class Return:
    """The bundle that a trial would go back to, which is not here and can be brought here."""

    digest: Digest
    ready: bool
    """Whether all its bytes are here, so that it only needs its final name."""


@dataclass(frozen=True, slots=True)
class Observed:
    model: ModelName
    journal: Journal
    agent: str = ""
    """Agent version."""
    synced: bool = True
    """Whether the start-up sync was done."""
    lost: bool = False
    """No readable journal, although bundles of the model are there."""
    complete: frozenset[Digest] = frozenset()
    """Bundles under their final name that could matter to this model."""
    verified: frozenset[Digest] = frozenset()
    """Those of them whose every byte was checked."""
    ready: frozenset[Digest] = frozenset()
    """Partial bundles that have all their bytes."""
    serving: tuple[Serving, ...] = ()
    standby: tuple[Standby, ...] = ()
    trial: Trial | None = None
    crash_limit: int = 3
    """Runner deaths after which the bundle headed for is given up."""
    crash_detail: str = ""
    shadow: Shadow | None = None
    """What came so far of running the bundle headed for beside what serves."""
    shadow_settled: bool = False
    """Whether it has done so for long enough to count as loaded once."""
    base_settled: bool = False
    """Whether the committed bundle has served healthily long enough to forgive its counters."""
    start_after_ms: int | None = None
    """Trusted time before which a base that would not start is not tried again."""
    revoked: Mapping[Digest, Revocation] = field(default_factory=dict)
    unnoted: tuple[Digest, ...] = ()
    """Slots or candidates whose revocation is not in the journal yet."""
    denied: frozenset[Digest] = frozenset()
    """The fleet's deny list."""
    policies: Mapping[Digest, Policy] = field(default_factory=dict)
    """Of verified bundles."""
    fault: Fault | None = None
    """What is wrong lately with the model of the committed bundle, if it answers."""
    fallbacks: frozenset[Digest] = frozenset()
    """Bundles that a policy names as its fallback and that may run here, whether on disk or not."""
    triggers: Mapping[str, str] = field(default_factory=dict)
    """Per trigger `active`, or why it cannot judge what serves."""
    refusing: frozenset[Digest] = frozenset()
    """Bundles whose signed policy forbids to run them once they are revoked or denied."""
    unreported: tuple[Outcome, ...] = ()
    garbage: tuple[str, ...] = ()
    """Entries of `bundles` that no model refers to."""
    needed_bytes: int | None = None
    """Room to complete the bundle headed for; None if unknown."""
    free_bytes: int = 0
    short_of_room: bool = False
    """A write for the bundle headed for has just failed because the disk is full."""
    room: Room = "tight"
    """For a runner with the bundle headed for, beside what runs now."""
    room_for_base: Room = "tight"
    """For a runner with the base, beside what runs now."""
    short_of_memory: str = ""
    """How much is missing, for people."""
    keeps_warm: bool = False
    """Whether memory allows that a runner stays loaded that answers nobody."""
    making_way: Digest | None = None
    """For this bundle everything that served was let go, so that it can be loaded."""
    waits_for_another: bool = False
    """Everything was let go for a bundle of another model, which brings this one along."""
    leaving: bool = False
    """Whether a runner is still answering its last requests."""
    absent_return: Return | None = None
    """Fetched before the trial begins, so that going back needs no download."""
    lease: bool = True
    """Whether this model may begin a change; one at a time on a device."""
    unfit_for_rescue: frozenset[Digest] = frozenset()
    approved: frozenset[Digest] = frozenset()
    """Bundles on disk that trusted `models` lists, unrevoked."""
