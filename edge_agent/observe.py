"""Looks at journal, directory and runners, and hands reconciliation what it found.

Reads only: everything that changes the device is a step and lives in `act.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from edge_agent import denials, reconcile
from edge_agent.collaborators import Fetcher, Outbox, Runners
from edge_agent.desired import Desired, Hold, Run
from edge_agent.disk import Disk, Installed
from edge_agent.journal import Journal
from edge_agent.memory import Memory, Running
from edge_agent.observed import Observed, Return, Serving, Standby, Trial
from edge_agent.runner.views import Load, RunnerView
from edge_agent.watch import health
from protocol.approval import Approvals
from protocol.errors import OutriderError
from protocol.identifiers import Digest, ModelName
from protocol.reported import Outcome
from protocol.telemetry import InferenceWindow

SETTLES_S: Final = 60.0
"""A committed bundle that served this long (or a tenth of its window) starts afresh."""


@dataclass(slots=True)
class Observer:
    disk: Disk
    runners: Runners
    fetcher: Fetcher
    outbox: Outbox
    memory: Memory
    agent: str
    dev: bool
    approvals: Approvals
    denied: frozenset[Digest]
    """Approvals and the fleet's deny list as last verified."""

    def journal(self, model: ModelName) -> Journal:
        return self.disk.journal(model) or Journal(model)

    def observe(self, model: ModelName, desired: Desired, now_ms: int, now_s: float) -> Observed:
        memory = self.memory
        memory.desired[model] = desired
        run = desired if isinstance(desired, Run) else None
        observed = self._found(model, run)
        observed = replace(
            observed,
            trial=self._trial(observed, run, now_s) if run is not None else None,
            base_settled=self._settled(observed, now_s),
            start_after_ms=memory.start_after_ms.get(model),
            unreported=self._unreported(observed.journal),
            garbage=self._garbage(),
        )
        if run is not None:
            observed = self._room(observed, run.digest)
            observed = replace(observed, absent_return=self._absent_return(observed, run))
        return replace(observed, lease=self._lease(observed, run, now_ms))

    def found(self, model: ModelName) -> Observed:
        """As much as it takes to know the base of a model."""
        desired = self.memory.desired.get(model)
        return self._found(model, desired if isinstance(desired, Run) else None)

    def load(self, bundle: Digest) -> Load | None:
        """What a runner needs to hold a bundle; None if its bytes are not right."""
        found = self.disk.installed(bundle)
        if found is None:
            return None
        return Load(found.index.model, bundle, found.manifest, found.path)

    def served(self, model: ModelName) -> tuple[Digest, ...]:
        return tuple(
            load.digest
            for view in self.runners.views()
            if view.role == "serving"
            for load in view.loads
            if load.model == model
        )

    # --- pieces ---

    def _found(self, model: ModelName, run: Run | None) -> Observed:
        stored = self.disk.journal(model)
        journal = stored or Journal(model)
        serving = self._serving(model)
        names = {*journal.slots, *(s.digest for s in serving if s.digest is not None)}
        if run is not None:
            names.add(run.digest)
        everything = self.disk.complete()
        of_model = set()
        if stored is None:
            of_model = {name for name in everything if self._is_of(name, model)}
        complete = (everything & names) | of_model
        installed = {d: found for d in complete if (found := self.disk.installed(d)) is not None}
        installed = {d: found for d, found in installed.items() if found.index.model == model}
        revoked = denials.revocations(self.approvals, journal, names | of_model)
        unnoted: tuple[Digest, ...] = ()
        if stored is not None:
            unnoted = tuple(sorted(d for d in names if _unnoted(d, revoked.get(d), journal, run)))
        limit = self._crash_limit(installed.get(run.digest), run) if run is not None else 3
        return Observed(
            model,
            journal,
            agent=self.agent,
            synced=self.memory.synced,
            lost=bool(of_model),
            complete=frozenset(complete),
            verified=frozenset(installed),
            serving=serving,
            standby=self._standby(model),
            crash_limit=limit,
            crash_detail=self.memory.crash_detail.get(model, ""),
            revoked=revoked,
            unnoted=unnoted,
            denied=self.denied,
            refusing=frozenset(
                d for d, found in installed.items() if found.policy.on_exhausted == "refuse"
            ),
            unfit_for_rescue=frozenset(self.memory.unfit_for_rescue),
            approved=frozenset(
                d for d in complete if (a := self.approvals.get(d)) is not None and not a.revoked
            ),
        )

    def _is_of(self, bundle: Digest, model: ModelName) -> bool:
        found = self.disk.installed(bundle)
        return (found.index.model if found else self.disk.model_of(bundle)) == model

    def _crash_limit(self, found: Installed | None, run: Run) -> int:
        if found is None:
            return 3
        return health.terms(found.policy, run.candidate.health, dev=self.dev).limits.crashes

    def _serving(self, model: ModelName) -> tuple[Serving, ...]:
        views = [view for view in self.runners.views() if view.role == "serving"]
        found = []
        for position, view in enumerate(views):
            others = [other for other in views if other.id != view.id]
            found.append(
                Serving(
                    view.id,
                    _digest_in(view, model),
                    covered=any(_models(view) <= _models(other) for other in others),
                    twin=any(_bundles(view) == _bundles(other) for other in views[:position]),
                )
            )
        return tuple(found)

    def _standby(self, model: ModelName) -> tuple[Standby, ...]:
        served: dict[ModelName, set[Digest]] = {}
        for view in self.runners.views():
            for load in view.loads if view.role == "serving" else ():
                served.setdefault(load.model, set()).add(load.digest)
        found = []
        for view in self.runners.views():
            if view.role != "standby":
                continue
            changed = {
                load.model for load in view.loads if load.digest not in served.get(load.model, ())
            }
            fit = len(changed) == 1 and served.keys() <= _models(view)
            found.append(
                Standby(view.id, _digest_in(view, model) if model in changed else None, fit)
            )
        return tuple(found)

    def _trial(self, observed: Observed, run: Run, now_s: float) -> Trial | None:
        model, bundle = observed.model, run.digest
        runner = next((s.runner for s in observed.serving if s.digest == bundle), None)
        found = self.disk.installed(bundle) if bundle in observed.verified else None
        if runner is None or found is None or bundle == observed.journal.current:
            self.memory.trials.pop(model, None)
            return None
        window = self._peek(runner, model)
        running = self._running(self.memory.trials, model, runner, bundle, window, now_s)
        held_to = health.terms(found.policy, run.candidate.health, dev=self.dev)
        if window is not None and running.verdict.failed is None:
            running.verdict = health.judge(
                window,
                self._baseline(observed.journal),
                found.contract.classes,
                held_to,
                running.verdict.looks,
            )
        note = observed.journal.note(bundle)
        fresh = max(running.answers - running.counted_answers, 0)
        return Trial(
            bundle, runner, held_to, running.seconds, note.requests + fresh, running.verdict
        )

    def _settled(self, observed: Observed, now_s: float) -> bool:
        model, current = observed.model, observed.journal.current
        runner = next((s.runner for s in observed.serving if s.digest == current), None)
        if current is None or runner is None:
            self.memory.bases.pop(model, None)
            return False
        running = self._running(self.memory.bases, model, runner, current, None, now_s)
        found = self.disk.installed(current)
        if found is None:
            return False
        return running.seconds >= min(health.terms(found.policy, dev=self.dev).mark_s, SETTLES_S)

    def _running(
        self,
        kept: dict[ModelName, Running],
        model: ModelName,
        runner: str,
        bundle: Digest,
        window: InferenceWindow | None,
        now_s: float,
    ) -> Running:
        """Go on counting, or begin when another bundle or runner serves."""
        answers = window.answers if window is not None else 0
        running = kept.get(model)
        if running is None or (running.runner, running.digest) != (runner, bundle):
            counted = 0 if runner in self.memory.promoted else answers
            running = kept[model] = Running(runner, bundle, now_s, counted_answers=counted)
        running.saw(now_s, healthy=window is not None or kept is self.memory.bases)
        running.answers = max(running.answers, answers)
        return running

    def _peek(self, runner: str, model: ModelName) -> InferenceWindow | None:
        """None where the runner does not answer: no evidence, and no healthy time either."""
        try:
            return self.runners.peek(runner).get(model)
        except OutriderError:
            return None

    def _baseline(self, journal: Journal) -> health.Baseline | None:
        if journal.current is None:
            return None
        window = self.outbox.baseline(journal.model, journal.current)
        found = self.disk.installed(journal.current)
        if window is None:
            return None
        return health.Baseline(window, found.name if found else "the version before")

    def _unreported(self, journal: Journal) -> tuple[Outcome, ...]:
        reported = self.outbox.reported_number(journal.model)
        return tuple(outcome for outcome in journal.outcomes if outcome.number > reported)

    def _room(self, observed: Observed, bundle: Digest) -> Observed:
        if bundle in observed.verified:
            return observed
        status = self.fetcher.status()
        full = (
            status.digest == bundle
            and status.problem is not None
            and status.problem[0] == denials.DISK_FULL
        )
        partial = bundle in self.disk.partials()
        return replace(
            observed,
            ready=frozenset({bundle} if partial and self.disk.partial_complete(bundle) else ()),
            needed_bytes=self.disk.needed_bytes(bundle) if partial else None,
            free_bytes=self.disk.free_bytes(),
            short_of_room=full or bundle in self.memory.short_of_room,
        )

    def _absent_return(self, observed: Observed, run: Run) -> Return | None:
        """None where it is here, may not run here, or cannot be had now: then the trial begins
        all the same, and the device reports that its return needs a download."""
        stable = run.stable
        if stable is None or run.digest not in observed.verified:
            return None
        approved = self.approvals.get(stable)
        if approved is None or approved.revoked or stable in self.denied:
            return None
        if observed.journal.note(stable).reason or self.disk.installed(stable) is not None:
            return None
        if stable in self.disk.partials():
            if self.disk.partial_complete(stable):
                return Return(stable, ready=True)
            if (self.disk.needed_bytes(stable) or 0) > self.disk.free_bytes():
                return None
        status = self.fetcher.status()
        if status.digest == stable and status.problem is not None:
            return None
        return Return(stable, ready=False)

    def _garbage(self) -> tuple[str, ...]:
        """Bundles that no model refers to. Nothing, while any model's wishes are not known."""
        wanted: set[Digest] = set()
        kept: set[Digest] = {d for view in self.runners.views() for d in _digests(view)}
        holding = False
        for model in {*self.disk.models(), *self.memory.desired}:
            stored = self.disk.journal(model)
            if model not in self.memory.desired or (stored is None and self.found(model).lost):
                return ()
            desired = self.memory.desired[model]
            holding = holding or isinstance(desired, Hold)
            kept.update(stored.slots if stored is not None else ())
            if isinstance(desired, Run):
                wanted.add(desired.digest)
                if desired.stable is not None:
                    wanted.add(desired.stable)
        complete = self.disk.complete() - kept - wanted
        # While nothing is assigned, what was fetched so far may still be wanted again.
        partial = frozenset() if holding else self.disk.partials() - wanted
        done = {d for d in self.disk.partials() & wanted if d in self.disk.complete()}
        spare = {d for d in done if self.disk.verify(d)}
        return (*sorted(complete), *(f".{d}" for d in sorted(partial | spare)))

    def _lease(self, observed: Observed, run: Run | None, now_ms: int) -> bool:
        model, memory = observed.model, self.memory
        wants = (
            run is not None
            and run.hindrance is None
            and run.digest in observed.verified
            and run.digest != observed.journal.current
            and reconcile.blocked_until(run, observed, now_ms) is None
        )
        memory.lease = memory.lease.asked(model) if wants else memory.lease.dropped(model)
        others = {*self.disk.models(), *memory.desired} - {model}
        return memory.lease.grants(model, busy=any(self._changing(other) for other in others))

    def _changing(self, model: ModelName) -> bool:
        """Whether a model is between its probe and its commit."""
        journal = self.journal(model)
        return any(standby.digest is not None for standby in self._standby(model)) or any(
            bundle != journal.current and journal.note(bundle).trying
            for bundle in self.served(model)
        )


def _unnoted(bundle: Digest, how: str | None, journal: Journal, run: Run | None) -> bool:
    """Only what this device may otherwise run again is worth a note."""
    concerns = bundle in journal.slots or (run is not None and run.digest == bundle)
    concerns = concerns or journal.note(bundle).trying
    return concerns and journal.note(bundle).revoked != how


def _models(view: RunnerView) -> set[ModelName]:
    return {load.model for load in view.loads}


def _bundles(view: RunnerView) -> set[tuple[ModelName, Digest]]:
    return {(load.model, load.digest) for load in view.loads}


def _digests(view: RunnerView) -> set[Digest]:
    return {load.digest for load in view.loads}


def _digest_in(view: RunnerView, model: ModelName) -> Digest | None:
    return next((load.digest for load in view.loads if load.model == model), None)
