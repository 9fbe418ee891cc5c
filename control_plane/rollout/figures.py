"""From evidence to the numbers that verdicts compare: wealths of bets, bounds, roles of scores.

Per wave k, with share 2^-k of every alpha:

    failures   ln A of "more than the limit fail": of those that failed, rolled back or fell
               silent, and of the silent alone; U, the rate that the failures seen exclude (95 %);
               and c_k and L_k, what a wave of this size may show and still pass
    silence    ln E that new devices fall silent sooner than the others at risk at that moment
    scores     ln M that new devices changed for the worse by more than the margin, and the
               evidence that they did not
    traffic    ln E that new devices are without enough traffic more often than the others

The bets themselves, and where they are from: `sequential`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Final, Literal

import numpy as np
from scipy.special import bdtr

from control_plane.rollout import sequential
from control_plane.rollout.evidence import (
    BACKGROUND,
    Evidence,
    Exposed,
    Slots,
    Watched,
    WaveEvidence,
    distinct,
    merged,
    together,
)
from control_plane.rollout.phase import Counts
from control_plane.rollout.score import SLOTS

Role = Literal["guard", "watch"]
"""A guard's margin is wide enough for this many devices to be shown kept, and has to be, before a
wave passes. A watch can only fail."""

State = Literal["worse", "within", "open", "no scale", "no control", "no data"]

PROVEN: Final = log(1 / sequential.PASS_LEVEL)
"""ln E from which a margin is shown to be kept, or a difference of traffic to be there."""

_USUAL: Final = 0.99
_NONE: Final = (0,) * SLOTS
_LOG_RATIOS: Final = np.log([[2.0], [4.0], [10.0], [30.0], [100.0]])


@dataclass(frozen=True, slots=True)
class ScoreFigures:
    """One series in one wave. Natural logarithms; `n_a`, `n_b` may bet, `a`, `b` have."""

    watched: Watched
    role: Role
    state: State
    n_a: int
    n_b: int
    a: tuple[int, ...]
    b: tuple[int, ...]
    ln_e: float
    """Of this wave alone, that it is worse."""
    ln_m: float
    """Of all waves so far."""
    threshold: float
    ln_pass: float
    """Of this wave alone, that it is within the margin."""

    @property
    def judged(self) -> tuple[int, int]:
        return sum(self.a), sum(self.b)


@dataclass(frozen=True, slots=True)
class Figures:
    """`n` devices came to an end with traffic, `bad` of them failed, rolled back or fell silent.

    `planned`: devices of the wave that can be expected to answer.
    """

    planned: int
    n: int
    bad: int
    limit: float
    background: float
    passable: int
    """c_k"""
    bound: float
    """L_k"""
    upper: float
    """U"""
    explained: float
    """Silent devices of the wave that the silence of control explains: not counted in ln A."""
    ln_a_failed: float
    ln_a_silent: float
    ln_e_silent: float
    threshold_failed: float
    threshold_silent: float
    fell_a: tuple[int, int]
    """Fell silent, of those at risk at first: of the newest wave in which somebody did."""
    fell_b: tuple[int, int]
    ln_unjudged: float
    unjudged: Exposed | None
    scores: tuple[ScoreFigures, ...]


def figures(evidence: Evidence, wave: int, newest: Counts, limit: float) -> Figures:
    """Of `wave`, judged by `newest`: its own counts, or all counts so far where it has none.

    `limit` is used where no terms are frozen.
    """
    terms = evidence.terms
    limit = terms.limit if terms else limit
    background = terms.background if terms else BACKGROUND
    alpha_failed, alpha_silent = (
        (terms.alpha_failed, terms.alpha_silent) if terms else (0.025, 0.005)
    )
    waves = tuple(evidence.of(number) for number in range(1, wave + 1))
    bad = newest.failed + newest.rolled_back + newest.silent
    n = newest.healthy + bad
    planned = newest.waited_for - newest.refused
    passable, bound = sequential.passable(max(planned, 1), background, limit)
    exposed = _longest(waves[-1])
    return Figures(
        planned=planned,
        n=n,
        bad=bad,
        limit=limit,
        background=background,
        passable=passable,
        bound=bound,
        upper=sequential.excluded(n, bad),
        explained=_explained(waves[-1], limit),
        ln_a_failed=_limit_chain(waves, limit, _failed),
        ln_a_silent=_limit_chain(waves, limit, lambda each, _: each.counts.silent),
        ln_e_silent=_silence_chain(waves),
        threshold_failed=log(1 / alpha_failed),
        threshold_silent=log(1 / alpha_silent),
        fell_a=_fell(waves)[0],
        fell_b=_fell(waves)[1],
        ln_unjudged=_unjudged(exposed) if exposed else 0.0,
        unjudged=exposed,
        scores=tuple(_scores(evidence, waves)),
    )


def share(wave: int) -> float:
    """Of every alpha that a wave may use: half for the first, half of the rest for the next."""
    return 0.5**wave


def _limit_chain(
    waves: Sequence[WaveEvidence], limit: float, failures: Callable[[WaveEvidence, float], float]
) -> float:
    ln_m = sequential.NOTHING
    for each in waves:
        wealths = sequential.limit_evidence(
            each.counts.tried, failures(each, limit), limit, devices=each.counts.all
        )
        ln_m = sequential.carry(ln_m, share(each.wave), wealths)
    return ln_m


def _failed(wave: WaveEvidence, limit: float) -> float:
    counts = wave.counts
    unexplained = max(0.0, counts.silent - _explained(wave, limit))
    return counts.failed + counts.rolled_back + unexplained


def _explained(wave: WaveEvidence, limit: float) -> float:
    """How many silent devices of a wave an outage that control has too would explain.

    None where control is at least as large as the wave and no more silent than the limit allows
    (99 %): then silence is a failure like any other. Otherwise as many as a fleet as silent as
    control may be (95 %) has in a wave of this size, and two standard deviations; all of them
    without control. This only ever lowers the failures counted, so the bet on them stays valid;
    it keeps an outage from being held against the candidate.
    """
    counts = wave.counts
    if counts.silent == 0:
        return 0.0
    silent, n = _fell((wave,))[1]
    if n == 0:
        return float(counts.silent)
    if n >= counts.tried and (not silent or bdtr(silent - 1, n, limit) < _USUAL):
        return 0.0
    rate = sequential.excluded(n, silent)
    most = counts.tried * rate + 2 * sqrt(counts.tried * rate * (1 - rate))
    return min(float(counts.silent), most)


def _silence_chain(waves: Sequence[WaveEvidence]) -> float:
    """ln M that devices of the waves fall silent sooner than those at risk with them.

    Those of one sweep are found together, in no order, so each bets with the share at risk before
    the sweep. Drawn without replacement they vary less than such coin tosses (Hoeffding 1963),
    so the mean of the wealth is at most 1.
    """
    ln_m = sequential.NOTHING
    for each in waves:
        wealths = np.zeros(len(_LOG_RATIOS))
        for sweep in merged(each.silences):
            if sweep.at_risk_a + sweep.at_risk_b > 0:
                w = sequential.share_of(sweep.at_risk_a, sweep.at_risk_b)
                a, b = sweep.labels.count("a"), sweep.labels.count("b")
                wealths = wealths + sequential.score_evidence((a,), (b,), w, _LOG_RATIOS)
        ln_m = sequential.carry(ln_m, share(each.wave), wealths)
    return ln_m


def _fell(waves: Sequence[WaveEvidence]) -> tuple[tuple[int, int], tuple[int, int]]:
    for each in reversed(waves):
        if each.silences:
            labels = "".join(sweep.labels for sweep in merged(each.silences))
            at_risk_a = max(sweep.at_risk_a for sweep in each.silences)
            at_risk_b = max(sweep.at_risk_b for sweep in each.silences)
            return (labels.count("a"), at_risk_a), (labels.count("b"), at_risk_b)
    return (0, 0), (0, 0)


def _longest(wave: WaveEvidence) -> Exposed | None:
    """The longest exposure that is over for somebody in both arms."""
    over = {
        float(key): each for key, each in wave.judged.items() if each.due_a > 0 and each.due_b > 0
    }
    return over[max(over)] if over else None


def _unjudged(exposed: Exposed) -> float:
    """ln E that devices of the wave lack traffic more often: those that do bet, as in a score."""
    a, b = exposed.due_a - exposed.a, exposed.due_b - exposed.b
    wealths = sequential.hours_evidence([((a,), (b,))], exposed.due_a, exposed.due_b, _LOG_RATIOS)
    return sequential.log_mean_exp(wealths)


def _scores(evidence: Evidence, waves: Sequence[WaveEvidence]) -> Iterator[ScoreFigures]:
    if evidence.terms is None:
        return
    hours = [each.hours() for each in waves]
    last: dict[object, float] = {}
    for watched in evidence.terms.watched:
        last[watched.score] = max(watched.exposure_s, last.get(watched.score, 0.0))
    for watched in evidence.terms.watched:
        ln_e, ln_m = 0.0, sequential.NOTHING
        a = b = seen_a = seen_b = _NONE
        for each, by_key in zip(waves, hours, strict=True):
            ln_e = 0.0
            mine = by_key.get(watched.key, [])
            a, b = together(mine) if mine else (_NONE, _NONE)
            wealths = _wealths(watched, each, mine)
            if wealths is not None:
                seen_a, seen_b = a, b
                ln_e = sequential.log_mean_exp(wealths)
                ln_m = sequential.carry(ln_m, share(each.wave), wealths)
        if ln_m >= threshold_of(watched):
            a, b = seen_a, seen_b  # An earlier wave may have shown it.
        ln_pass = _within(waves[-1], hours[-1].get(watched.key, []))
        longest = last[watched.score]
        yield _score(watched, waves[-1], (a, b), (ln_e, ln_m, ln_pass), longest=longest)


def course(evidence: Evidence, watched: Watched) -> tuple[tuple[int, int, float], ...]:
    """(wave, hour, ln M) of a series as it went, one entry per hour in which somebody bet."""
    found: list[tuple[int, int, float]] = []
    before = sequential.NOTHING
    for wave in sorted(evidence.waves, key=lambda each: each.wave):
        now = before
        ticks = [each for each in distinct(wave.ticks) if watched.key in each.slots]
        slots = [each.slots[watched.key] for each in ticks]
        for upto, tick in enumerate(ticks, start=1):
            wealths = _wealths(watched, wave, slots[:upto])
            if wealths is not None:
                now = sequential.carry(before, share(wave.wave), wealths)
                found.append((wave.wave, tick.hour, now))
        before = now
    return tuple(found)


def _wealths(
    watched: Watched, wave: WaveEvidence, hours: Sequence[Slots]
) -> sequential.Array | None:
    """Log wealths of the bets on harm; None: nobody to compare with, or nothing said yet."""
    n_a, n_b = wave.eligible
    if watched.alpha <= 0 or not n_a or not n_b or not hours:
        return None
    bets = sequential.fail_bets(n_a, n_b, watched.alpha * share(wave.wave))
    return sequential.hours_evidence(_known(hours, n_a + n_b), n_a, n_b, bets)


def _within(wave: WaveEvidence, hours: Sequence[Slots]) -> float:
    """ln E that new devices are within the margin; 0 where there is nothing to compare."""
    n_a, n_b = wave.eligible
    if not n_a or not n_b or not hours:
        return 0.0
    known, bets = _known(hours, n_a + n_b), sequential.pass_bets(n_a, n_b)
    return sequential.log_mean_exp(sequential.hours_evidence(known, n_a, n_b, bets))


def _known(hours: Sequence[Slots], devices: int) -> list[sequential.Hour]:
    """Hour by hour where that makes a difference, in small fleets; otherwise together."""
    if devices < sequential.SMALL_FLEET:
        return [(each.a, each.b) for each in hours]
    return [together(hours)]


def _score(
    watched: Watched,
    wave: WaveEvidence,
    slots: tuple[tuple[int, ...], tuple[int, ...]],
    ln: tuple[float, float, float],
    *,
    longest: float,
) -> ScoreFigures:
    """`ln`: evidence of harm in this wave and in all so far, and of being within the margin."""
    (n_a, n_b), (a, b), (ln_e, ln_m, ln_pass) = wave.eligible, slots, ln
    threshold = threshold_of(watched)
    state: State
    if ln_m >= threshold:
        state = "worse"
    elif watched.scale is None:
        state = "no scale"
    elif not n_a or not n_b:
        state = "no control"
    elif not any(a) or not any(b):
        state = "no data"
    else:
        state = "within" if ln_pass >= PROVEN else "open"
    # What holds after the longest exposure is asked; shorter ones are there to see harm early.
    guards = watched.exposure_s == longest and watched.scale is not None
    enough = guards and watched.margin >= sequential.smallest_margin(watched.scale or inf, n_a, n_b)
    role: Role = "guard" if enough else "watch"
    return ScoreFigures(watched, role, state, n_a, n_b, a, b, ln_e, ln_m, threshold, ln_pass)


def threshold_of(watched: Watched) -> float:
    """Infinite for a series that has no part of the chance of a wrong verdict."""
    return log(1 / watched.alpha) if watched.alpha > 0 else inf
