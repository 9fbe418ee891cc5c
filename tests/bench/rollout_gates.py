"""Do the gates stop bad rollouts, and leave good ones alone? Part of `make bench NAME=rollout`.

Whole simulated rollouts (gates_world.py) of 1 to 1,000 canaries go through the control plane's own
code: its changes, scales, slots, bets and chains, with the shares of alpha that it freezes. The
chains are followed hour by hour here, because `judge` computes all of them anew each time; on a
sample of rollouts `judge` is asked as well, and any difference is a row of its own. Peers are
fixed and repeated rules on the same rollouts (gates_rivals.py).

Goals: at most 5 % of rollouts that change nothing are aborted; and nothing is caught less often
than in the study that the gates are from (two proportions, one-sided, p < .0005).

`python tests/bench/rollout_gates.py [--quick] [--repeats 10=200,30=120]`

Long because the study's figures, the scenarios and the rows are one table.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, log, nan, sqrt
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from scipy.special import betaincinv, ndtr

sys.path.insert(0, str(Path(__file__).parents[2]))

from control_plane.rollout import score, sequential
from control_plane.rollout.conditions import Gates
from control_plane.rollout.evidence import (
    Evidence,
    Silence,
    Terms,
    Tick,
    Watched,
    WaveEvidence,
)
from control_plane.rollout.figures import share
from control_plane.rollout.gate import Judgement, judge
from control_plane.rollout.phase import Counts
from control_plane.rollout.score import Metric
from control_plane.rollout.spec import RolloutSpec, WaveSpec
from control_plane.rollout.ticking import Change, Rehearsed, scatter, tick_of, watched_of
from tests.bench import gates_rivals as rivals
from tests.bench.gates_rivals import Stop
from tests.bench.gates_world import (
    LABEL_DELAY,
    ROW_SD,
    SEASON,
    START,
    WAVE_HOURS,
    WAVES,
    Array,
    Failures,
    Mask,
    Totals,
    World,
    failures,
    make,
    worse,
)
from tests.bench.report import Row, publish

REPEATS: Final = {1: 200, 3: 200, 10: 200, 30: 120, 100: 100, 1000: 20}
"""By number of canaries, as in the study."""
QUICK: Final = {1: 20, 3: 20, 10: 20, 30: 10, 100: 5, 1000: 1}
SEED: Final = 20_261_121
WRONG_GOAL: Final = 0.05
BELOW: Final = 0.0005
LEAST_REPEATS: Final = 20
"""Below it two proportions are not compared."""
HOUR_S: Final = 3600.0

EXPOSURES_S: Final = (6 * HOUR_S, 24 * HOUR_S)
SERIES: Final = score.series_of(Gates(), EXPOSURES_S, 0, ROW_SD, labelled=True)
LIMIT: Final = 0.02

MORE_FAILURES: Final = (0.0, 0.02, 0.05, 0.10, 0.30)
LEVELS: Final[dict[Metric, tuple[float, ...]]] = {
    "error_rate": (1, 1.2, 1.5, 2, 5),
    "confidence": (0, 0.05, 0.1, 0.3, 0.6),
    "accuracy": (0, 1, 2, 5),
}
"""Ratio, standard deviations of rows, points."""
UNCHANGED: Final = "all metrics, nothing changed"
NOT_PASSED: Final = ", not passed"
RULES: Final = {
    "hawkBit": "hawkBit, 10 % of the group",
    "AWS Jobs": "AWS Jobs, 10 % of completed",
    "Flagger": "Flagger, errors > 2.6 %, 5 checks",
    "Mann-Whitney": "Mann-Whitney (Kayenta) every 2 h",
}
FIXED: Final = ("hawkBit", "AWS Jobs")
_AT_SIX: Final = ("failures +5 points", "failures at 6.6 %, limit 10 %")
RIVALS_WRONG: Final = (
    *((rule, ("failures +0 points", "failures, nothing changed")) for rule in FIXED),
    *((rule, _AT_SIX) for rule in FIXED),
    ("Flagger", ("errors x1", "errors, nothing changed")),
    ("Mann-Whitney", ("errors x1", "errors, nothing changed")),
    ("Mann-Whitney", ("confidence -0 sd", "confidence, nothing changed")),
)
RIVALS_CAUGHT: Final = (
    ("hawkBit", "failures +30 points"),
    ("AWS Jobs", "failures +30 points"),
    ("Flagger", "errors x2"),
    ("Mann-Whitney", "errors x2"),
    ("Mann-Whitney", "confidence -0.3 sd"),
)

STUDY: Final[dict[tuple[str, str], tuple[float, ...]]] = {
    ("failures +2 points", "canary"): (0, 0, 0, 0.01, 0.01, 0.70),
    ("failures +2 points", "rollout"): (0.01, 0, 0, 0.03, 0.14, 1),
    ("failures +5 points", "canary"): (0, 0, 0, 0.05, 0.11, 1),
    ("failures +5 points", "rollout"): (0.01, 0.01, 0.12, 0.42, 0.96, 1),
    ("failures +10 points", "canary"): (0, 0.01, 0.01, 0.33, 0.82, 1),
    ("failures +10 points", "rollout"): (0.04, 0.10, 0.52, 0.97, 1, 1),
    ("failures +30 points", "canary"): (0, 0.04, 0.35, 0.98, 1, 1),
    ("failures +30 points", "rollout"): (0.28, 0.81, 1, 1, 1, 1),
    ("failures +30 points, not passed", "canary"): (0.34, 0.70, 0.85, 1, 1, 1),
    ("failures +30 points, not passed", "rollout"): (0.83, 0.97, 1, 1, 1, 1),
    ("errors x1.5", "canary"): (0, 0, 0, 0.04, 0.61, 1),
    ("errors x1.5", "rollout"): (0, 0.03, 0.14, 0.72, 1, 1),
    ("errors x2", "canary"): (0, 0.01, 0.25, 0.94, 1, 1),
    ("errors x2", "rollout"): (0.04, 0.37, 0.98, 1, 1, 1),
    ("errors x5", "canary"): (0, 0.56, 1, 1, 1, 1),
    ("errors x5", "rollout"): (0.66, 1, 1, 1, 1, 1),
    ("confidence -0.1 sd", "canary"): (0, 0, 0.01, 0.06, 0.52, 1),
    ("confidence -0.1 sd", "rollout"): (0, 0, 0.10, 0.53, 1, 1),
    ("confidence -0.3 sd", "canary"): (0, 0.15, 0.96, 1, 1, 1),
    ("confidence -0.6 sd", "canary"): (0, 0.84, 1, 1, 1, 1),
    ("accuracy -2 points", "canary"): (0, 0, 0, 0, 0, 0.15),
    ("accuracy -2 points", "rollout"): (0, 0, 0, 0.04, 0.05, 0.90),
    ("accuracy -5 points", "canary"): (0, 0, 0, 0.05, 0.32, 1),
    ("accuracy -5 points", "rollout"): (0, 0, 0.01, 0.38, 0.98, 1),
}
"""Shares caught in the canary wave and in the whole rollout, by canaries as in `REPEATS`."""

AT_MARGIN: Final = ("errors x1.2", "confidence -0.05 sd", "accuracy -1 points")
"""Changes of exactly the margin: tolerated, so whoever aborts there is wrong as well."""


@dataclass(slots=True)
class Tally:
    """What became of all repetitions of one scenario, for one number of canaries and one rule."""

    repeats: int = 0
    stops: list[Stop] = field(default_factory=list)
    exposed: list[int] = field(default_factory=list)

    def add(self, world: World, stop: Stop | None) -> None:
        self.repeats += 1
        if stop is not None:
            self.stops.append(stop)
            self.exposed.append(_exposed(world, stop))

    def caught(self, where: str) -> int:
        return sum(where == "rollout" or stop.wave == 1 for stop in self.stops)

    def share(self, where: str) -> float:
        return self.caught(where) / self.repeats if self.repeats else nan


Tallies = dict[tuple[int, str, str], Tally]
"""By canaries, rule and scenario."""


def gate_rows(repeats: Mapping[int, int] | None = None, quick: bool = False) -> list[Row]:
    """Rows of the report. `repeats` by number of canaries; None: the study's, or few if `quick`."""
    asked = dict(repeats if repeats is not None else QUICK if quick else REPEATS)
    tallies: Tallies = defaultdict(Tally)
    different = compared = 0
    for canaries, count in asked.items():
        for repeat in range(count):
            rng = np.random.default_rng([SEED, canaries, repeat])
            world = make(canaries, rng)
            watched = terms_of(world)
            _repetition(world, watched, rng, tallies)
            if canaries <= 30 and repeat < 2:
                for hourly, judged in both_ways(world, watched, rng):
                    compared += 1
                    different += hourly != judged
    return [
        *_wrong_rows(tallies, asked),
        *_caught_rows(tallies, asked),
        Row(
            f"rollouts that judge stops elsewhere, of {compared}",
            different,
            "rollouts",
            goal="0",
            ok=different == 0,
        ),
    ]


# --- one rollout ----------------------------------------------------------------------------------


def terms_of(world: World) -> tuple[Watched, ...]:
    """Scales of the day before, and each series' part of alpha: what a rollout freezes."""
    totals = Totals.of(world)
    found: list[dict[str, float]] = [{} for _ in range(world.devices)]
    for hours in (6, 24):
        series = [each for each in SERIES if each.exposure_s == hours * HOUR_S]
        after, before = totals.over(np.full(world.devices, START - SEASON), hours)
        for key, d in score.changes_of_many(series, after, before).items():
            for device in np.flatnonzero(~np.isnan(d)):
                found[device][key] = float(d[device])
    return watched_of(SERIES, scatter([Rehearsed(each) for each in found]))


@dataclass(frozen=True, slots=True)
class Bets:
    """Everybody's change in one series and wave, without tolerance, and when it is known."""

    d: Array
    hour: Array
    candidate: Mask
    control: Mask


def bets_of(world: World, totals: Totals, watched: Watched, wave: int) -> Bets:
    candidate, control = world.sides(wave)
    start = world.start[wave - 1]
    hours = round(watched.exposure_s / HOUR_S)
    series = [each for each in SERIES if each.key == watched.key]
    d = score.changes_of_many(series, *totals.over(start, hours))[watched.key]
    known = ~np.isnan(d)
    late = LABEL_DELAY if watched.metric == "accuracy" else 0
    return Bets(d, start + float(hours + late), candidate & known, control & known)


def score_stop(
    world: World,
    watched: Sequence[Watched],
    metric: Metric,
    known: tuple[World, Totals] | None = None,
) -> Stop | None:
    """The first hour at which one of the metric's series is worse than tolerated."""
    totals = Totals.of(world, known)
    stops = [
        _series_stop(world, totals, each)
        for each in watched
        if each.metric == metric and each.scale is not None
    ]
    return min((each for each in stops if each), key=lambda each: each.hour, default=None)


def _series_stop(world: World, totals: Totals, watched: Watched) -> Stop | None:
    assert watched.scale is not None
    goal, ln_m = log(1 / watched.alpha), sequential.NOTHING
    for wave in range(1, WAVES + 1):
        n_a, n_b = (int(side.sum()) for side in world.sides(wave))
        found = bets_of(world, totals, watched, wave)
        if not n_a or not (found.candidate | found.control).any():
            continue
        bets = sequential.fail_bets(n_a, n_b, watched.alpha * share(wave))
        value = found.d - watched.margin * found.candidate
        hours: list[sequential.Hour] = []
        before = ln_m
        for hour in np.unique(found.hour[found.candidate | found.control]):
            now, so_far = found.hour == hour, found.hour <= hour
            here = value[now & (found.candidate | found.control)]
            all_so_far = value[so_far & (found.candidate | found.control)]
            centre = score.centre(here, all_so_far)
            a, b = (
                score.slot_counts(value[now & side], centre, watched.scale)
                for side in (found.candidate, found.control)
            )
            hours.append((a, b))
            wealths = sequential.hours_evidence(hours, n_a, n_b, bets)
            ln_m = sequential.carry(before, share(wave), wealths)
            if ln_m >= goal:
                return Stop(float(hour), wave)
    return None


def failure_stops(world: World, found: Sequence[Failures]) -> tuple[Stop | None, Stop | None]:
    """Where `judge` fails a rollout for its failures alone, and where it does that or a wave ends
    without *pass*. It is asked every six minutes in which something became known."""
    waves: list[WaveEvidence] = []
    not_passed = None
    for wave, each in enumerate(found, start=1):
        for hour in sorted({ceil(10 * hour) / 10 for hour in each.hour}):
            now = _wave_evidence(world, each, wave, hour)
            if _judge(Evidence(None, (*waves, now)), wave, hour).verdict == "fail":
                stop = Stop(hour, wave)
                return stop, not_passed or stop
        waves.append(_wave_evidence(world, each, wave, inf))
        end = float(START + wave * WAVE_HOURS)
        said = _judge(Evidence(None, tuple(waves)), wave, end, over=True)
        if said.verdict != "pass" and not_passed is None:
            not_passed = Stop(end, wave)
    return None, not_passed


def _wave_evidence(
    world: World, found: Failures, wave: int, until: float, ticks: Sequence[Tick] = ()
) -> WaveEvidence:
    """What is known of a wave at an hour; `inf`: when everybody in it has come to an end."""
    candidate, control = world.sides(wave)
    size, others = int(candidate.sum()), int(control.sum())
    tried = int((world.start[wave - 1][candidate] <= until).sum())
    known = found.hour <= until
    failed = int((known & found.candidate & found.reported).sum())
    fallen = known & ~found.reported
    silences = []
    left = {"a": size, "b": others}
    sweeps: dict[float, str] = defaultdict(str)
    for hour, ours in zip(found.hour[fallen], found.candidate[fallen], strict=True):
        sweeps[ceil(10 * hour) / 10] += "a" if ours else "b"
    for hour, labels in sweeps.items():
        silences.append(Silence(left["a"], left["b"], labels, round(hour * HOUR_S * 1000)))
        for side in left:
            left[side] -= labels.count(side)
    silent = size - left["a"]
    pending = tried - failed - silent
    counts = Counts(
        targeted=size - tried,
        activated=0 if until == inf else pending,
        healthy=pending if until == inf else 0,
        rolled_back=failed,
        silent=silent,
    )
    return WaveEvidence(wave, 1, counts, (size, others), tuple(ticks), tuple(silences))


_SPEC: Final = RolloutSpec(
    "bench",
    "v2",
    waves=(*(WaveSpec(devices=k) for k in range(1, WAVES + 1)), WaveSpec(percent=100)),
    soak_s=WAVE_HOURS * HOUR_S,
    failure_limit=LIMIT,
    exposures_s=EXPOSURES_S,
)


def _judge(evidence: Evidence, wave: int, hour: float, *, over: bool = False) -> Judgement:
    """`over`: the wave's soak is."""
    now_ms = round(hour * HOUR_S * 1000)
    soak_ms = now_ms - round(_SPEC.soak_of(wave) * 1000) if over else now_ms
    return judge(_SPEC, evidence, wave, now_ms=now_ms, soak_ms=soak_ms)


def _repetition(
    world: World, watched: Sequence[Watched], rng: np.random.Generator, tallies: Tallies
) -> None:
    n = world.canaries

    def note(rule: str, scenario: str, stop: Stop | None) -> None:
        tallies[n, rule, scenario].add(world, stop)

    unchanged: list[Stop | None] = []
    for more in MORE_FAILURES:
        found = failures(world, rng, more)
        scenario = f"failures +{100 * more:g} points"
        failed, not_passed = failure_stops(world, found)
        note("Outrider", scenario, failed)
        note("Outrider", scenario + NOT_PASSED, not_passed)
        note("hawkBit", scenario, rivals.hawkbit(world, found))
        note("AWS Jobs", scenario, rivals.aws(world, found))
        if not more:
            unchanged.append(failed)
    known = (world, Totals.of(world))
    for metric, levels in LEVELS.items():
        for level in levels:
            changed, scenario = _changed(world, rng, metric, level)
            stop = score_stop(changed, watched, metric, known)
            note("Outrider", scenario, stop)
            if metric == "error_rate":
                note("Flagger", scenario, rivals.flagger(changed))
            if metric != "accuracy":
                note("Mann-Whitney", scenario, rivals.mann_whitney(changed, metric))
            if level == levels[0]:
                unchanged.append(stop)
    note("Outrider", UNCHANGED, _first(unchanged))


def _changed(
    world: World, rng: np.random.Generator, metric: Metric, level: float
) -> tuple[World, str]:
    match metric:
        case "error_rate":
            return worse(world, rng, errors=level), f"errors x{level:g}"
        case "confidence":
            return worse(world, rng, confidence=level * ROW_SD), f"confidence -{level:g} sd"
        case _:
            return worse(world, rng, accuracy=level / 100), f"accuracy -{level:g} points"


def _first(stops: Iterable[Stop | None]) -> Stop | None:
    return min((each for each in stops if each), key=lambda s: (s.wave, s.hour), default=None)


def _exposed(world: World, stop: Stop) -> int:
    """Devices that have run the candidate when the rollout is stopped."""
    return sum(
        int((world.start[wave - 1][world.wave == wave] <= stop.hour).sum())
        for wave in range(1, stop.wave + 1)
    )


# --- the same, by judge -------------------------------------------------------------------------


def both_ways(
    world: World, watched: Sequence[Watched], rng: np.random.Generator
) -> Iterator[tuple[Stop | None, Stop | None]]:
    """Where the chains above stop whole rollouts, and where `judge` does, on all it gets."""
    for errors, confidence, more in ((1.0, 0.0, 0.0), (2.0, 0.3, 0.0), (1.5, 0.1, 0.1)):
        changed = worse(world, rng, errors=errors, confidence=confidence * ROW_SD)
        found = failures(world, rng, more)
        stops = [score_stop(changed, watched, metric) for metric in LEVELS]
        yield (
            _first([*stops, failure_stops(world, found)[0]]),
            _judged_stop(changed, watched, found),
        )


def _judged_stop(
    world: World, watched: Sequence[Watched], found: Sequence[Failures]
) -> Stop | None:
    terms = Terms(
        gate="2",
        salt="bench",
        devices=world.devices,
        candidate="sha256-" + "0" * 64,
        limit=LIMIT,
        watched=tuple(watched),
    )
    totals = Totals.of(world)
    waves: list[WaveEvidence] = []
    for wave, each in enumerate(found, start=1):
        by_hour: dict[float, list[Change]] = defaultdict(list)
        for one in watched:
            bets = bets_of(world, totals, one, wave)
            for side, those in (("a", bets.candidate), ("b", bets.control)):
                for device in np.flatnonzero(those):
                    change = Change(side, {one.key: float(bets.d[device])})  # type: ignore[arg-type]  # a literal
                    by_hour[bets.hour[device]].append(change)
        ticks: list[Tick] = []
        earlier: list[Change] = []
        for hour in sorted({*by_hour, *(ceil(10 * hour) / 10 for hour in each.hour)}):
            if hour in by_hour:
                ticks.append(tick_of(int(hour), by_hour[hour], earlier, watched))
                earlier += by_hour[hour]
            now = _wave_evidence(world, each, wave, hour, ticks)
            if _judge(Evidence(terms, (*waves, now)), wave, hour).verdict == "fail":
                return Stop(float(hour), wave)
        waves.append(_wave_evidence(world, each, wave, inf, ticks))
    return None


# --- rows ---------------------------------------------------------------------------------------


def at_most(caught: int, repeats: int) -> float:
    """Upper 95 % bound of a share."""
    return 1.0 if caught >= repeats else float(betaincinv(caught + 1, repeats - caught, 0.95))


def below(caught: int, repeats: int, expected: float, expected_repeats: int) -> float:
    """p of two proportions, one-sided: small where ours is smaller than the study's."""
    both = (caught + expected * expected_repeats) / (repeats + expected_repeats)
    spread = sqrt(both * (1 - both) * (1 / repeats + 1 / expected_repeats))
    return float(ndtr((caught / repeats - expected) / spread)) if spread else 1.0


def _wrong_rows(tallies: Tallies, repeats: Mapping[int, int]) -> Iterator[Row]:
    for n, count in repeats.items():
        for scenario in (UNCHANGED, *AT_MARGIN):
            tally = tallies[n, "Outrider", scenario]
            wrong = tally.caught("rollout")
            yield Row(
                f"wrong aborts, {scenario}: {_canaries(n)}",
                wrong / count,
                f"of {count} rollouts",
                goal=f"<= {WRONG_GOAL:g} (95 %: below {at_most(wrong, count):.3f})",
                ok=wrong / count <= WRONG_GOAL,
            )
        for rule, (scenario, named) in RIVALS_WRONG:
            # Failures at 6.6 % are within their limit and beyond ours: no wrong abort of ours.
            within = scenario != _AT_SIX[0]
            yield Row(
                f"wrong aborts, {named}: {_canaries(n)}",
                tallies[n, "Outrider", scenario].share("rollout") if within else None,
                f"of {count} rollouts",
                tallies[n, rule, scenario].share("rollout"),
                RULES[rule],
            )


def _caught_rows(tallies: Tallies, repeats: Mapping[int, int]) -> Iterator[Row]:
    for n, count in repeats.items():
        place = list(REPEATS).index(n)
        for (scenario, where), expected in STUDY.items():
            tally = tallies[n, "Outrider", scenario]
            p = below(tally.caught(where), count, expected[place], REPEATS[n])
            yield Row(
                f"caught in the {where} {'wave' if where == 'canary' else ''}".strip()
                + f", {scenario}: {_canaries(n)}",
                tally.share(where),
                f"of {count} rollouts",
                expected[place],
                "the study",
                f"not below it, p >= {BELOW:g}",
                p >= BELOW if count >= LEAST_REPEATS else None,
            )
        for rule, scenario in RIVALS_CAUGHT:
            yield Row(
                f"caught in the canary wave, {scenario}: {_canaries(n)}",
                tallies[n, "Outrider", scenario].share("canary"),
                f"of {count} rollouts",
                tallies[n, rule, scenario].share("canary"),
                RULES[rule],
            )
        for scenario, rule in (("failures +30 points", "hawkBit"), ("errors x2", "Flagger")):
            ours, theirs = tallies[n, "Outrider", scenario], tallies[n, rule, scenario]
            yield Row(
                f"devices exposed at the abort, {scenario}: {_canaries(n)}",
                median(ours.exposed) if ours.exposed else None,
                f"devices of {10 * n}, median",
                median(theirs.exposed) if theirs.exposed else None,
                RULES[rule],
            )


def _canaries(n: int) -> str:
    return "1 canary" if n == 1 else f"{n} canaries"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--repeats", help="by canaries: 10=200,30=120")
    options = parser.parse_args(arguments)
    repeats = None
    if options.repeats:
        pairs = (each.split("=") for each in options.repeats.split(","))
        repeats = {int(canaries): int(count) for canaries, count in pairs}
    return publish("rollout_gates", gate_rows(repeats, options.quick))


if __name__ == "__main__":
    sys.exit(main())
