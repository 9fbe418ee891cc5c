"""A million devices in virtual hours: what a rollout costs a large fleet, and what it notices.

The waves, the phase table, the slots of scores, the gate and its decisions are the control plane's
own; the devices are rows of numpy arrays. Some are always there, some come by once a day, some are
away for weeks; they fail, fall silent and change by themselves, all of them in the same season.
Nothing is kept per device and hour, so memory is bounded by the size of the fleet.

Long because the world, its scores and the rollout through it are read together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from control_plane.rollout.advance import (
    Abort,
    Advance,
    Begin,
    Complete,
    Pause,
    Position,
    StartSoak,
    decide,
)
from control_plane.rollout.conditions import Gates
from control_plane.rollout.evidence import Evidence, Exposed, Silence, Terms, Tick, WaveEvidence
from control_plane.rollout.gate import GATE, Judgement, replay
from control_plane.rollout.phase import AHEAD, HEARD, PHASES, Counts
from control_plane.rollout.phase_table import SAID, TABLE, Said
from control_plane.rollout.sampling import SCALED_MOST, SCORED_MOST
from control_plane.rollout.score import series_of
from control_plane.rollout.spec import RolloutSpec
from control_plane.rollout.ticking import Change, Rehearsed, Side, scatter, tick_of, watched_of
from control_plane.rollout.waves import Target, lay_out
from control_plane.store.waiting import CAP_MS
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE, position

HOUR_MS: Final = 3_600_000
HOURS_MOST: Final = 60 * 24
START: Final = 24
"""Hour at which the rollout begins."""
SALT: Final = "5a" * 16
SAYS: Final[tuple[Said, ...]] = tuple(SAID)
MOVES: Final = np.array(
    # `silent` has no row: quiet is kept beside the phase here, as it is in the store.
    [[PHASES.index(TABLE[p][s]) if p in TABLE else PHASES.index(p) for s in SAYS] for p in PHASES],
    np.int8,
)
"""The phase table as an array: phase before, what is said -> phase after."""
NEVER: Final = np.float32(1e9)
SILENT_AFTER_H: Final = 3.0
BRIEF_H: Final = 0.3
"""A candidate that served for less time has too little traffic for scores."""

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Model:
    """What a candidate does. Shares are of devices, beyond what fails by itself."""

    name: str
    fails: float = 0.0
    dies: float = 0.0
    """Falls silent for good after activation."""
    errors: float = 1.0
    """Error rate against the version before."""
    latency: float = 1.0


GOOD: Final = Model("good")
SLIGHTLY_BAD: Final = Model("slightly bad", fails=0.02, dies=0.005, errors=1.4)
BAD: Final = Model("bad", fails=0.25, dies=0.05, errors=3.0, latency=1.5)
MODELS: Final = (GOOD, SLIGHTLY_BAD, BAD)


@dataclass(slots=True)
class WaveSeen:
    """One wave as it went. Hours count from the start of the rollout."""

    wave: int
    began_h: int
    planned: int
    tried: int = 0
    failed: int = 0
    silent: int = 0
    verdict: str = ""


@dataclass(slots=True)
class Seen:
    """How a rollout went. `exposed`: devices that ever ran the candidate."""

    model: Model
    devices: int
    status: str
    why: str
    hours: int
    exposed: int
    pending: int
    """Devices that nobody waited for at the end."""
    asked: int = 0
    """How often a person was asked, who always says: go on."""
    waves: list[WaveSeen] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Crowd:
    """The devices, and what becomes of them with one model."""

    def __init__(self, count: int, model: Model, seed: int) -> None:
        self.rng = rng = np.random.default_rng([seed, count])
        self.model = model
        self.spec = RolloutSpec("digits", "v2", gates=Gates(class_mix=None))
        layout = lay_out(self.spec, [Target(f"north-{n}", {}) for n in range(count)], SALT)
        self.spec, self.planned = layout.spec, layout.waves
        places = np.fromiter((position(SALT, f"north-{n}") for n in range(count)), np.int64, count)
        thresholds = [min(each.wave.threshold, EVERYONE) for each in self.planned]
        self.wave = (np.searchsorted(thresholds, places, side="right") + 1).astype(np.int8)
        # 85 % are always linked, 12 % come by every few hours or days, 3 % are away for weeks.
        kind = rng.random(count)
        gap = np.where(kind < 0.85, 0.2, rng.lognormal(np.log(8.0), 0.8, count))
        self.gap = np.where(kind < 0.97, gap, rng.uniform(7 * 24, 60 * 24, count)).astype(
            np.float32
        )
        """Hours between two contacts."""
        self.offset = (rng.random(count) * self.gap).astype(np.float32)
        self.allowance = np.maximum(
            SILENT_AFTER_H, np.minimum(2 * self.gap, CAP_MS / HOUR_MS)
        ).astype(np.float32)
        self.failing = rng.random(count) < 0.004 + model.fails
        self.dying = rng.random(count) < model.dies
        self.idle = rng.random(count) < 0.02
        # Some break for good by themselves, whatever runs on them: one in 20,000 per hour.
        self.breaks = rng.exponential(20_000.0, count).astype(np.float32) + START
        self.phase = np.zeros(count, np.int8)
        self.quiet = np.zeros(count, np.bool_)
        self.bet = np.ones(count, np.bool_)
        """Who has not fallen quiet yet in this rollout."""
        self.reached = np.full(count, NEVER, np.float32)
        self.activated = np.full(count, NEVER, np.float32)
        self.ended = np.full(count, NEVER, np.float32)

    def __len__(self) -> int:
        return len(self.phase)

    def heard(self, hour: float) -> Floats:
        """When each was heard last, in hours. Who is dead is not heard any more."""
        alive = np.minimum(np.where(self.dying, self.activated, NEVER), self.breaks)
        until = np.minimum(np.float32(hour), alive)
        return np.asarray(
            np.floor((until - self.offset) / self.gap) * self.gap + self.offset, np.float32
        )

    def ask(self, wave: int, hour: float) -> None:
        """When those of a wave will reach it, activate and come to an end, if nothing happens."""
        mine = np.flatnonzero(self.wave == wave)
        n = len(mine)
        turns = np.floor((hour - self.offset[mine]) / self.gap[mine]) + 1
        self.reached[mine] = turns * self.gap[mine] + self.offset[mine]
        fetch = self.rng.lognormal(np.log(0.3), 0.8, n).astype(np.float32)
        self.activated[mine] = self.reached[mine] + fetch
        # Failures are soon; a trial with traffic takes some hours.
        trial = np.where(
            self.failing[mine],
            self.rng.exponential(0.7, n),
            self.rng.uniform(1.0, 5.0, n),
        )
        self.ended[mine] = self.activated[mine] + trial.astype(np.float32)

    def report(self, wave: int, hour: float) -> None:
        """The phase of each after what it has said by now, by the phase table."""
        now = np.flatnonzero((self.wave <= wave) & ~np.isin(self.phase, _SETTLED))
        heard = self.heard(hour)[now]
        says = np.full(len(now), SAYS.index("elsewhere"), np.int8)
        for since, word in ((self.reached, "fetches"), (self.activated, "serves")):
            says[heard >= since[now]] = SAYS.index(word)
        over = (heard >= self.ended[now]) & ~self.dying[now]
        says[over] = np.where(
            self.failing[now][over],
            SAYS.index("gone back"),
            np.where(self.idle[now][over], SAYS.index("kept idle"), SAYS.index("kept")),
        )
        self.phase[now] = MOVES[self.phase[now], says]

    def sweep(self, wave: int, hour: int) -> Silence | None:
        """Who has been quiet for too long by now, in the wave and in control."""
        away = np.float32(hour) - self.heard(hour) > self.allowance
        watched = ~np.isin(self.phase, _ENDED)
        fell = away & ~self.quiet & watched & self.bet
        self.quiet = away
        if not wave:
            return None
        a, b = self.bet & watched & (self.wave == wave), self.bet & watched & (self.wave > wave)
        labels = np.concatenate([np.full((fell & a).sum(), "a"), np.full((fell & b).sum(), "b")])
        risk_a, risk_b = int(a.sum()), int(b.sum())
        self.bet &= ~fell
        if not len(labels):
            return None
        self.rng.shuffle(labels)
        return Silence(risk_a, risk_b, "".join(labels), hour * HOUR_MS)

    def counts(self) -> dict[int, Counts]:
        """Per wave, as the store's counters have them."""
        kinds = len(PHASES)
        code = (self.wave.astype(np.int64) * kinds + self.phase) * 2 + self.quiet
        found = np.bincount(code, minlength=(len(self.planned) + 1) * kinds * 2)
        table = found.reshape(-1, kinds, 2)
        return {wave: _counts(table[wave]) for wave in range(1, len(self.planned) + 1)}


_SETTLED: Final = [PHASES.index(p) for p in ("healthy", "unexercised", "failed", "rolled_back")]
_ENDED: Final = [PHASES.index(p) for p in ("failed", "rolled_back", "refused")]


def _counts(table: npt.NDArray[np.int64]) -> Counts:
    numbers: dict[str, int] = dict.fromkeys((*PHASES, "unlinked"), 0)
    for number, phase in enumerate(PHASES):
        linked, quiet = (int(each) for each in table[number])
        numbers[phase] += linked
        numbers["silent" if phase in HEARD else phase] += quiet
        numbers["unlinked"] += quiet if phase in AHEAD else 0
    return Counts(**numbers)


# --- scores -------------------------------------------------------------------------------------


class Scores:
    """Who bets in one wave, and what each of them will have changed by when."""

    def __init__(self, crowd: Crowd, terms: Terms, wave: int, hour: int) -> None:
        self._crowd, self._terms, self._wave = crowd, terms, wave
        eligible = crowd.heard(hour) >= hour - 24
        self.sides: dict[Side, npt.NDArray[np.int64]] = {}
        for side, those in (("a", crowd.wave == wave), ("b", crowd.wave > wave)):
            mine = np.flatnonzero(those & eligible)
            chosen = crowd.rng.permutation(mine)[:SCORED_MOST]
            self.sides[side] = np.sort(chosen)  # type: ignore[index] # the two are sides
        clocks = {"a": crowd.activated[self.sides["a"]]}
        turn = crowd.gap[self.sides["b"]]
        first = np.floor((hour - crowd.offset[self.sides["b"]]) / turn) + 1
        known = clocks["a"][clocks["a"] < NEVER]
        fetched = float(np.median(known)) - hour if len(known) else 1.0
        clocks["b"] = first * turn + crowd.offset[self.sides["b"]] + fetched
        self._due = {
            (side, exposure): np.floor(clocks[side] + exposure / 3600).astype(np.int64) + 1
            for side in clocks
            for exposure in crowd.spec.exposures_s
        }
        self._earlier: list[Change] = []
        self.judged: dict[str, Exposed] = {}

    @property
    def eligible(self) -> tuple[int, int]:
        return len(self.sides["a"]), len(self.sides["b"])

    def changes(self, hour: int) -> list[Change]:
        """Of those whose exposure is over in this hour."""
        found: list[Change] = []
        for exposure in self._crowd.spec.exposures_s:
            before = self.judged.get(f"{exposure:g}", Exposed(0, 0, 0, 0))
            added = {"a": (0, 0), "b": (0, 0)}
            for side, devices in self.sides.items():
                due = devices[self._due[side, exposure] == hour]
                judged = ~self._crowd.idle[due]
                if side == "a":
                    # Who went back at once, or is gone, had no traffic to be judged by.
                    served = self._crowd.ended[due] - self._crowd.activated[due]
                    judged &= ~(self._crowd.failing[due] & (served < BRIEF_H))
                    judged &= ~self._crowd.dying[due]
                alive = due[judged]
                noise = _noise(self._crowd.rng, len(alive), hour)
                for row in noise:
                    values = _as_changes(row, exposure, self._crowd.model, worse=side == "a")
                    found.append(Change(side, values, (hour, hour)))
                added[side] = len(due), len(alive)
            (due_a, a), (due_b, b) = added["a"], added["b"]
            self.judged[f"{exposure:g}"] = Exposed(
                before.due_a + due_a, before.due_b + due_b, before.a + a, before.b + b
            )
        return found

    def tick(self, hour: int) -> Tick | None:
        """The hour in slots; None: nobody bets in it."""
        now = self.changes(hour)
        if not now:
            return None
        tick = tick_of(hour, now, self._earlier, self._terms.watched)
        self._earlier = (self._earlier + now)[-2000:]
        return tick


def _noise(rng: np.random.Generator, count: int, hour: int) -> npt.NDArray[np.float64]:
    """What changes by itself: heavy tails, and a season that all devices share."""
    season = 0.4 * np.sin(2 * np.pi * hour / 24.0 / 7.0)
    spread = np.array([0.3, 0.08, 0.02])
    return np.asarray(rng.standard_t(4, (count, 3)) * spread + season * spread)


def _as_changes(
    row: npt.NDArray[np.float64], exposure: float, model: Model, *, worse: bool
) -> dict[str, float]:
    end = f"/{exposure:g}"
    errors = row[0] + (np.log(model.errors) if worse else 0.0)
    latency = row[1] + (np.log(model.latency) if worse else 0.0)
    return {
        "error_rate" + end: float(errors),
        "latency" + end: float(latency),
        "confidence+" + end: float(row[2]),
        "confidence-" + end: float(-row[2]),
    }


def terms_of(crowd: Crowd) -> Terms:
    """Frozen from the day before, when nothing had changed."""
    rows = _noise(crowd.rng, min(SCALED_MOST, len(crowd)), 0)
    rehearsed = [
        Rehearsed(
            {
                key: value
                for exposure in crowd.spec.exposures_s
                for key, value in _as_changes(row, exposure, GOOD, worse=False).items()
            }
        )
        for row in rows
    ]
    series = series_of(crowd.spec.gates, crowd.spec.exposures_s, 0, 0.2)
    return Terms(
        GATE,
        SALT,
        len(crowd),
        digest_of(b"v2"),
        digest_of(b"v1"),
        limit=crowd.spec.failure_limit,
        watched=watched_of(series, scatter(rehearsed)),
        row_sd=0.2,
    )


# --- a whole rollout ----------------------------------------------------------------------------


def roll_out(devices: int, model: Model, seed: int) -> Seen:
    """One rollout of `model` with the default waves, hour by hour, to its end."""
    crowd = Crowd(devices, model, seed)
    terms = terms_of(crowd)
    at = Position("preparing", 0, START * HOUR_MS)
    seen = Seen(model, devices, "", "", 0, 0, 0)
    waves: list[WaveEvidence] = []
    scores: Scores | None = None
    hour = START
    while at.status in ("preparing", "running") and hour < START + HOURS_MOST:
        hour += 1
        crowd.report(at.wave, hour)
        silence = crowd.sweep(at.wave, hour)
        counts = crowd.counts()
        waves = [replace(each, counts=counts[each.wave]) for each in waves]
        if waves:
            waves[-1] = _added(waves[-1], silence, scores, hour)
        _check(seen, crowd, counts, at.wave)
        evidence = Evidence(terms, tuple(waves))
        for _ in range(3):
            decision, judgement = decide(
                crowd.spec, at, evidence, now_ms=hour * HOUR_MS, ready=True
            )
            if judgement is not None:
                _note(seen, judgement, counts, at.wave)
            match decision:
                case Begin() | Advance():
                    wave = at.wave + 1
                    at = Position("running", wave, at.started_ms, wave_ms=hour * HOUR_MS)
                    crowd.ask(wave, hour)
                    scores = Scores(crowd, terms, wave, hour)
                    waves.append(WaveEvidence(wave, hour * HOUR_MS, counts[wave], scores.eligible))
                    planned = crowd.planned[wave - 1].devices
                    seen.waves.append(WaveSeen(wave, hour - START, planned))
                    break
                case StartSoak():
                    at = replace(at, soak_ms=hour * HOUR_MS)
                case Abort(why):
                    at, seen.why = replace(at, status="aborted"), why
                    break
                case Pause(why):
                    at, seen.why = replace(at, accepted=True), why
                    seen.asked += 1
                case Complete():
                    at = replace(at, status="completed")
                    break
                case _:
                    break
    seen.status, seen.hours = at.status, hour - START
    seen.exposed = int((crowd.activated <= np.minimum(crowd.breaks, hour)).sum())
    seen.pending = sum(each.unlinked for each in crowd.counts().values())
    return seen


def _added(
    wave: WaveEvidence, silence: Silence | None, scores: Scores | None, hour: int
) -> WaveEvidence:
    tick = scores.tick(hour) if scores is not None else None
    return replace(
        wave,
        silences=(*wave.silences, silence) if silence is not None else wave.silences,
        ticks=(*wave.ticks, tick) if tick is not None else wave.ticks,
        judged=dict(scores.judged) if scores is not None else {},
    )


def _note(seen: Seen, judgement: Judgement, counts: dict[int, Counts], wave: int) -> None:
    newest = seen.waves[-1]
    mine = counts[wave]
    newest.tried, newest.silent = mine.tried, mine.silent
    newest.failed = mine.failed + mine.rolled_back
    if newest.verdict != f"{judgement.verdict}/{judgement.id}":
        newest.verdict = f"{judgement.verdict}/{judgement.id}"
        if replay(judgement.inputs) != judgement:
            seen.wrong.append(f"wave {wave}: {judgement} does not replay")


def _check(seen: Seen, crowd: Crowd, counts: dict[int, Counts], wave: int) -> None:
    begun = sum(each.ever_reached for number, each in counts.items() if number <= wave)
    later = sum(each.ever_reached for number, each in counts.items() if number > wave)
    planned = crowd.planned[wave - 1].devices if wave else 0
    if begun > planned or later:
        seen.wrong.append(f"wave {wave}: {begun} of {planned} asked, {later} of later waves")
    everyone = sum(each.all for each in counts.values())
    if everyone != len(crowd):
        seen.wrong.append(f"wave {wave}: {everyone} of {len(crowd)} devices are counted")


def lines(seen: Seen) -> Iterable[str]:
    """For people."""
    yield (
        f"{seen.devices:,} devices, a {seen.model.name} model: {seen.status} after "
        f"{seen.hours} h, {seen.exposed:,} devices exposed, {seen.pending:,} pending, "
        f"asked {seen.asked} times"
    )
    for each in seen.waves:
        yield (
            f"  wave {each.wave} from hour {each.began_h:>4}: {each.planned:>9,} planned, "
            f"{each.tried:>9,} tried, {each.failed:>7,} failed, {each.silent:>7,} silent, "
            f"{each.verdict}"
        )
    if seen.why:
        yield f"  {seen.why}"
