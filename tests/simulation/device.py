"""A device in memory: the real reconcile, act and disk over simulated files and fake neighbours.

Everything that changes something calls `Device.tick` first, where a kill or a power cut can be
placed. What a bundle does when it is loaded, probed or served is its nature.

Long because the device and its fake neighbours share one clock of operations.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from edge_agent import reconcile as table
from edge_agent.act import Actor
from edge_agent.collaborators import Meter, Unmeasured
from edge_agent.desired import Decision, LocalTime, Trusted, decide
from edge_agent.disk import INDEX, MANIFEST, Disk
from edge_agent.journal import Journal
from edge_agent.observed import Observed
from edge_agent.room import LEAST_MARGIN, RUNNER_BYTES, Memory
from edge_agent.runner.views import (
    Death,
    Load,
    Role,
    RunnerFailed,
    RunnerView,
    Sample,
    Shadowed,
)
from edge_agent.steps import Step, Stop, Unload, Wait
from protocol import codec
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import Index, Member, Variant, VariantReference, encode_index, encode_manifest
from protocol.device import DeviceDocument, Pin, TransferWindow
from protocol.identifiers import Digest, digest_of
from protocol.members import Contract, Limits, Policy, TensorSpec
from protocol.membership import EVERYONE
from protocol.plan import HealthOverride, Local, Plan, Rollout, Rule, Wave
from protocol.reported import Outcome, Progress, Shadow
from protocol.telemetry import InferenceWindow
from tests.simulation.files import Leaves, SimulatedFiles

HOME = Path("/home")
MODEL = "m"
NEIGHBOUR = "n"
"""Another model, beside it in the same runner."""
AGENT = "0.1.0"
DELTA: Final = "model.bin"
"""The member that comes as a delta."""
START_MS = 1_900_000_000_000

Nature = Literal[
    "good", "load_bad", "probe_bad", "slow", "health_bad", "crashing", "tiring", "poison",
    "crashing_beside", "hanging_beside",
]  # fmt: skip
"""`poison` takes the machine down whenever it is loaded; `crashing` its runner once it serves,
`tiring` once it is committed; the last two once they run beside what serves."""

SHADOWED: Final = 20
"""Rows that a candidate compares between two looks."""

POLICY = Policy(health_window_s=10, min_requests=1, max_duration_s=100, limits=Limits())
REFUSES = replace(POLICY, actions={"crashes": "refuse"})
"""Rather no answer than one of the version before."""


class Killed(BaseException):
    """The supervisor process ends here. Like a real kill, nothing may catch it."""


class PowerCut(Killed):
    """And everything else with it."""

    leaves: Leaves = "any"


class Nothing(PowerCut):
    """Nothing is left of what was not synced."""

    leaves = "synced"


class HalfWritten(PowerCut):
    """The file written last is half there."""

    leaves = "half"


class Zeroed(PowerCut):
    """The file written last holds zeros."""

    leaves = "zeros"


class Violation(AssertionError):
    """Something that must always hold did not."""


@dataclass(frozen=True)
class FakeBundle:
    name: str
    model: str
    digest: Digest
    files: Mapping[str, bytes]


def bundle(name: str, model: str = MODEL, policy: Policy = POLICY) -> FakeBundle:
    """Real index and manifest, real contract and policy, junk for the rest; `golden` is shared."""
    contents = {
        "config": b"c" + name.encode(),
        "model": b"m" + name.encode() * 200,
        "contract": codec.encode(
            Contract((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
        ),
        "golden": b"golden of all",
        "profile": b"p" + name.encode(),
        "policy": codec.encode(policy),
        "card": b"card " + name.encode(),
    }
    members = tuple(
        Member(role, f"{role}.bin", digest_of(data), len(data)) for role, data in contents.items()
    )
    manifest = encode_manifest(Variant(members))
    index = encode_index(
        Index(model, name, (VariantReference(digest_of(manifest), len(manifest)),))
    )
    files = {f"{role}.bin": data for role, data in contents.items()}
    return FakeBundle(name, model, digest_of(index), {INDEX: index, MANIFEST: manifest, **files})


@dataclass
class FakeFetch:
    """Writes one more file per call, without syncing anything. The model comes as a delta."""

    device: Device
    model: str | None = None
    digest: Digest | None = None
    progress: Progress | None = None
    problem: tuple[str, str] | None = None
    done: bool = False

    def ensure(self, model: str, digest: Digest) -> None:
        files = self.device.files
        self.model, self.digest, self.problem = model, digest, None
        self.done = False
        if not self.device.linked:
            self.problem = ("OUT-N102", "no link")
            return
        directory = HOME / "bundles" / f".{digest}"
        wanted = self.device.by_digest[digest].files
        try:
            if not files.is_dir(directory):
                files.mkdir(directory)
            for name, data in wanted.items():
                found = files.stat(directory / name)
                if found is not None and files.read(directory / name, 10**6) == data:
                    continue
                files.unlink(directory / name)
                if name == DELTA:
                    self._decode(directory, name, data)
                else:
                    files.put(directory / name, data[: len(data) // 2])
                    files.put(directory / name, data)
                if name not in (INDEX, MANIFEST):
                    return
        except OSError as error:
            self.problem = ("OUT-D201", str(error))
            return
        self.done = True

    def _decode(self, directory: Path, name: str, data: bytes) -> None:
        """What a delta leaves in the folder, and what is put away of it; the rest is for Stage."""
        files = self.device.files
        files.put(directory / ".h-1", b"hint")
        files.put(directory / ".b-1", b"")  # a link
        files.put(directory / ".x-1", b"")
        files.put(directory / ".p-1", b"payload")
        files.put(directory / ".d-1", data[: len(data) // 2])
        files.put(directory / ".d-1", data)
        files.rename(directory / ".d-1", directory / name)
        files.unlink(directory / ".p-1")
        files.unlink(directory / ".h-1")

    def forget(self) -> None:
        self.model = self.digest = self.problem = None
        self.done = False

    def status(self) -> FakeFetch:
        return self


@dataclass
class FakeRunners:
    device: Device
    processes: list[RunnerView] = field(default_factory=list)
    dead: list[Death] = field(default_factory=list)
    count: int = 0
    crashes: dict[Digest, int] = field(default_factory=dict)
    sampling: set[str] = field(default_factory=set)
    """Runners that keep copies of requests."""
    shadowed: dict[str, int] = field(default_factory=dict)
    """Rows that a standby has compared."""

    def views(self) -> tuple[RunnerView, ...]:
        return tuple(self.processes)

    def deaths(self) -> tuple[Death, ...]:
        dead, self.dead = tuple(self.dead), []
        return dead

    def start(self, loads: tuple[Load, ...]) -> RunnerView:
        self.device.tick("start runner")
        for load in loads:
            self.device.loaded(load)
            if self.device.nature_of(load.digest) == "load_bad":
                raise RunnerFailed("OUT-D302", "no", model=load.model, digest=load.digest)
            if self.device.nature_of(load.digest) == "slow":
                raise RunnerFailed("OUT-D313", "slow", model=load.model, digest=load.digest)
        self.count += 1
        view = RunnerView(f"r-{self.count}", self.count, "standby", loads)
        self.processes.append(view)
        return view

    def probe(self, runner: str, model: str) -> None:
        self.device.tick("golden vectors")
        load = next(load for load in self._view(runner).loads if load.model == model)
        if self.device.nature_of(load.digest) == "probe_bad":
            raise RunnerFailed("OUT-D301", "differs", model=model, digest=load.digest)

    def promote(self, runner: str) -> None:
        self.device.tick("promote")
        for load in self._view(runner).loads:
            if self.device.nature_of(load.digest) == "probe_bad":
                raise Violation("a bundle answers whose golden vectors fail")
        self._become(runner, "serving")

    def park(self, runner: str) -> None:
        self.device.tick("park")
        self._become(runner, "parked")

    def drain(self, runner: str) -> None:
        self.device.tick("drain")
        self._end(runner)

    def kill(self, runner: str) -> None:
        self.device.tick("kill runner")
        self._end(runner)

    def peek(self, runner: str) -> Mapping[str, InferenceWindow]:
        return {load.model: self._counts(load) for load in self._view(runner).loads}

    def _counts(self, load: Load) -> InferenceWindow:
        errors = 50 if self.device.nature_of(load.digest) == "health_bad" else 0
        traffic = 100 if self.device.traffic else 0
        return InferenceWindow(load.manifest, load.manifest, answers=traffic, errors=errors)

    def sample(self, runner: str, model: str, every_s: float) -> tuple[Sample, ...]:
        assert self._view(runner).role == "serving"
        self.sampling.add(runner)
        return ()

    def unsample(self, runner: str, model: str) -> None:
        self.sampling.discard(runner)

    def shadow(self, runner: str, model: str, base: Load, samples: tuple[Sample, ...]) -> Shadowed:
        self.device.tick("shadow")
        view = self._view(runner)
        if view.role != "standby":
            raise Violation(f"{runner} runs beside and is {view.role}")
        load = next(load for load in view.loads if load.model == model)
        nature = self.device.nature_of(load.digest)
        if nature == "hanging_beside":
            self._end(runner)
            raise RunnerFailed("OUT-D313", "no answer", model=model, digest=load.digest)
        if nature == "crashing_beside":
            self._end(runner)
            self.dead.append(Death(runner, "standby", -11, model, load.digest, "signal 11"))
            raise RunnerFailed("OUT-D311", "signal 11", model=model, digest=load.digest)
        rows = self.shadowed[runner] = self.shadowed.get(runner, 0) + SHADOWED
        return Shadowed(Shadow(load.digest, rows, rows - 1, (rows,), (rows,), (rows,)), True)

    def serving(self, model: str = MODEL) -> list[Digest]:
        return [
            load.digest
            for view in self.processes
            if view.role == "serving"
            for load in view.loads
            if load.model == model
        ]

    def crash(self, runner: str, load: Load | None) -> None:
        view = self._view(runner)
        self._end(runner)
        model, digest = (load.model, load.digest) if load is not None else (None, None)
        self.dead.append(Death(runner, view.role, -9, model, digest, "signal 9"))

    def _view(self, runner: str) -> RunnerView:
        return next(view for view in self.processes if view.id == runner)

    def _become(self, runner: str, role: Role) -> None:
        self.processes = [
            replace(view, role=role) if view.id == runner else view for view in self.processes
        ]

    def _end(self, runner: str) -> None:
        self.processes = [view for view in self.processes if view.id != runner]


@dataclass
class FakeOutbox:
    """Durable at once, as SQLite with synchronous=FULL is."""

    device: Device
    outcomes: list[Outcome] = field(default_factory=list)

    def reported_number(self, model: str) -> int:
        return max((o.number for o in self.outcomes if o.model == model), default=0)

    def put_outcome(self, outcome: Outcome, now_ms: int) -> None:
        if outcome.number > self.reported_number(outcome.model):
            self.device.tick("outbox commit")
            self.outcomes.append(outcome)

    def baseline(self, model: str, digest: Digest) -> InferenceWindow | None:
        return None


@dataclass(frozen=True)
class FakeMeter:
    """Memory for so many runners besides the margin."""

    fits: float

    def memory(self, runners: Iterable[int]) -> Memory:
        # As small as to keep the least margin.
        left = self.fits - len([*runners])
        return Memory(round(left * RUNNER_BYTES) + LEAST_MARGIN, 256 * 1024 * 1024)

    def held(self, _: int) -> int:
        return RUNNER_BYTES


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


class Device:
    def __init__(
        self, bundles: tuple[FakeBundle, ...], natures: Mapping[str, Nature], room: int = 10**9
    ) -> None:
        self.by_digest = {b.digest: b for b in bundles}
        self.by_name = {b.name: b for b in bundles}
        self.natures: dict[str, Nature] = dict.fromkeys(self.by_name, "good")
        self.natures.update(natures)
        self.operations = 0
        self.crashes: dict[int, type[Killed]] = {}
        self.rng = random.Random(0)
        self.files = SimulatedFiles(self.tick, room)
        self.runners = FakeRunners(self)
        self.outbox = FakeOutbox(self)
        self.fetch = FakeFetch(self)
        self.now_ms, self.now_s = START_MS, 0.0
        self.meter: Meter = Unmeasured()
        self.agent = AGENT
        self.models: tuple[str, ...] = (MODEL,)
        self.stable: str | None = None
        self.neighbour: str | None = None
        """What the other model should run, where there is one."""
        self.linked = True
        self.link_ends = False
        """Whether the link is lost for good once a trial has begun."""
        self.candidate: str | None = None
        """Of a rollout that has this device in its wave."""
        self.shadow = False
        """Whether the rollout wants its candidate to run beside what serves first."""
        self.shadow_rows = 0
        self.window: tuple[TransferWindow, ...] = ()
        self.health = HealthOverride()
        """Of the rollout."""
        self.attempt = 1
        self.local_time: LocalTime | None = _utc
        self.assigned = True
        self.pin: str | None = None
        self.stopped = False
        self.allow: dict[Digest, int] = {}
        self.denied: frozenset[Digest] = frozenset()
        self.revoked: dict[str, Literal["stop", "fallback"]] = {}
        self.traffic = True
        self.ever: set[str] = set()
        """Models that had a committed bundle."""
        self.damaged = False
        """Whether a fault beyond what the design promises to survive was injected."""
        self.trace: list[str] = []
        self.served_before: set[str] = set()
        self.may_stop = False
        self.loads: dict[str, int] = {}
        self.actor: Actor | None = None
        self.disk: Disk | None = None
        self.checked = -1
        """Version of the files that were found to be right last."""
        self.turns = 0

    # --- set up ---

    def install(
        self, current: str | None, previous: str | None, neighbour: str | None = None
    ) -> None:
        """A healthy start: bundles and both journal generations on disk, nothing running."""
        root = self.files
        for directory in (HOME, HOME / "state", HOME / "bundles"):
            root.mkdir(directory)
        for name in {current, previous, neighbour} - {None}:
            found = self.by_name[str(name)]
            root.mkdir(HOME / "bundles" / found.digest)
            for path, data in found.files.items():
                root.put(HOME / "bundles" / found.digest / path, data)
        disk = Disk(HOME, root)
        journals = []
        if current is not None:
            slots = (self.digest(current), self.digest(previous))
            journals.append(Journal(MODEL, current=slots[0], previous=slots[1]))
        if neighbour is not None:
            self.models = (MODEL, NEIGHBOUR)
            journals.append(Journal(NEIGHBOUR, current=self.digest(neighbour)))
        for journal in journals:
            disk.write_journal(journal)
            disk.write_journal(journal)
            self.ever.add(journal.model)
        root.sync(HOME)
        self.operations = self.files.writes = 0
        self.stable, self.neighbour = current, neighbour

    def digest(self, name: str | None) -> Digest | None:
        return None if name is None else self.by_name[name].digest

    def nature_of(self, digest: Digest) -> Nature:
        return self.natures[self.by_digest[digest].name]

    # --- faults ---

    def tick(self, operation: str) -> None:
        self.check_service(operation)
        self.operations += 1
        crash = self.crashes.pop(self.operations, None)
        if crash is not None:
            self.trace.append(f"  {crash.__name__} before {operation!r}")
            raise crash

    def after(self, crash: Killed) -> None:
        """What the crash leaves behind."""
        self.actor = None
        self.fetch = FakeFetch(self)
        if isinstance(crash, PowerCut):
            self.runners.processes, self.runners.dead = [], []
            self.files.power_cut(self.rng, crash.leaves)
            self.damaged = self.damaged or self.files.damaged
        else:
            left = [view for view in self.runners.processes if view.role == "serving"]
            self.runners.processes = left
        self.served_before = self.served()

    def served(self) -> set[str]:
        return {model for model in self.models if self.runners.serving(model)}

    def loaded(self, load: Load) -> None:
        """A bundle enters a process: only right and permitted bytes may."""
        true = self.by_digest[load.digest]
        for name, data in true.files.items():
            if self.files.read(load.path / name, 10**6) != data:
                raise Violation(f"wrong bytes of {true.name} loaded: {name}")
        journal = self.peek_journal(load.model)
        how = self.revoked.get(true.name)
        if how == "stop" or (how and journal is not None and load.digest not in journal.slots):
            raise Violation(f"revoked {true.name} loaded")
        self.loads[true.name] = self.loads.get(true.name, 0) + 1
        if self.natures[true.name] == "poison":
            self.trace.append("  POISON takes the machine down")
            raise PowerCut

    # --- running it ---

    def trusted(self, model: str = MODEL) -> Trusted:
        approvals = {}
        for found in self.by_digest.values():
            how = self.revoked.get(found.name)
            terms = Approved("revoked", on_device=how) if how else Approved()
            approvals[found.digest] = ApprovedBundle(found.model, found.name, found.digest, terms)
        pins = {MODEL: Pin(self.by_name[self.pin].digest)} if self.pin else {}
        document = DeviceDocument("f", "f-d", 1, pins=pins, allow={MODEL: dict(self.allow)})
        if model == NEIGHBOUR:
            rule = Rule(None, self.digest(self.neighbour), None)
            plan = Plan("f", NEIGHBOUR, 1, 1, (rule,))
            return Trusted(plan, document, approvals, self.denied, plan_age_s=0)
        rollout = None
        if (candidate := self.digest(self.candidate)) is not None:
            rollout = Rollout(
                "m-1",
                self.attempt,
                candidate,
                "0" * 32,
                0,
                Wave(EVERYONE),
                require_shadow=self.shadow,
                window=self.window,
                health=self.health,
                shadow_rows=self.shadow_rows,
            )
        stable = self.digest(self.stable)
        rules = (Rule(None, stable, rollout),) if stable or rollout else ()
        plan = Plan("f", MODEL, 1, 1, rules)
        if not self.assigned:
            return Trusted(None, None, approvals, self.denied)
        return Trusted(plan, document, approvals, self.denied, plan_age_s=0)

    def turn(self) -> tuple[Decision, Observed, Step]:
        """One decision and its step. May end in `Killed`, which `survive` deals with."""
        if self.actor is None:
            self.disk = Disk(HOME, self.files)
            self.actor = Actor(
                self.disk,
                self.runners,
                self.fetch,
                self.outbox,
                agent=self.agent,
                dev=False,
                random=self.rng.random,
                meter=self.meter,
            )
        model = self.models[self.turns % len(self.models)]
        self.turns += 1
        trusted, actor = self.trusted(model), self.actor
        self.may_stop = self.stopped or "stop" in self.revoked.values()
        self.break_runners()
        actor.begin(trusted.approvals, trusted.denied, self.now_ms)
        journal = actor.journal(model)
        self.linked = self.linked and not (self.link_ends and journal.tried is not None)
        local = Local(self.now_ms, current=journal.current, previous=journal.previous)
        decision = decide(
            model,
            trusted,
            local,
            journal,
            agent=self.agent,
            guarded=lambda _: False,
            stopped=self.stopped,
            local_time=self.local_time,
        )
        observed = actor.observe(model, decision.desired, self.now_ms, self.now_s)
        step = table.reconcile(decision.desired, observed, self.now_ms)
        self.trace.append(f"{step}")
        self.may_stop = self.may_stop or isinstance(step, Stop | Unload)
        done = actor.perform(step, observed, decision.desired, self.now_ms)
        if isinstance(step, Stop | Unload):
            self.served_before = self.served()
        if not done.again:
            actor.shadow(self.now_s)
            self.now_ms += 1000
            self.now_s += 1
        return decision, observed, step

    def survive(self) -> tuple[Decision, Observed, Step] | None:
        """A turn; None if it was cut short. Invariants are checked either way."""
        try:
            result = self.turn()
        except Killed as crash:
            self.after(crash)
            result = None
        self.check()
        return result

    def break_runners(self) -> None:
        for view in self.runners.processes:
            for load in view.loads:
                if view.role == "serving" and self.breaks(load):
                    self.runners.crash(view.id, load)
                    self.served_before = self.served()
                    return

    def breaks(self, load: Load) -> bool:
        """Whether a bundle that serves takes its runner down now."""
        nature = self.nature_of(load.digest)
        if load.answering != "model":
            return False
        if nature == "tiring":
            journal = self.peek_journal(load.model)
            return journal is not None and journal.current == load.digest
        return nature == "crashing"

    # --- what must hold ---

    def peek_journal(self, model: str = MODEL) -> Journal | None:
        return Disk(HOME, _Still(self.files)).journal(model)

    def check_service(self, operation: str) -> None:
        """Once a model serves, it goes on serving."""
        serves = self.served()
        if not serves >= self.served_before and not self.may_stop:
            missing = self.served_before - serves
            raise Violation(f"nobody serves {missing} before {operation!r}")
        self.served_before = serves

    def check(self) -> None:
        if self.files.version == self.checked:
            return
        self.checked = self.files.version
        for model in self.models:
            self.check_journal(model)

    def check_journal(self, model: str) -> None:
        journal = self.peek_journal(model)
        if journal is not None and journal.current is not None:
            self.ever.add(model)
        if journal is None or self.damaged:
            if model in self.ever and not self.damaged:
                raise Violation("both journal slots are lost")
            return
        for slot in journal.slots:
            name = self.by_digest[slot].name
            if self.natures[name] not in ("good", "tiring"):
                raise Violation(f"{name} is in the journal's slots and was never proven")
        disk = Disk(HOME, _Still(self.files))
        if model in self.ever and not any(disk.verify(slot) for slot in journal.slots):
            raise Violation("no slot of the journal verifies")

    def settle(self, limit: int = 600) -> None:
        """Without further faults it must come to rest. Long pauses are skipped."""
        idle, waits = 0, dict[str, int | None]()
        for _ in range(limit * len(self.models)):
            result = self.survive()
            if result is None:
                continue
            step, model = result[2], result[1].model
            idle = idle + 1 if isinstance(step, Wait) and step.row in (1, 22) else 0
            if isinstance(step, Wait):
                waits[model] = None if self.given_up() and model == MODEL else step.until_ms
            if idle > 8 * len(self.models):
                until = [at for at in waits.values() if at is not None]
                if not until:
                    return
                self.now_ms = max(self.now_ms, min(until))
        raise Violation(f"does not settle; last {self.trace[-1]}")

    def given_up(self) -> bool:
        """Whether a bundle that cannot work was already tried again after a pause."""
        journal = self.peek_journal()
        target = self.digest(self.pin or self.candidate or self.stable)
        if journal is None or target is None:
            return False
        return self.nature_of(target) != "good" and journal.note(target).fails >= 2


class _Still(SimulatedFiles):
    """The same files, read without being noticed."""

    def __init__(self, files: SimulatedFiles) -> None:
        super().__init__(lambda _: None)
        self.nodes = files.nodes
