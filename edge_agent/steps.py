"""The closed set of things the update machine can do next. `act.py` alone carries them out.

Each is idempotent: done twice, or after a crash in the middle, it ends in the same place. `row`
is the line of the decision table in `reconcile.py` that asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from protocol.identifiers import Digest
from protocol.reported import Answering


@dataclass(frozen=True, slots=True)
class Sync:
    """Make durable what a killed predecessor may have left in the cache, before deciding."""

    row: int = 0


@dataclass(frozen=True, slots=True)
class Remember:
    """Copy revocations into notes: a lost metadata cache must not undo them."""

    bundles: tuple[Digest, ...]
    row: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """Serve this model no longer."""

    row: int


@dataclass(frozen=True, slots=True)
class Activate:
    """Let a bundle serve: promote its standby runner, or start one (only for a proven bundle)."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Let a serving runner answer what it has and go; another one serves all that it does."""

    runner: str
    row: int


@dataclass(frozen=True, slots=True)
class Park:
    """Let a serving runner answer what it has and stay loaded, so that it can be back at once."""

    runner: str
    row: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Let everything that serves go before a bundle is loaded: there is no memory for two.

    For a candidate, its load is counted first. Until one of them serves, callers wait in the
    queue of the listening socket.
    """

    digest: Digest
    """The bundle that comes next."""
    row: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a standby runner that is not wanted."""

    runner: str
    row: int


@dataclass(frozen=True, slots=True)
class Rollback:
    """Journal that `previous` is `current` again, and why."""

    digest: Digest
    """The bundle that is given up."""
    reason: str
    detail: str
    row: int
    toward: Digest | None = None
    """Fallback that its signed policy sends this device to."""


@dataclass(frozen=True, slots=True)
class Degrade:
    """Journal that `current` has stopped working well, and what its signed policy makes of it:
    rules answer, nothing does, or the device heads for its fallback."""

    digest: Digest
    reason: str
    detail: str
    row: int
    answering: Answering = "model"
    toward: Digest | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Journal that `current` may answer by its model again: its hold is over, or was lifted."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Rescue:
    """The journal is lost: prove a bundle with its golden vectors and begin a new journal."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Reject:
    """Journal that a bundle was given up before it was committed, and why."""

    digest: Digest
    reason: str
    detail: str
    row: int
    answering: Answering = "model"
    """What answers in its place where nothing was proven here before it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Journal a tenth of a health window of healthy running, or a base or shadow that settled."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Journal that the trial is over and the bundle is proven."""

    digest: Digest
    unexercised: bool
    """Too few requests came: the golden vectors are run once more and decide."""
    row: int


@dataclass(frozen=True, slots=True)
class Report:
    """Put journalled outcomes into the outbox."""

    row: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Count a load, start a candidate runner, run the golden vectors in it."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Give a completely fetched bundle its final name."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Collect:
    """Delete an entry of `bundles` that nothing refers to, or whose bytes are wrong."""

    name: str
    row: int


@dataclass(frozen=True, slots=True)
class DropPrevious:
    """Make room: both generations of the journal name the survivor before `previous` goes."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Make sure that a bundle is being fetched."""

    digest: Digest
    row: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now."""

    row: int
    until_ms: int | None = None
    """Trusted time at which to look again at the latest; None: when something changes."""
    reason: str | None = None
    """Problem code of what holds the model back, if anything does."""
    detail: str = ""


Step: TypeAlias = (
    Sync
    | Remember
    | Stop
    | Activate
    | Drain
    | Park
    | Unload
    | Kill
    | Rollback
    | Degrade
    | Resume
    | Rescue
    | Reject
    | Mark
    | Commit
    | Report
    | Probe
    | Stage
    | Collect
    | DropPrevious
    | Fetch
    | Wait
)
