"""What one model reports of itself: the complete state, from what was wanted, found and decided."""

from __future__ import annotations

from typing import Final

from edge_agent import reconcile
from edge_agent.collaborators import FetchState
from edge_agent.desired import Decision, Run
from edge_agent.disk import Installed
from edge_agent.journal import MARKS, Note
from edge_agent.observed import Observed
from edge_agent.steps import Step, Wait
from protocol import reported
from protocol.identifiers import Digest
from protocol.plan import Plan
from protocol.reported import Answering, DriftState, Guards, ModelState, Phase, Progress

_SHOWN: Final = 8


def model_state(
    decision: Decision,
    observed: Observed,
    step: Step,
    *,
    plan: Plan | None,
    fetch: FetchState,
    serving: Installed | None,
    problem: tuple[str, str] | None = None,
    drift: DriftState | None = None,
) -> ModelState:
    """`step` is the last one decided this turn, `serving` the installed bundle that serves.

    `problem` is what kept the last step from being carried out, if anything did; `drift` is what
    the detectors say of what serves.
    """
    journal = observed.journal
    run = decision.desired if isinstance(decision.desired, Run) else None
    served = serves(observed)
    waiting, detail = _waiting(step, run, observed, fetch, problem)
    returns = _returns_to(observed, run, served)
    return ModelState(
        current=journal.current,
        previous=journal.previous,
        serving=served,
        manifest=serving.manifest if serving is not None else None,
        target=run.digest if run is not None else None,
        origin=run.candidate.origin if run is not None else "",
        rollout=run.candidate.rollout if run is not None else None,
        attempt=run.candidate.attempt if run is not None else 0,
        phase=phase(observed, run, fetch),
        progress=_progress(run, fetch),
        plan_version=plan.version if plan is not None else 0,
        plan_number=plan.number if plan is not None else 0,
        rule=run.candidate.rule if run is not None else None,
        since_ms=_since_ms(observed, served),
        waiting=waiting,
        waiting_detail=detail,
        returns_to=returns,
        return_needs_download=returns is not None and returns not in observed.complete,
        committed_unexercised=journal.unexercised and served == journal.current,
        guards=_guards(observed),
        answering=_answering(observed, served),
        triggers=dict(observed.triggers),
        notes={bundle: _note(note) for bundle, note in journal.notes[-_SHOWN:] if note != Note()},
        last=journal.outcomes[-1] if journal.outcomes else None,
        shadow=observed.shadow,
        drift=drift,
    )


def serves(observed: Observed) -> Digest | None:
    """What answers requests now; a trial before the base that it replaces."""
    if observed.trial is not None:
        return observed.trial.digest
    served = [runner.digest for runner in observed.serving if runner.digest is not None]
    home = reconcile.base(observed)
    return home if home in served else next(iter(served), None)


def phase(observed: Observed, run: Run | None, fetch: FetchState) -> Phase:
    if run is None or run.digest == observed.journal.current:
        return "idle"
    bundle = run.digest
    if observed.trial is not None and observed.trial.digest == bundle:
        return "probation"
    if any(runner.digest == bundle for runner in observed.standby):
        return "standby"
    if bundle in observed.verified or bundle in observed.ready:
        return "staged"
    if fetch.digest == bundle and fetch.problem is None:
        return "fetching"
    return "waiting"


def _waiting(
    step: Step,
    run: Run | None,
    observed: Observed,
    fetch: FetchState,
    problem: tuple[str, str] | None,
) -> tuple[str | None, str]:
    if problem is not None:
        return problem
    if isinstance(step, Wait) and step.reason is not None:
        return step.reason, step.detail
    if run is not None and fetch.digest == run.digest and fetch.problem is not None:
        return fetch.problem if run.digest not in observed.verified else (None, "")
    return None, step.detail if isinstance(step, Wait) else ""


def _returns_to(observed: Observed, run: Run | None, served: Digest | None) -> Digest | None:
    """Where the device goes if what serves or comes is taken away."""
    journal = observed.journal
    if served is not None and served != journal.current and journal.current is not None:
        return journal.current
    if run is not None and run.stable is not None and run.digest == served:
        return run.stable
    return journal.previous


def _since_ms(observed: Observed, served: Digest | None) -> int:
    journal = observed.journal
    if served is None:
        return 0
    return journal.since_ms if served == journal.current else journal.note(served).since_ms


def _progress(run: Run | None, fetch: FetchState) -> Progress | None:
    return fetch.progress if run is not None and fetch.digest == run.digest else None


def _guards(observed: Observed) -> Guards | None:
    trial = observed.trial
    if trial is None:
        return None
    marks = min(observed.journal.note(trial.digest).marks, MARKS)
    verdict = trial.verdict
    return Guards(verdict.guard, verdict.looks, trial.requests, marks, MARKS)


def _answering(observed: Observed, served: Digest | None) -> Answering:
    return next((s.answering for s in observed.serving if s.digest == served), "model")


def _note(note: Note) -> reported.Note:
    return reported.Note(
        note.reason,
        note.detail,
        note.definite,
        note.until_ms,
        note.activated,
        note.attempt,
        note.allow,
    )
