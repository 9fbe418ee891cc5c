"""Carries out steps: the sole interpreter of the update machine, and what the supervisor calls.

Once per turn the supervisor calls, from one thread,

    actor.begin(approvals, denied, now_ms)              runner deaths become journal entries
    for each model:
        decision = decide(model, trusted, local, actor.journal(model), agent=...,
                          guarded=actor.guarded)                               (desired.py)
        observed = actor.observe(model, decision.desired, now_ms, now_s)
        step = reconcile(decision.desired, observed, now_ms)
        done = actor.perform(step, observed, decision.desired, now_ms)
        while done.again, from `decide` on

Every method may be cut short by a crash anywhere; the next turn, in this process or another, goes
on from what is on disk. `now_ms` is trusted time, `now_s` monotonic seconds.

Long because one interpreter in one place is what makes the order of writes checkable.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from edge_agent import backoff, denials, reconcile
from edge_agent.collaborators import Fetcher, Meter, Outbox, Runners, Unmeasured
from edge_agent.desired import Desired, Nothing, Run
from edge_agent.disk import Disk
from edge_agent.journal import Journal, Note
from edge_agent.memory import MakingWay, Memory
from edge_agent.observe import Observer
from edge_agent.observed import Observed
from edge_agent.runner.views import Death, Load, RunnerFailed, RunnerView
from edge_agent.shadowing import Shadowing
from edge_agent.steps import (
    Activate,
    Collect,
    Commit,
    Degrade,
    Drain,
    DropPrevious,
    Fetch,
    Kill,
    Mark,
    Park,
    Probe,
    Reject,
    Remember,
    Report,
    Rescue,
    Resume,
    Rollback,
    Stage,
    Step,
    Stop,
    Sync,
    Unload,
    Wait,
)
from edge_agent.watch import health
from protocol.approval import Approvals
from protocol.errors import OutriderError, Unavailable
from protocol.identifiers import Digest, ModelName, short
from protocol.problems import problem
from protocol.reported import Answering, Outcome, Result

log = logging.getLogger(__name__)

START_BASE_S: Final = 1.0
START_CAP_S: Final = 300.0
"""A base that does not start is tried again after a full-jitter pause between these."""


@dataclass(frozen=True, slots=True)
class Performed:
    again: bool
    """Whether something changed, so that the model should be decided again in this turn."""
    problem: tuple[str, str] | None = None
    """Problem code and why, of a step that could not be carried out for now."""


class Actor:
    def __init__(
        self,
        disk: Disk,
        runners: Runners,
        fetcher: Fetcher,
        outbox: Outbox,
        *,
        agent: str,
        dev: bool,
        random: Callable[[], float],
        meter: Meter | None = None,
        kept_free: Callable[[], int] = lambda: 0,
    ) -> None:
        """`agent`: version of this agent; `dev`: whether dev policies apply; `random` in [0, 1).

        Without a `meter` no previous runner is kept warm and none is unloaded first. `kept_free`:
        bytes of disk that are free and that a bundle may not have.
        """
        self._disk = disk
        self._runners = runners
        self._fetcher = fetcher
        self._outbox = outbox
        self._random = random
        self._memory = Memory()
        self._look = Observer(
            disk,
            runners,
            fetcher,
            outbox,
            self._memory,
            agent,
            dev,
            {},
            frozenset(),
            meter or Unmeasured(),
            kept_free,
        )
        self._shadowing = Shadowing(runners, self._memory, self._look.load)

    # --- what the supervisor calls ---

    def journal(self, model: ModelName) -> Journal:
        """As it is on disk; an empty one if there is none, or none that can be read."""
        return self._look.journal(model)

    @property
    def pressing(self) -> bool:
        """Whether a trial or a swap goes on, which may need the next step at any moment."""
        memory = self._memory
        trials = any(isinstance(memory.desired.get(model), Run) for model in memory.trials)
        return trials or memory.making_way is not None

    def guarded(self, bundle: Digest) -> bool:
        """Whether the thrash guard holds for a bundle: not under a dev policy on a dev agent."""
        found = self._disk.installed(bundle)
        return found is None or health.terms(found.policy, dev=self._look.dev).guarded

    def begin(self, approvals: Approvals, denied: frozenset[Digest], now_ms: int) -> None:
        """Begin a turn: with what is trusted now, and with the runners that have died."""
        self._look.approvals, self._look.denied = approvals, denied
        for view in self._runners.views():
            self._memory.loads[view.id] = view.loads
        self._memory.uncharged += self._runners.deaths()
        while self._memory.uncharged:
            try:
                self._died(self._memory.uncharged[0], now_ms)
            except Unavailable as error:
                log.warning("a runner's death is noted later: %s", error)
                break
            self._memory.uncharged.pop(0)
        alive = {view.id for view in self._runners.views()}
        for gone in self._memory.loads.keys() - alive:
            self._memory.loads.pop(gone)
            self._memory.promoted.discard(gone)

    def shadow(self, now_s: float) -> None:
        """Once per turn, after all models: give copies of requests to what runs beside."""
        self._shadowing.turn(now_s)

    def observe(self, model: ModelName, desired: Desired, now_ms: int, now_s: float) -> Observed:
        return self._look.observe(model, desired, now_ms, now_s)

    def perform(self, step: Step, observed: Observed, desired: Desired, now_ms: int) -> Performed:
        """Carry out one step. What fails for now is returned, and decided upon next turn."""
        try:
            return self._perform(step, observed, desired, now_ms)
        except Unavailable as error:
            # A journal that found no room is written again next turn, and says nothing of the
            # room that the bundle needs.
            full = error.code == denials.DISK_FULL and isinstance(step, Stage)
            if full and isinstance(desired, Run):
                self._memory.short_of_room.add(desired.digest)
            return Performed(False, (error.code, error.why))
        except OutriderError as error:
            # A runner that failed in between is found again as what it is now: dead, or serving.
            return Performed(False, (error.code, error.why))

    # --- steps ---

    def _perform(self, step: Step, observed: Observed, desired: Desired, now_ms: int) -> Performed:
        model, journal = observed.model, observed.journal
        match step:
            case Wait():
                return Performed(False)
            case Sync():
                self._disk.sync()
                self._memory.synced = True
            case Remember():
                self._remember(step, observed)
            case Stop():
                self._stop(observed)
            case Activate():
                self._activate(step.digest, observed, now_ms)
            case Drain():
                self._runners.drain(step.runner)
            case Park():
                self._runners.park(step.runner)
            case Unload():
                self._unload(step.digest, observed, desired, now_ms)
            case Kill():
                self._runners.kill(step.runner)
            case Rollback():
                self._rollback(step, observed, desired, now_ms)
            case Degrade():
                self._degrade(step, observed, desired, now_ms)
            case Resume():
                note = replace(journal.note(step.digest).settled, fails=0)
                self._write(journal.with_note(step.digest, note))
            case Rescue():
                self._rescue(step.digest, observed, now_ms)
            case Reject():
                reason = (step.reason, step.detail)
                self._reject(
                    step.digest, reason, observed, desired, now_ms, answering=step.answering
                )
            case Mark():
                self._mark(step.digest, observed)
            case Commit():
                self._commit(step, observed, desired, now_ms)
            case Report():
                for outcome in observed.unreported:
                    self._outbox.put_outcome(outcome, now_ms)
            case Probe():
                self._probe(step.digest, observed, desired, now_ms)
            case Stage():
                self._disk.stage(step.digest)
                self._fetcher.forget()
            case Collect():
                self._collect(step.name)
            case DropPrevious():
                self._disk.write_journal(journal)
                self._disk.collect(step.digest)
                self._memory.short_of_room.clear()
                self._fetcher.forget()
            case Fetch():
                return self._fetch(model, step.digest, observed)
        return Performed(True)

    def _remember(self, step: Remember, observed: Observed) -> None:
        journal = observed.journal
        for bundle in step.bundles:
            note = replace(journal.note(bundle), revoked=observed.revoked.get(bundle))
            journal = journal.with_note(bundle, note)
        self._disk.write_journal(journal)

    def _stop(self, observed: Observed) -> None:
        model = observed.model
        others = self._companions(model, bases=False)
        if others:
            self._promote(self._runners.start(others))
        for runner in observed.serving:
            if runner.digest is not None:
                self._runners.drain(runner.runner)

    def _activate(self, bundle: Digest, observed: Observed, now_ms: int) -> None:
        model = observed.model
        self._memory.making_way = None
        wanted = (bundle, observed.journal.note(bundle).answering)
        fit = (s for s in observed.standby if s.fit)
        standby = next((s for s in fit if (s.digest, s.answering) == wanted), None)
        if standby is not None:
            try:
                self._runners.promote(standby.runner)
                self._memory.promoted.add(standby.runner)
                return
            except RunnerFailed:
                if not standby.parked:
                    raise
                # It may be gone for lack of memory; then the long way, at once.
        load = self._sound(bundle)
        loads = (load, *self._companions(model, bases=True))
        for entering in loads:
            if entering.digest not in self._look.served(entering.model):
                self._count_load(entering)
        try:
            view = self._runners.start(loads)
        except RunnerFailed as error:
            self._charge(error.model or model, error.digest or bundle, error.why)
            self._hold_start(model, now_ms)
            raise
        self._promote(view)
        self._memory.failed_starts.pop(model, None)
        self._memory.start_after_ms.pop(model, None)

    def _unload(self, bundle: Digest, observed: Observed, desired: Desired, now_ms: int) -> None:
        """Nothing is let go before what comes next is known to be sound, and its load counted."""
        self._sound(bundle)
        if isinstance(desired, Run) and bundle == desired.digest != reconcile.base(observed):
            self._begin(bundle, observed, desired, now_ms)
        self._memory.making_way = MakingWay(observed.model, bundle)
        for view in self._runners.views():
            if view.role in ("serving", "parked"):
                self._runners.drain(view.id)

    def _rollback(self, step: Rollback, observed: Observed, desired: Desired, now_ms: int) -> None:
        journal, bundle = observed.journal, step.digest
        note = journal.note(bundle)
        if step.reason in (denials.REVOKED, denials.CORRUPT):
            # Lifted with the revocation, or with sound bytes: nothing to hold against it.
            note = replace(note.settled, fails=note.fails)
        else:
            note = self._given_up(note, bundle, (step.reason, step.detail), desired, now_ms)
            note = replace(note, activated=True, toward=step.toward)
        journal = replace(
            journal, current=journal.previous, previous=None, since_ms=now_ms, unexercised=False
        )
        journal = self._ended(journal, bundle, "rolled_back", (step.reason, step.detail), now_ms)
        self._write(journal.with_note(bundle, note, self._protected(desired)))

    def _degrade(self, step: Degrade, observed: Observed, desired: Desired, now_ms: int) -> None:
        journal, bundle, reason = observed.journal, step.digest, (step.reason, step.detail)
        note = self._given_up(journal.note(bundle), bundle, reason, desired, now_ms)
        note = replace(note, activated=True, answering=step.answering, toward=step.toward)
        if step.answering == "refuses":
            # Answering again is not for this device to decide.
            note = replace(note, definite=True, until_ms=None)
        journal = self._ended(journal, bundle, "degraded", reason, now_ms)
        self._write(journal.with_note(bundle, note, self._protected(desired)))

    def _rescue(self, bundle: Digest, observed: Observed, now_ms: int) -> None:
        """Golden vectors first: what is found may be a bundle that was given up."""
        model = observed.model
        serving = next((s.runner for s in observed.serving if s.digest == bundle), None)
        load = self._sound(bundle)
        runner = serving
        try:
            if runner is None:
                loads = (load, *self._companions(model, bases=True))
                runner = self._runners.start(loads).id
            self._runners.probe(runner, model)
        except RunnerFailed:
            self._memory.unfit_for_rescue.add(bundle)
            if runner is not None and runner != serving:
                self._runners.kill(runner)
            return
        journal = Journal(model, current=bundle, since_ms=now_ms)
        self._write(self._ended(journal, bundle, "rescued", (denials.RESCUED, ""), now_ms))

    def _reject(
        self,
        bundle: Digest,
        reason: tuple[str, str],
        observed: Observed,
        desired: Desired,
        now_ms: int,
        *,
        answering: Answering = "model",
    ) -> None:
        journal = self.journal(observed.model)
        note = self._given_up(journal.note(bundle), bundle, reason, desired, now_ms)
        served = bundle in self._look.served(observed.model)
        note = replace(note, activated=note.activated or served, answering=answering)
        rollout = note.rollout
        journal = journal.with_note(bundle, note, self._protected(desired))
        self._write(self._ended(journal, bundle, "rejected", reason, now_ms, rollout))
        if reason[0] == denials.DISK_FULL:
            # After the pause it is tried afresh, not judged by how it ended this time.
            self._memory.short_of_room.discard(bundle)
            self._fetcher.forget()
        self._memory.trials.pop(observed.model, None)

    def _mark(self, bundle: Digest, observed: Observed) -> None:
        journal, model = observed.journal, observed.model
        note = journal.note(bundle)
        trial = observed.trial
        if bundle == journal.current and note.impaired:
            note = replace(note, loads=0, crashes=0)
        elif bundle == journal.current:
            note = replace(note.settled, fails=0)
        elif trial is None and observed.shadow_settled:
            # Still one load: what it does from here on is no longer what its start did.
            note = replace(note, loads=1)
        elif trial is not None:
            note = replace(
                note,
                loads=0,
                marks=note.marks + 1,
                requests=trial.requests,
                activated=True,
                reason=None,
                detail="",
                definite=False,
                until_ms=None,
            )
        self._write(journal.with_note(bundle, note))
        if bundle != journal.current and model in self._memory.trials:
            self._memory.trials[model].marked()

    def _commit(self, step: Commit, observed: Observed, desired: Desired, now_ms: int) -> None:
        journal, bundle, trial = observed.journal, step.digest, observed.trial
        if trial is None:
            raise Unavailable("OUT-D350", f"{short(bundle)} serves no longer")
        if step.unexercised:
            try:
                self._runners.probe(trial.runner, observed.model)
            except RunnerFailed as error:
                self._blamed(error, bundle, observed, desired, now_ms)
                return
        note = journal.note(bundle)
        before = journal.current
        usable = before is not None and reconcile.against(before, observed) is None
        if before is not None and journal.note(before).answering == "refuses":
            usable = False
        journal = replace(
            journal,
            current=bundle,
            previous=before if usable else None,
            since_ms=note.since_ms,
            unexercised=step.unexercised,
        )
        journal = self._ended(
            journal, bundle, "committed", None, now_ms, note.rollout, unexercised=step.unexercised
        )
        # Wherever a signed policy sent this device, it has got somewhere.
        notes = tuple((name, replace(other, toward=None)) for name, other in journal.notes)
        journal = replace(journal, notes=notes)
        self._write(journal.with_note(bundle, note.settled, self._protected(desired)))

    def _begin(self, bundle: Digest, observed: Observed, desired: Desired, now_ms: int) -> None:
        """Journal that a candidate is about to enter a process."""
        approved = self._look.approvals.get(bundle)
        if approved is None or approved.revoked or not isinstance(desired, Run):
            raise Unavailable("OUT-T104", f"{short(bundle)} may not be started")
        journal, candidate = observed.journal, desired.candidate
        note = journal.note(bundle)
        note = replace(
            note,
            loads=note.loads + 1,
            reason=None,
            detail="",
            definite=False,
            until_ms=None,
            answering="model",
            toward=None,
            attempt=max(note.attempt, candidate.attempt),
            allow=max(note.allow, desired.allow),
            rollout=candidate.rollout,
            since_ms=note.since_ms if note.trying else now_ms,
        )
        journal = journal.with_note(bundle, note, self._protected(desired))
        if journal.tried != bundle:
            journal = journal.with_trial(bundle, now_ms if desired.counts else None)
        self._write(journal)

    def _probe(self, bundle: Digest, observed: Observed, desired: Desired, now_ms: int) -> None:
        load = self._sound(bundle)
        # Whatever happens now, the base is not kept waiting for longer than that.
        alone, self._memory.making_way = self._memory.making_way, None
        if alone is None:
            self._begin(bundle, observed, desired, now_ms)
        try:
            companions = self._companions(observed.model, bases=alone is not None)
            # By its model, whatever answered in its place before.
            view = self._runners.start((replace(load, answering="model"), *companions))
        except RunnerFailed as error:
            self._blamed(error, bundle, observed, desired, now_ms)
            return
        try:
            self._runners.probe(view.id, observed.model)
        except RunnerFailed as error:
            # First, for what has failed may not stay where it could be activated: the journal may
            # find no room.
            self._runners.kill(view.id)
            self._blamed(error, bundle, observed, desired, now_ms)
            return
        if alone is not None:
            self._memory.making_way = MakingWay(observed.model, bundle)

    def _blamed(
        self,
        error: RunnerFailed,
        bundle: Digest,
        observed: Observed,
        desired: Desired,
        now_ms: int,
    ) -> None:
        """A candidate runner failed: give the candidate up, unless another model did it."""
        if error.model is not None and error.model != observed.model:
            self._charge(error.model, error.digest, error.why)
        else:
            self._reject(bundle, (error.code, error.why), observed, desired, now_ms)

    def _collect(self, name: str) -> None:
        """Both generations of every journal must have let go of a bundle before it goes."""
        for model in self._disk.models():
            generations = self._disk.generations(model)
            newest = self._disk.journal(model)
            if newest is not None and any(name in journal.slots for journal in generations):
                self._disk.write_journal(newest)
        self._disk.collect(name)
        self._memory.short_of_room.clear()

    def _fetch(self, model: ModelName, bundle: Digest, observed: Observed) -> Performed:
        if self._disk.journal(model) is None:
            # Before any bundle is there: bundles without a journal mean that it was lost.
            self._write(observed.journal)
        if self._disk.partial_complete(bundle):
            return Performed(True)
        if not self._another_is_fetching(model):
            self._fetcher.ensure(model, bundle)
        status = self._fetcher.status()
        ready = self._disk.partial_complete(bundle)
        return Performed(ready, None if status.digest != bundle else status.problem)

    def _another_is_fetching(self, model: ModelName) -> bool:
        """One fetch at a time: another model's goes on while it gets somewhere and is wanted."""
        status = self._fetcher.status()
        if status.model in (None, model) or status.done or status.problem is not None:
            return False
        wanted = self._memory.desired.get(status.model or model)
        return isinstance(wanted, Run) and wanted.digest == status.digest

    # --- pieces of steps ---

    def _sound(self, bundle: Digest) -> Load:
        """Checked at the last moment. Raises `Unavailable` for bytes that have gone bad since."""
        load = self._look.load(bundle)
        if load is None:
            raise Unavailable(denials.CORRUPT, f"the files of {short(bundle)}")
        return load

    def _companions(self, model: ModelName, *, bases: bool) -> tuple[Load, ...]:
        """What else a new runner must hold: of every other model what is served now.

        With `bases`, models that nothing serves come back too, unless something speaks against
        their base: a model that keeps crashing is left out, not all of them.
        """
        found = []
        for other in sorted({*self._disk.models(), *self._memory.desired} - {model}):
            bundle = self._companion(other, bases=bases)
            load = self._look.load(bundle) if bundle is not None else None
            if load is not None:
                found.append(load)
        return tuple(found)

    def _companion(self, model: ModelName, *, bases: bool) -> Digest | None:
        observed = self._look.found(model)
        wanted = self._memory.desired.get(model)
        home = reconcile.base(observed)
        served = self._look.served(model)
        if isinstance(wanted, Nothing):
            return None
        if isinstance(wanted, Run) and wanted.digest in served:
            return wanted.digest
        if home in served:
            return home
        if served:
            return served[0]
        sound = home is not None and reconcile.against(home, observed) is None
        return home if bases and sound else None

    def _promote(self, view: RunnerView) -> None:
        self._runners.promote(view.id)
        self._memory.promoted.add(view.id)

    def _count_load(self, load: Load) -> None:
        journal = self._disk.journal(load.model)
        if journal is None:
            return
        note = journal.note(load.digest)
        self._write(journal.with_note(load.digest, replace(note, loads=note.loads + 1)))

    def _charge(
        self, model: ModelName, bundle: Digest | None, detail: str, *, served: bool = False
    ) -> None:
        """Journal a runner's death to a bundle that is in use here; others have no counters.

        `served`: whether that runner answered requests, which no journal may know yet.
        """
        journal = self._disk.journal(model)
        if journal is None or bundle is None:
            return
        note = journal.note(bundle)
        if bundle not in journal.slots and not note.trying:
            return
        served = served or note.activated or bundle in self._look.served(model)
        note = replace(note, crashes=note.crashes + 1, activated=served)
        self._write(journal.with_note(bundle, note))
        self._memory.crash_detail[model] = detail

    def _died(self, death: Death, now_ms: int) -> None:
        for shadowed, beside in self._memory.besides.items():
            mine = (beside.runner, beside.asked.candidate) == (death.runner, death.digest)
            # That signal comes from outside: the system ran out of memory, or somebody sent it.
            if mine and death.role == "standby" and death.status != -signal.SIGKILL:
                # It took its runner down, or had to be ended with it: as if its golden vectors
                # had. It never served.
                self._charge(shadowed, beside.asked.candidate, death.detail)
                beside.deaths += 1
        if death.role in ("standby", "parked"):
            # Its load is counted, and whoever started it has seen it fail; or it served nobody,
            # and the system took it first when memory ran out.
            return
        model, bundle = death.model, death.digest
        if model is None:
            # Busy with nothing: only what was new in it can be suspected.
            for load in self._memory.loads.get(death.runner, ()):
                if self.journal(load.model).note(load.digest).trying:
                    model, bundle = load.model, load.digest
        if model is None:
            return
        self._charge(model, bundle, death.detail, served=True)
        if bundle is not None:
            self._memory.deaths.setdefault(model, []).append(bundle)
        journal = self.journal(model)
        if bundle in journal.slots and journal.note(bundle).crashes > 1:
            self._hold_start(model, now_ms)

    def _hold_start(self, model: ModelName, now_ms: int) -> None:
        fails = self._memory.failed_starts.get(model, 0)
        self._memory.failed_starts[model] = fails + 1
        pause = backoff.full_jitter(fails, START_BASE_S, START_CAP_S, self._random())
        self._memory.start_after_ms[model] = now_ms + round(pause * 1000)

    def _given_up(
        self, note: Note, bundle: Digest, reason: tuple[str, str], desired: Desired, now_ms: int
    ) -> Note:
        """The note of a bundle that is given up now, for one reason."""
        code, detail = reason
        definite = code in denials.DEFINITE
        run = desired if isinstance(desired, Run) and desired.digest == bundle else None
        until = None
        returns, returned_ms = note.returns, note.returned_ms
        if code == denials.DEGRADED:
            returns, until = denials.left(note, now_ms, self._random())
            returned_ms = now_ms
        elif not definite and code != denials.REVOKED:
            until = now_ms + backoff.pause_ms(note.fails, self._random())
        return Note(
            activated=note.activated,
            reason=code,
            detail=detail,
            definite=definite,
            until_ms=until,
            fails=note.fails + 1,
            attempt=max(note.attempt, run.candidate.attempt if run is not None else 0),
            allow=max(note.allow, run.allow if run is not None else 0),
            agent=self._look.agent,
            rollout=run.candidate.rollout if run is not None else note.rollout,
            since_ms=note.since_ms,
            revoked=note.revoked,
            returns=returns,
            returned_ms=returned_ms,
        )

    def _ended(
        self,
        journal: Journal,
        bundle: Digest,
        result: Result,
        reason: tuple[str, str] | None,
        now_ms: int,
        rollout: str | None = None,
        *,
        unexercised: bool = False,
    ) -> Journal:
        code, detail = reason or (None, "")
        try:
            reported = self._outbox.reported_number(journal.model)
        except Unavailable:
            # A record buffer that cannot be used keeps nothing from being decided.
            reported = 0
        return journal.with_outcome(
            Outcome(
                journal.next_number(reported),
                journal.model,
                bundle,
                result,
                code,
                detail or (problem(code).title if code is not None else ""),
                rollout if rollout is not None else journal.note(bundle).rollout,
                unexercised,
                now_ms,
            )
        )

    def _protected(self, desired: Desired) -> tuple[Digest, ...]:
        return (desired.digest,) if isinstance(desired, Run) else ()

    def _write(self, journal: Journal) -> None:
        self._disk.write_journal(journal)
