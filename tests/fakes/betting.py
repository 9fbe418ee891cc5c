"""A small fleet in virtual days with a real store: devices answer, upload, activate, go away."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.judging import Judge
from control_plane.rollout.spec import RolloutSpec
from control_plane.rollout.waves import PlannedWave
from control_plane.store import Store
from control_plane.store.bundles import BundleRow, ManifestRow
from control_plane.store.members import Member
from control_plane.store.rollouts import Rollout, WaveStory
from protocol.codec import encode, to_wire
from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS
from protocol.identifiers import Digest, digest_of
from protocol.plan import Wave
from protocol.reported import ModelState, ReportedState
from protocol.telemetry import FINAL, InferenceWindow, Record, stream_name

MODEL = "digits"
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 20_000 * DAY_MS
"""When the first wave begins."""
SALT = "5" * 32
PROFILE = digest_of(b"profile")
CLASSES = 3


def bundle(version: str) -> Digest:
    return digest_of(f"bundle {version}".encode())


def manifest(version: str) -> Digest:
    return digest_of(f"manifest {version}".encode())


def window(
    version: str,
    n: int,
    *,
    errors: int = 0,
    latency: int = 20,
    confidence: int = 17,
    first: int = 0,
) -> InferenceWindow:
    """`n` answers, all in one slot of latency and confidence; `first` of them of class 0."""
    slots, bins = [0] * LATENCY_SLOTS, [0] * CONFIDENCE_BINS
    slots[latency], bins[confidence] = n, n
    return InferenceWindow(
        manifest(version),
        PROFILE,
        answers=n,
        rows=n,
        errors=errors,
        latency=tuple(slots),
        confidence=tuple(bins),
        classes=(first, n - first, 0),
    )


@dataclass(frozen=True)
class Upload:
    """One closed window of one device, `span_ms` long."""

    device: str
    lo: int
    t0_ms: int
    body: InferenceWindow
    span_ms: int = HOUR_MS
    hi: int | None = None
    part: int = FINAL

    @property
    def t1_ms(self) -> int:
        return self.t0_ms + self.span_ms

    @property
    def record(self) -> tuple[Record, str]:
        stream = stream_name("inference", self.body.manifest, self.body.profile)
        hi = self.lo if self.hi is None else self.hi
        made = Record(
            1, stream, self.lo, hi, self.body.answers, to_wire(self.body), self.part,
            self.t0_ms, self.t1_ms,
        )  # fmt: skip
        return made, encode(self.body).decode()


@dataclass
class Fleet:
    """`waves`: how many devices each wave adds; the last number is held back."""

    folder: Path
    waves: Sequence[int] = (12, 20, 20, 8)
    spec: RolloutSpec = field(default_factory=lambda: RolloutSpec(MODEL, "v2"))
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "store.sqlite")
        for version in ("v1", "v2"):
            self.store.bundles.put(
                BundleRow(
                    bundle(version), MODEL, version, 1000, 1, "approved",
                    (ManifestRow(manifest(version), PROFILE),),
                )
            )  # fmt: skip
        count = sum(self.waves)
        self.devices = [f"north-d{n}" for n in range(count)]
        for device in self.devices:
            self.store.devices.enrol(device, {}, None, START_MS - 30 * DAY_MS)
        numbers = [wave for wave, size in enumerate(self.waves, start=1) for _ in range(size)]
        self.wave_of = dict(zip(self.devices, numbers, strict=True))
        self.orders = dict.fromkeys(self.devices, 0)
        self.id = f"{MODEL}-1"

    def start(self, **more: object) -> Rollout:
        """The rollout with its members, before its first wave."""
        planned = tuple(PlannedWave(Wave(n), n) for n in range(1, len(self.waves)))
        rollout = Rollout(
            self.id, MODEL, 1, 1, bundle("v2"), bundle("v1"), self.spec, None, SALT,
            self.store.devices.sequence(), planned, started_ms=START_MS,
        )  # fmt: skip
        self.store.rollouts.put(dataclasses.replace(rollout, **more))  # type: ignore[arg-type]
        self.store.rollouts.members.add(
            Member(self.id, device, wave, since_ms=START_MS)
            for device, wave in self.wave_of.items()
        )
        return rollout

    def begin(self, wave: int, at_ms: int) -> None:
        rollout = self.store.rollouts.get(self.id)
        assert rollout is not None
        history = (*rollout.history, WaveStory(wave, at_ms))
        self.store.rollouts.put(
            dataclasses.replace(
                rollout, status="running", wave=wave, wave_ms=at_ms, history=history
            )
        )

    def end(self, at_ms: int) -> None:
        rollout = self.store.rollouts.get(self.id)
        assert rollout is not None
        ended = dataclasses.replace(rollout, status="completed", ended_ms=at_ms)
        self.store.rollouts.put(ended)

    def upload(self, uploads: Iterable[Upload]) -> None:
        with self.store.write():
            for each in uploads:
                self.store.records.ingest(each.device, [each.record])

    def contact(self, device: str, at_ms: int) -> None:
        self.store.devices.contact(device, at_ms)

    def activates(self, device: str, since_ms: int, at_ms: int, *, serving: str = "v2") -> None:
        """It reports at `at_ms` that the candidate serves, since `since_ms` by its own clock."""
        self.orders[device] += 1
        model = ModelState(
            current=bundle("v1"), serving=bundle(serving), target=bundle("v2"),
            rollout=self.id, attempt=1, phase="probation", since_ms=since_ms,
        )  # fmt: skip
        state = ReportedState(self.orders[device], "1.0", models={MODEL: model})
        with self.store.write():
            self.store.devices.put_state(device, state, at_ms)
            self.contact(device, at_ms)

    def close(self) -> None:
        self.store.close()


def traffic(
    rng: random.Random,
    device: str,
    from_ms: int,
    to_ms: int,
    version: str = "v1",
    *,
    lo: int = 0,
    span_ms: int = HOUR_MS,
    worse: float = 1.0,
) -> list[Upload]:
    """Closed windows one after the other, with errors `worse` times as often."""
    made = []
    for n, t0_ms in enumerate(range(from_ms, to_ms, span_ms)):
        requests = rng.randrange(20, 60)
        body = window(
            version,
            requests,
            errors=sum(rng.random() < 0.05 * worse for _ in range(requests)),
            latency=rng.randrange(16, 24),
            confidence=rng.randrange(14, 20),
            first=rng.randrange(requests // 2),
        )
        made.append(Upload(device, lo + n, t0_ms, body, span_ms))
    return made


# --- a fleet over five days -----------------------------------------------------------------------


@dataclass
class World:
    """What happens to a fleet, by time; `judge` sees it through the store alone."""

    fleet: Fleet
    uploads: list[tuple[int, Upload]] = field(default_factory=list)
    """With the time at which each arrives."""
    contacts: list[tuple[int, str]] = field(default_factory=list)
    reports: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of candidates: when they report that they serve the candidate, and since when they say."""

    def until(self, before_ms: int, now_ms: int) -> None:
        """Everything that comes after `before_ms` up to `now_ms`."""
        self.fleet.upload(each for at, each in self.uploads if before_ms < at <= now_ms)
        with self.fleet.store.write():
            for at, device in self.contacts:
                if before_ms < at <= now_ms:
                    self.fleet.contact(device, at)
            for device, (at, since) in self.reports.items():
                if before_ms < at <= now_ms:
                    self.fleet.activates(device, since, at)


SMALL = (6, 8, 8, 4)


def a_world(fleet: Fleet) -> World:
    rng = random.Random(3)
    world = World(fleet)
    for n, device in enumerate(fleet.devices):
        offset = rng.randrange(60) * MINUTE_MS
        begins, ends = START_MS - 3 * DAY_MS + offset, START_MS + 32 * HOUR_MS
        since = START_MS + rng.randrange(10, 200) * MINUTE_MS
        candidate = fleet.wave_of[device] == 1 and n != 4  # The fifth never activates.
        switch = since if candidate else ends
        # The seventh has no past, and the last of all has no traffic at all.
        before = [] if n == 6 else traffic(rng, device, begins, switch)
        after = traffic(rng, device, switch, ends, "v2", worse=4.0) if candidate else []
        if device != fleet.devices[-1]:
            for each in (*before, *after):
                world.uploads.append((each.t1_ms + rng.randrange(30) * MINUTE_MS, each))
        away = n in (5, 15)  # Two have not been heard for days when it begins.
        first = START_MS - (3 * DAY_MS if away else HOUR_MS)
        world.contacts.append((first, device))
        later = range(START_MS + rng.randrange(1, 300) * MINUTE_MS, ends, HOUR_MS)
        world.contacts += [(at, device) for at in later]
        if candidate:
            # The fourth has a clock that is decades behind.
            said = 5 if n == 3 else since
            world.reports[device] = (since + rng.randrange(30) * MINUTE_MS, said)
    return world


ROUNDS = range(START_MS, START_MS + 34 * HOUR_MS, 20 * MINUTE_MS)


def times(world: World, step: int = 1) -> Iterator[int]:
    """When rounds are made; before each, what has happened by then happens."""
    before = 0
    for now in ROUNDS[::step]:
        world.until(before, now)
        before = now
        yield now


def play(world: World, judge: Judge, *, limit: int = 500, rounds: int = 1) -> None:
    world.fleet.start()
    world.fleet.begin(1, START_MS)
    for now in times(world, 2):
        for _ in range(rounds):
            judge.round(now, limit)
