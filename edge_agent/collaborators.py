"""What the update machine asks of the rest of the agent: three protocols and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from edge_agent.room import Memory
from edge_agent.runner.views import Death, Load, RunnerView, Sample, Shadowed
from protocol.identifiers import Digest, ModelName
from protocol.reported import Outcome, Progress
from protocol.telemetry import InferenceWindow


class Runners(Protocol):
    """The processes that hold models. Those that ended vanish from `views`."""

    def views(self) -> tuple[RunnerView, ...]: ...

    def deaths(self) -> tuple[Death, ...]:
        """Each death once."""

    def start(self, loads: tuple[Load, ...]) -> RunnerView:
        """A new standby. Raises `RunnerFailed` D302 (cannot load), D311 (died), D313 (too slow)."""

    def probe(self, runner: str, model: ModelName) -> None:
        """Golden vectors. Raises `RunnerFailed` D301 (they differ), D311, D313."""

    def promote(self, runner: str) -> None: ...

    def park(self, runner: str) -> None: ...

    def drain(self, runner: str) -> None: ...

    def kill(self, runner: str) -> None: ...

    def peek(self, runner: str) -> Mapping[ModelName, InferenceWindow]:
        """Counts since load."""

    def sample(self, runner: str, model: ModelName, every_s: float) -> tuple[Sample, ...]:
        """Copies of some requests, that it keeps from now on."""

    def unsample(self, runner: str, model: ModelName) -> None: ...

    def shadow(
        self, runner: str, model: ModelName, base: Load, samples: tuple[Sample, ...]
    ) -> Shadowed:
        """Run them in a standby, for nobody; what came of those before."""


class Meter(Protocol):
    """Memory of this device."""

    def memory(self, runners: Iterable[int]) -> Memory | None:
        """What can be had, with `runners` (process ids) as they are; None: it is unknown."""

    def held(self, pid: int) -> int:
        """Bytes that the end of a process gives back."""


class Unmeasured:
    """A device that cannot say."""

    def memory(self, _: Iterable[int], /) -> Memory | None:
        return None

    def held(self, _: int, /) -> int:
        return 0


class FetchState(Protocol):
    @property
    def model(self) -> ModelName | None: ...
    @property
    def digest(self) -> Digest | None: ...
    @property
    def progress(self) -> Progress | None: ...
    @property
    def problem(self) -> tuple[str, str] | None: ...
    @property
    def done(self) -> bool: ...


class Fetcher(Protocol):
    """Brings one bundle at a time into `bundles/.<digest>/`."""

    def ensure(self, model: ModelName, digest: Digest) -> None: ...

    def forget(self) -> None: ...

    def status(self) -> FetchState: ...


class Outbox(Protocol):
    def reported_number(self, model: ModelName) -> int: ...

    def put_outcome(self, outcome: Outcome, now_ms: int) -> None: ...

    def baseline(self, model: ModelName, digest: Digest) -> InferenceWindow | None: ...
