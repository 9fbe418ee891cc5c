"""From stored windows of devices to the evidence that a gate decides on.

    sample members ─▶ rehearse the day before the start ─▶ freeze terms ─▶ per wave:
        fix who bets ─▶ start clocks ─▶ judge exposures that are over ─▶ close hours into ticks

Each step is one transaction of bounded size and finds in the store what is to be done, so a round
that breaks off anywhere is gone on with by the next one. What is judged stays: windows that
arrive later change nothing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from control_plane.looking import Windows
from control_plane.rollout import score
from control_plane.rollout.advance import Shadowed
from control_plane.rollout.clock import Timing, candidate_clock, fetch_ms
from control_plane.rollout.evidence import (
    BACKGROUND,
    Evidence,
    Exposed,
    Terms,
    Tick,
    WaveEvidence,
)
from control_plane.rollout.gate import GATE
from control_plane.rollout.phase import Counts, total
from control_plane.rollout.sampling import ELIGIBLE_MS, SCALED_MOST, SCORED_MOST, score_place
from control_plane.rollout.ticking import (
    Change,
    Rehearsed,
    Side,
    needs_earlier,
    scatter,
    series_in,
    tick_of,
    watched_of,
)
from control_plane.store import Store
from control_plane.store.bets import REHEARSAL, Judged, Pending
from control_plane.store.evidence import BegunWave
from control_plane.store.rollouts import Rollout
from control_plane.watched_fleet import ProfileOf
from protocol.identifiers import DeviceId

MOST: Final = 100
"""Devices judged per round and rollout."""
_SAMPLED: Final = 100
"""So many times as many members are sampled, which costs no more than a hash of each."""
_CLOCKED: Final = 10
"""So many times as many devices are asked whether their clock has started."""
_LOOKS: Final = 24
"""How often windows that have not come are looked for until they are waited for no more."""
_HOURS: Final = 48
"""Most hours closed per round and wave."""
_MEASURED: Final = 5
"""Completed rollouts whose failures are the background of the next."""
_MEASURED_LEAST: Final = 50
"""Fewer devices say too little about a share of a few per cent."""
_UNITY: Final = 1.0
"""Stands for the spread of rows' confidence while it is measured; changes do not depend on it."""


class Judge:
    """`round` again and again, from one thread; `evidence` whenever it is asked for."""

    def __init__(self, store: Store, profile_of: ProfileOf = lambda _: None) -> None:
        """`profile_of`: references, for rollouts whose gates look at drift."""
        self._store = store
        self._profile_of = profile_of
        self._looked: dict[tuple[str, Side], str] = {}
        """Where to go on looking for clocks. Only so that rounds are short: it may be lost."""
        self._ticks: dict[tuple[str, int], tuple[Tick, ...]] = {}
        """Closed hours that were read already: they never change."""
        self._frozen: dict[str, Terms] = {}
        """The same for terms."""

    def round(self, now_ms: int, limit: int = MOST) -> None:
        """Do what is due; judge at most `limit` devices per rollout."""
        active = self._store.rollouts.active()
        for rollout in active:
            self._advance(rollout, now_ms, limit)
        self._store.bets.forget_ended(limit)
        going = {each.id for each in active}
        self._looked = {key: at for key, at in self._looked.items() if key[0] in going}
        self._ticks = {key: ticks for key, ticks in self._ticks.items() if key[0] in going}
        self._frozen = {id: terms for id, terms in self._frozen.items() if id in going}

    def evidence(self, rollout_id: str) -> Evidence:
        """Of all waves that have begun. Costs what has become of it since it was asked for last."""
        rollout = self._store.rollouts.get(rollout_id)
        if rollout is None:
            return Evidence()
        rows = self._store.evidence
        counts = self._store.rollouts.members.counts(rollout.id)
        begun = rows.waves(rollout.id)
        waves = []
        for wave in range(1, rollout.wave + 1):
            mine = begun.get(wave, BegunWave(wave, _began(rollout, wave), 0, 0, 0))
            exposed = rows.exposed(rollout.id, wave)
            waves.append(
                WaveEvidence(
                    wave,
                    mine.began_ms,
                    counts.get(wave, Counts()),
                    eligible=(mine.candidates, mine.controls),
                    ticks=self._closed(rollout.id, wave),
                    silences=rows.silences(rollout.id, wave),
                    judged={f"{ms / 1000:g}": each for ms, each in exposed.items()},
                )
            )
        return Evidence(self._terms(rollout.id), tuple(waves))

    def prepared(self, rollout_id: str) -> bool:
        """Whether it is settled by what the rollout is judged: before that no wave may begin."""
        return self._terms(rollout_id) is not None

    def _terms(self, rollout: str) -> Terms | None:
        terms = self._frozen.get(rollout) or self._store.evidence.terms(rollout)
        if terms is not None:
            self._frozen[rollout] = terms
        return terms

    def _closed(self, rollout: str, wave: int) -> tuple[Tick, ...]:
        known = self._ticks.get((rollout, wave), ())
        after = known[-1].hour if known else -1
        ticks = (*known, *self._store.evidence.ticks(rollout, wave, after))
        self._ticks[rollout, wave] = ticks
        return ticks

    def shadowed(self, rollout: Rollout) -> Shadowed:
        """How the shadows of the current wave do."""
        shadows = self._store.shadows.total(rollout.id, rollout.wave)
        counts = self._store.rollouts.members.counts(rollout.id).get(rollout.wave, Counts())
        return Shadowed(counts.waited_for, shadows.with_rows, shadows.rows, shadows.agreed)

    # --- before and at the begin of waves -------------------------------------------------------

    def _advance(self, rollout: Rollout, now_ms: int, limit: int) -> None:
        bets, timing = self._store.bets, _timing(rollout)
        progress = bets.progress(rollout.id)
        if progress is None or progress.stage == "sampling":
            cursor = progress.cursor if progress else ""
            if not self._sample(rollout, timing, cursor, limit * _SAMPLED):
                return
        terms = self._terms(rollout.id)
        if terms is None:
            self._rehearse(rollout, timing, limit)
            terms = self._freeze(rollout, timing)
        if rollout.wave == 0:
            return
        self._begin_waves(rollout, timing)
        self._candidate_clocks(rollout, timing, now_ms, limit * _CLOCKED)
        self._control_clocks(rollout, timing, now_ms, limit * _CLOCKED)
        if terms is not None:
            self._judge(rollout, timing, terms, now_ms, limit)
            self._close_hours(rollout, timing, terms, now_ms)

    def _sample(self, rollout: Rollout, timing: Timing, cursor: str, limit: int) -> bool:
        """Go on choosing who may bet; whether all members have been looked at."""
        members = self._store.bets.members_after(rollout.id, cursor, limit)
        done = len(members) < limit
        with self._store.write():
            self._store.bets.sample(
                rollout.id,
                ((wave, score_place(rollout.salt, device), device) for device, wave in members),
            )
            if done:
                self._store.bets.set_progress(rollout.id, "rehearsing")
                self._plan_rehearsal(rollout, timing)
            else:
                self._store.bets.set_progress(rollout.id, "sampling", members[-1][0])
        return done

    def _begin_waves(self, rollout: Rollout, timing: Timing) -> None:
        """Fix who bets in a wave that has begun, and stop the clocks of the one before it."""
        begun = self._store.evidence.waves(rollout.id)
        for wave in range(1, rollout.wave + 1):
            if wave in begun:
                continue
            began_ms = _began(rollout, wave)
            with self._store.write():
                if wave > 1:
                    self._store.bets.stop_clocks(rollout.id, wave - 1, began_ms)
                n: dict[Side, int] = {"a": 0, "b": 0}
                # One that is over already has no time to bet in.
                for side in n if wave == rollout.wave else ():
                    n[side] = self._store.bets.choose(
                        rollout.id, wave, side, began_ms - ELIGIBLE_MS, SCORED_MOST
                    )
                self._store.evidence.begin(
                    rollout.id, BegunWave(wave, began_ms, n["a"], n["b"], timing.hour(began_ms))
                )

    # --- the last day before the start ----------------------------------------------------------

    def _plan_rehearsal(self, rollout: Rollout, timing: Timing) -> None:
        pending = []
        for device in self._store.bets.lowest(rollout.id, SCALED_MOST):
            for exposure_ms in timing.exposures_ms:
                span = timing.rehearsal(rollout.started_ms, exposure_ms)
                pending.append(
                    Pending(REHEARSAL, device, exposure_ms, "b", span.from_ms, span.to_ms)
                )
        self._store.bets.start_clocks(rollout.id, pending)

    def _rehearse(self, rollout: Rollout, timing: Timing, limit: int) -> None:
        judged = []
        windows = Windows(self._store, rollout, timing, self._profile_of)
        for pending in self._store.bets.due(rollout.id, limit, rehearsal=True):
            seen = windows.seen(pending, None)
            exposure_s = pending.exposure_ms / 1000
            series = score.series_of(
                rollout.spec.gates, [exposure_s], seen.classes, _UNITY, labelled=True
            )
            changes = score.changes(series, seen.after, seen.before)
            labelled = bool(seen.after.labelled or seen.before.labelled)
            body = Rehearsed(changes, seen.classes, seen.after.confidence, labelled)
            judged.append(Judged(pending, 0, body))
        self._store.bets.judge(rollout.id, judged)

    def _freeze(self, rollout: Rollout, timing: Timing) -> Terms | None:
        """The terms, once the last day before the start is measured."""
        rehearsed = self._store.bets.rehearsed(rollout.id)
        if rehearsed is None:
            return None
        spec = rollout.spec
        found = scatter(rehearsed)
        exposures_s = [each / 1000 for each in timing.exposures_ms]
        labelled = any(each.labelled for each in rehearsed)
        series = score.series_of(
            spec.gates, exposures_s, found.classes, found.row_sd, labelled=labelled
        )
        counts = self._store.rollouts.members.counts(rollout.id)
        terms = Terms(
            GATE,
            rollout.salt,
            sum(each.all for each in counts.values()),
            rollout.candidate,
            rollout.over,
            limit=spec.failure_limit,
            background=self._background(rollout),
            watched=watched_of(series, found),
            aa_from_ms=min(
                (timing.rehearsal(rollout.started_ms, ms).from_ms for ms in timing.exposures_ms),
                default=rollout.started_ms,
            ),
            aa_to_ms=rollout.started_ms,
            row_sd=found.row_sd,
        )
        self._store.bets.freeze(rollout.id, terms, found.classes)
        return terms

    def _background(self, rollout: Rollout) -> float:
        """Share of devices that failed in the last completed rollouts of the model."""
        tried = bad = 0
        for earlier in self._store.evidence.completed(rollout.model, _MEASURED):
            counts = total(self._store.rollouts.members.counts(earlier).values())
            tried += counts.tried
            bad += counts.failed + counts.rolled_back + counts.silent
        return bad / tried if tried >= _MEASURED_LEAST else BACKGROUND

    # --- clocks ---------------------------------------------------------------------------------

    def _candidate_clocks(self, rollout: Rollout, timing: Timing, now_ms: int, limit: int) -> None:
        """A candidate's clock starts when the candidate began to serve."""
        after = self._looked.get((rollout.id, "a"), "")
        found, self._looked[rollout.id, "a"] = self._store.bets.started(
            rollout.id, rollout.wave, rollout.model, rollout.candidate, after, limit
        )
        began_ms = _began(rollout, rollout.wave)
        self._start(
            rollout,
            timing,
            "a",
            {
                each.device: candidate_clock(began_ms, each.since_ms, each.learnt_ms, now_ms)
                for each in found
            },
        )

    def _control_clocks(self, rollout: Rollout, timing: Timing, now_ms: int, limit: int) -> None:
        """A control's starts at its first contact, plus the time that candidates needed."""
        bets, wave = self._store.bets, rollout.wave
        began_ms = _began(rollout, wave)
        after = self._looked.get((rollout.id, "b"), "")
        heard, self._looked[rollout.id, "b"] = bets.contacts(
            rollout.id, wave, began_ms, after, limit
        )
        if heard:
            bets.set_contacts(rollout.id, wave, heard)
        contacted = bets.contacted(rollout.id, wave, limit)
        if not contacted:
            return
        candidates = self._store.evidence.waves(rollout.id)[wave].candidates
        clocks = bets.clocks(rollout.id, wave)
        fetched_ms = fetch_ms(began_ms, clocks, candidates, timing, now_ms)
        if fetched_ms is not None:
            self._start(
                rollout, timing, "b", {device: at_ms + fetched_ms for device, at_ms in contacted}
            )

    def _start(
        self, rollout: Rollout, timing: Timing, side: Side, clocks: dict[DeviceId, int]
    ) -> None:
        pending = [
            Pending(rollout.wave, device, exposure_ms, side, clock_ms, clock_ms + exposure_ms)
            for device, clock_ms in clocks.items()
            for exposure_ms in timing.exposures_ms
        ]
        if pending:
            self._store.bets.start_clocks(rollout.id, pending)

    # --- judging --------------------------------------------------------------------------------

    def _judge(
        self, rollout: Rollout, timing: Timing, terms: Terms, now_ms: int, limit: int
    ) -> None:
        """Compare each device whose exposure is over with its own past, once."""
        due = self._store.bets.due(rollout.id, limit, before_ms=now_ms)
        if not due:
            return
        windows = Windows(self._store, rollout, timing, self._profile_of)
        waves = self._store.evidence.waves(rollout.id)
        classes = self._store.bets.classes(rollout.id)
        judged, later = [], []
        for pending in due:
            grace_ms = timing.grace_ms(pending.exposure_ms)
            last_ms = pending.end_ms + grace_ms
            if now_ms < last_ms and not windows.complete(pending):
                again_ms = now_ms + max(1, grace_ms // _LOOKS)
                later.append((pending, min(again_ms, last_ms)))
                continue
            seen = windows.seen(pending, classes)
            series = series_in(terms.watched, pending.exposure_ms / 1000)
            changes = score.changes(series, seen.after, seen.before) if series else {}
            hour = max(timing.hour(pending.end_ms), waves[pending.wave].hour)
            body = Change(pending.side, changes, seen.records)
            judged.append(Judged(pending, hour, body))
        with self._store.write():
            self._store.bets.judge(rollout.id, judged)
            self._store.bets.look_again(rollout.id, later)

    def _close_hours(self, rollout: Rollout, timing: Timing, terms: Terms, now_ms: int) -> None:
        """Count what was judged in hours that are over.

        An hour waits up to another one for windows that end in it and have not come; whatever
        comes later counts in the hour that is open then.
        """
        bets = self._store.bets
        for wave, begun in self._store.evidence.waves(rollout.id).items():
            first = begun.hour
            for _ in range(_HOURS):
                hour = bets.next_hour(rollout.id, wave, first)
                ends_ms = timing.hour_ends(hour) if hour is not None else now_ms + 1
                if hour is None or now_ms < ends_ms:
                    break
                if now_ms < ends_ms + timing.hour_ms and bets.waits(rollout.id, wave, ends_ms):
                    break
                self._close(rollout, terms, wave, hour)
                first = hour + 1

    def _close(self, rollout: Rollout, terms: Terms, wave: int, hour: int) -> None:
        bets = self._store.bets
        here = list(bets.in_hours(rollout.id, wave, hour, hour))
        changes = [change for _, change in here]
        earlier = []
        if needs_earlier(changes, terms.watched):
            earlier = [change for _, change in bets.in_hours(rollout.id, wave, 0, hour - 1)]
        exposed: dict[int, list[Change]] = defaultdict(list)
        for exposure_ms, change in here:
            exposed[exposure_ms].append(change)
        self._store.evidence.close(
            rollout.id,
            wave,
            tick_of(hour, changes, earlier, terms.watched),
            {exposure_ms: _exposed(each) for exposure_ms, each in exposed.items()},
        )


def _exposed(changes: list[Change]) -> Exposed:
    a = [each for each in changes if each.side == "a"]
    b = [each for each in changes if each.side == "b"]
    return Exposed(len(a), len(b), sum(bool(x.changes) for x in a), sum(bool(x.changes) for x in b))


def _timing(rollout: Rollout) -> Timing:
    return Timing.of(rollout.spec.exposures_s, rollout.spec.season_s)


def _began(rollout: Rollout, wave: int) -> int:
    """When a wave began; of one that nobody noted, when the current one did."""
    noted = {each.wave: each.began_ms for each in rollout.history}
    return noted.get(wave, rollout.wave_ms or rollout.started_ms)
