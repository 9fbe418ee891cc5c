"""Looks at journal, directory and runners, and hands reconciliation what it found.

Reads only: everything that changes the device is a step and lives in `act.py`.

Long because all that a decision rests on is looked at in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent import aftercare, denials, reconcile, room
from edge_agent.aftercare import Watched
from edge_agent.collaborators import Fetcher, Meter, Outbox, Runners, Unmeasured
from edge_agent.desired import Desired, Hold, Run
from edge_agent.disk import Disk, Installed
from edge_agent.journal import Journal
from edge_agent.memory import Memory, Running
from edge_agent.observed import Observed, Return, Serving, Standby, Trial
from edge_agent.runner.views import Load, RunnerView
from edge_agent.shadow import Asked, Beside
from edge_agent.watch import health
from protocol.approval import Approvals
from protocol.errors import OutriderError, Unavailable
from protocol.identifiers import Digest, ModelName
from protocol.reported import Answering, Outcome
from protocol.telemetry import InferenceWindow

SETTLES_S: Final = 60.0
"""A committed bundle that served this long (or a tenth of its window) starts afresh."""
MAKES_WAY_S: Final = 45.0
"""What was let go for another bundle comes back after this time, if that did not get so far."""


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
    meter: Meter = field(default_factory=Unmeasured)
    kept_free: Callable[[], int] = lambda: 0
    """Bytes of disk that others will still take, although they are free now."""

    def journal(self, model: ModelName) -> Journal:
        return self.disk.journal(model) or Journal(model)

    def observe(self, model: ModelName, desired: Desired, now_ms: int, now_s: float) -> Observed:
        memory = self.memory
        memory.desired[model] = desired
        run = desired if isinstance(desired, Run) else None
        observed = self._looked_after(self._found(model, run), run, now_s)
        observed = replace(
            observed,
            trial=self._trial(observed, run, now_s) if run is not None else None,
            base_settled=self._settled(observed, now_s),
            start_after_ms=memory.start_after_ms.get(model),
            unreported=self._unreported(observed.journal),
            garbage=self._garbage(),
        )
        if observed.trial is not None:
            observed = replace(observed, triggers=self.memory.trials[model].triggers)
        observed = self._beside(observed, run, now_s)
        observed = self._memory_left(observed, run, now_s)
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
        need = room.need_of(found.index, found.manifest, found.variant, found.policy.session)
        answering = self.journal(found.index.model).note(bundle).answering
        return Load(found.index.model, bundle, found.manifest, found.path, need, answering)

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
        names = {*journal.slots, *_stand_ins(journal)}
        names |= {s.digest for s in serving if s.digest is not None}
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
            policies={d: found.policy for d, found in installed.items()},
            fallbacks=frozenset(self._fallbacks(journal, installed.values())),
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
                    answering=_answering_in(view, model),
                )
            )
        return tuple(found)

    def _standby(self, model: ModelName) -> tuple[Standby, ...]:
        served: dict[ModelName, set[tuple[Digest, Answering]]] = {}
        for view in self.runners.views():
            for load in view.loads if view.role == "serving" else ():
                served.setdefault(load.model, set()).add((load.digest, load.answering))
        found = []
        for view in self.runners.views():
            if view.role not in ("standby", "parked"):
                continue
            parked = view.role == "parked"
            # Where nothing serves at all, it is compared with what would be started.
            right = served or {
                load.model: {(d, self.journal(load.model).note(d).answering)}
                if (d := self.journal(load.model).current) is not None
                else set()
                for load in view.loads
            }
            changed = {
                load.model
                for load in view.loads
                if (load.digest, load.answering) not in right.get(load.model, ())
            }
            fit = len(changed) == 1 and right.keys() <= _models(view)
            if parked and not served and not changed:
                changed, fit = _models(view), all(map(self._unblemished, _digests(view)))
            digest = _digest_in(view, model) if model in changed else None
            found.append(Standby(view.id, digest, fit, parked, _answering_in(view, model)))
        return tuple(found)

    def _unblemished(self, bundle: Digest) -> bool:
        approved = self.approvals.get(bundle)
        return (approved is None or not approved.revoked) and bundle not in self.denied

    def _trial(self, observed: Observed, run: Run, now_s: float) -> Trial | None:
        model, bundle = observed.model, run.digest
        serves = (s for s in observed.serving if s.answering == "model")
        runner = next((s.runner for s in serves if s.digest == bundle), None)
        found = self.disk.installed(bundle) if bundle in observed.verified else None
        if runner is None or found is None or bundle == observed.journal.current:
            self.memory.trials.pop(model, None)
            return None
        window = self._peek(runner, model)
        running = self._running(self.memory.trials, model, runner, bundle, window, now_s)
        held_to = health.terms(found.policy, run.candidate.health, dev=self.dev)
        if window is not None and running.verdict.failed is None:
            before = self._baseline(observed.journal, observed.journal.current)
            running.triggers = health.standing(window, before, found.policy, committed=False)
            running.verdict = health.judge(
                window,
                before,
                found.contract.classes,
                held_to,
                running.verdict.looks,
                running.verdict.latency_looks,
            )
        note = observed.journal.note(bundle)
        fresh = max(running.answers - running.counted_answers, 0)
        return Trial(
            bundle, runner, held_to, running.seconds, note.requests + fresh, running.verdict
        )

    def _beside(self, observed: Observed, run: Run | None, now_s: float) -> Observed:
        """What came so far of a candidate that runs, or ran, beside what serves."""
        model, current, kept = observed.model, observed.journal.current, self.memory.besides
        found = self.disk.installed(run.digest) if run is not None else None
        if run is None or found is None or run.digest == current:
            kept.pop(model, None)
            return observed
        candidate = run.candidate
        asked = Asked(run.digest, current, candidate.rollout, candidate.attempt)
        beside = kept.get(model)
        if beside is None or beside.asked != asked:
            kept.pop(model, None)
            if not run.shadow:
                return observed
            beside = kept[model] = Beside(asked, 0)
        held_to = health.terms(found.policy, candidate.health, dev=self.dev)
        beside.of = candidate.shadow_rows or held_to.min_requests
        held = (s.runner for s in observed.standby if s.digest == run.digest and not s.parked)
        beside.held_by(next(held, None), now_s)
        settled = beside.runner is not None and now_s - beside.since_s >= held_to.mark_s
        return replace(observed, shadow=beside.told, shadow_settled=run.shadow and settled)

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

    def _looked_after(self, observed: Observed, run: Run | None, now_s: float) -> Observed:
        """What is wrong lately with the committed bundle, and which fallback nobody heads for."""
        model, journal, memory = observed.model, observed.journal, self.memory
        current = journal.current
        deaths = memory.deaths.pop(model, ())
        found = self.disk.installed(current) if current in observed.verified else None
        if current is None or found is None or journal.note(current).answering != "model":
            memory.watched.pop(model, None)
            return observed
        watched = memory.watched.get(model)
        if watched is None or watched.digest != current:
            watched = memory.watched[model] = Watched(current)
        aftercare.died(watched, deaths, now_s)
        serves = (s.runner for s in observed.serving if s.digest == current)
        aftercare.look(
            watched,
            found,
            next(serves, None),
            lambda runner: self._peek(runner, model),
            lambda: self._baseline(journal, journal.previous),
            now_s,
        )
        fallbacks, toward = observed.fallbacks, journal.note(current).toward
        if toward is not None and (run is None or run.digest != toward or run.hindrance):
            fallbacks -= {toward}
        return replace(
            observed, fault=watched.fault, triggers=watched.triggers, fallbacks=fallbacks
        )

    def _fallbacks(self, journal: Journal, found: Iterable[Installed]) -> Iterator[Digest]:
        """Fallbacks that approvers still stand by, and that this device has not given up."""
        for each in found:
            bundle = each.policy.fallback
            approved = self.approvals.get(bundle) if bundle is not None else None
            if approved is None or approved.revoked or approved.model != journal.model:
                continue
            if approved.digest not in self.denied and not journal.note(approved.digest).definite:
                yield approved.digest

    def _baseline(self, journal: Journal, bundle: Digest | None) -> health.Baseline | None:
        if bundle is None:
            return None
        try:
            window = self.outbox.baseline(journal.model, bundle)
        except Unavailable:
            # The guard is absent, and says so.
            return None
        found = self.disk.installed(bundle)
        if window is None:
            return None
        return health.Baseline(window, found.name if found else "the version before")

    def _unreported(self, journal: Journal) -> tuple[Outcome, ...]:
        try:
            reported = self.outbox.reported_number(journal.model)
        except Unavailable:
            # It is reported when it can be; what runs here does not wait for that.
            return ()
        return tuple(outcome for outcome in journal.outcomes if outcome.number > reported)

    def _memory_left(self, observed: Observed, run: Run | None, now_s: float) -> Observed:
        """Measured only where something depends on it."""
        views = self.runners.views()
        way = self.memory.making_way
        if way is not None:
            way.since_s = now_s if way.since_s is None else way.since_s
            if now_s - way.since_s > MAKES_WAY_S:
                way = self.memory.making_way = None
        observed = replace(
            observed,
            leaving=any(view.role == "draining" for view in views),
            making_way=way.digest if way is not None and way.model == observed.model else None,
            waits_for_another=way is not None and way.model != observed.model,
        )
        serves = {runner.digest for runner in observed.serving} - {None}
        loaded = {runner.digest for runner in observed.standby} | serves
        home = reconcile.base(observed)
        wanted = run.digest if run is not None and run.digest in observed.verified else None
        wanted = None if wanted == observed.journal.current or wanted in loaded else wanted
        missing = home if serves and home not in loaded else None
        parked = any(runner.parked for runner in observed.standby)
        shadow = run is not None and run.shadow
        beside = shadow and run is not None and run.digest in loaded - serves
        if not (wanted or missing or observed.trial is not None or parked or beside):
            return observed
        memory = self.meter.memory([view.pid for view in views])
        warm = room.keeps_warm(memory, parked=parked or beside)
        if beside and self._another_waits(observed.model):
            warm = False
        observed = replace(observed, keeps_warm=warm)
        if wanted is not None:
            needed = self._needed_memory(wanted, observed.model)
            held = sum(self.meter.held(view.pid) for view in views if view.role == "serving")
            observed = replace(
                observed,
                room=room.room(memory, needed, held),
                short_of_memory=room.shortage(memory, needed, 2 if shadow else 1)
                if memory is not None
                else "it cannot be measured here",
            )
        if missing is not None:
            needed = self._needed_memory(missing, observed.model)
            observed = replace(observed, room_for_base=room.room(memory, needed, 0))
        return observed

    def _another_waits(self, model: ModelName) -> bool:
        """Whether another model is about to be changed: one that only shadows gives way to it."""
        wishes = self.memory.desired
        others = (wishes.get(other) for other in self.memory.lease.waiting if other != model)
        return any(isinstance(other, Run) and not other.shadow for other in others)

    def _needed_memory(self, bundle: Digest, model: ModelName) -> int:
        """Of a runner with this bundle and with what is served of the other models."""
        digests = {bundle}
        for view in self.runners.views():
            if view.role == "serving":
                digests |= {load.digest for load in view.loads if load.model != model}
        loads = [load for each in digests if (load := self.load(each)) is not None]
        return room.runner_bytes(load.need for load in loads)

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
            free_bytes=self._free_bytes(),
            short_of_room=full or bundle in self.memory.short_of_room,
        )

    def _free_bytes(self) -> int:
        return max(self.disk.free_bytes() - self.kept_free(), 0)

    def _absent_return(self, observed: Observed, run: Run) -> Return | None:
        """None where it is here, may not run here, or cannot be had now: then the trial begins
        all the same, and the device reports that its return needs a download."""
        if run.digest not in observed.verified:
            return None
        for bundle in (run.stable, observed.policies[run.digest].fallback):
            found = self._absent(bundle, observed) if bundle is not None else None
            if found is not None:
                return found
        return None

    def _absent(self, stable: Digest, observed: Observed) -> Return | None:
        approved = self.approvals.get(stable)
        if approved is None or approved.revoked or stable in self.denied:
            return None
        if observed.journal.note(stable).reason or self.disk.installed(stable) is not None:
            return None
        if stable in self.disk.partials():
            if self.disk.partial_complete(stable):
                return Return(stable, ready=True)
            if (self.disk.needed_bytes(stable) or 0) > self._free_bytes():
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
            if stored is not None:
                kept.update(stored.slots)
                kept.update(_stand_ins(stored))
                for bundle, note in stored.notes:
                    # What was left for its fallback comes back once its hold is over.
                    kept.update({bundle, note.toward} if note.toward is not None else ())
                wanted.update(self._named(stored.slots))
            if isinstance(desired, Run):
                wanted.update(self._named((desired.digest,)))
                wanted.add(desired.digest)
                if desired.stable is not None:
                    wanted.add(desired.stable)
        complete = self.disk.complete() - kept - wanted
        # While nothing is assigned, what was fetched so far may still be wanted again.
        partial = frozenset() if holding else self.disk.partials() - wanted
        done = {d for d in self.disk.partials() & wanted if d in self.disk.complete()}
        spare = {d for d in done if self.disk.verify(d)}
        return (*sorted(complete), *(f".{d}" for d in sorted(partial | spare)))

    def _named(self, bundles: Iterable[Digest]) -> Iterator[Digest]:
        """Fallbacks that the policies of these bundles name."""
        for bundle in bundles:
            found = self.disk.installed(bundle)
            if found is not None and found.policy.fallback is not None:
                yield found.policy.fallback

    def _lease(self, observed: Observed, run: Run | None, now_ms: int) -> bool:
        model, memory = observed.model, self.memory
        loaded = any(run is not None and s.digest == run.digest for s in observed.standby)
        wants = (
            run is not None
            and run.hindrance is None
            and run.digest in observed.verified
            and run.digest != observed.journal.current
            and reconcile.blocked_until(run, observed, now_ms) is None
            # What runs beside may do so for days, and may wait for room: that keeps nobody waiting.
            and not (run.shadow and (loaded or not reconcile.may_shadow(observed)))
        )
        memory.lease = memory.lease.asked(model) if wants else memory.lease.dropped(model)
        others = {*self.disk.models(), *memory.desired} - {model}
        return memory.lease.grants(model, busy=any(self._changing(other) for other in others))

    def _changing(self, model: ModelName) -> bool:
        """Whether a model is between its probe and its commit."""
        journal, way = self.journal(model), self.memory.making_way
        if way is not None and way.model == model:
            return True
        run = self.memory.desired.get(model)
        shadow = run.digest if isinstance(run, Run) and run.shadow else None
        loaded = {standby.digest for standby in self._standby(model)} - {None, shadow}
        return bool(loaded) or any(
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


def _bundles(view: RunnerView) -> set[tuple[ModelName, Digest, Answering]]:
    return {(load.model, load.digest, load.answering) for load in view.loads}


def _digests(view: RunnerView) -> set[Digest]:
    return {load.digest for load in view.loads}


def _stand_ins(journal: Journal) -> Iterator[Digest]:
    """Bundles whose signed rules answer, or refuse to, where nothing was proven."""
    if journal.current is None:
        yield from (bundle for bundle, note in journal.notes if note.answering != "model")


def _answering_in(view: RunnerView, model: ModelName) -> Answering:
    return next((load.answering for load in view.loads if load.model == model), "model")


def _digest_in(view: RunnerView, model: ModelName) -> Digest | None:
    return next((load.digest for load in view.loads if load.model == model), None)
