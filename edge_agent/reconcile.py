"""The update machine: what is wanted and what was found, to the one next step.

No I/O, no clock. Rows are tried in order and the first that matches wins; every step carries its
row. Invariants that hold after every step, wherever power or a process is lost:

- the journal's `current` is proven: only Commit, Rollback and Rescue change it;
- what serves first is the base: a verified slot that nothing speaks against;
- a bundle in a process was verified and, unless committed here before, is approved;
- nothing that a generation of the journal names is deleted, except `previous`, for room, while
  `current` serves;
- without a base, what serves goes on serving, unless approvers said `stop`.

| # | found | step |
|---|---|---|
| 0 | just started; a revocation not yet noted | Sync; Remember |
| 1 | nothing is wanted | Stop, Kill, Report, Wait |
| 2 | what serves must stop | Drain it, Activate(base) or Unload, or Stop |
| 3 | current corrupt, revoked, denied, crash-looping, unwell | Rollback, or Degrade by its policy |
| 4 | journal lost, a bundle usable | Rescue |
| 5 | nothing serves, base exists | Activate(base), or Wait until what was let go has gone |
| 6 | what serves is neither base nor wanted | Reject, then Activate(base) or Unload, then Drain |
| 7 | trial failed: crashes or health | Reject |
| 8 | trial or base: another runner still serves | Park where there is room, else Drain |
| 9 | trial: its window is full | Commit |
| 10 | trial: a tenth of the window has passed; else | Mark; Wait after rows 11 to 13 |
| 11 | a standby not wanted, or shadowing without room; parked without trial or room | Kill; Drain |
| 12 | its hold is over; base or a shadow has run well, its counters are not 0 | Resume; Mark |
| 13 | an outcome is not in the outbox | Report |
| 14 | wanted in standby, and not to shadow | Activate(wanted) |
| 15 | loaded three times without a mark | Reject(interrupted) |
| 16 | complete, but wrong bytes | Collect |
| 17 | verified | Fetch or Stage what a trial would go back to; Unload; Probe; or Reject(memory) |
| 18 | partial with all its bytes | Stage |
| 19 | garbage | Collect |
| 20 | no room | DropPrevious, or Reject(disk full) |
| 21 | wanted is not here | Fetch |
| 22 | else; wanted shadows, or has no room to | Wait |

Long because the table is easier to check in one place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edge_agent import denials
from edge_agent.denials import (
    CRASHES,
    DEGRADED,
    DISK_FULL,
    FLAPPING,
    INTERRUPTED,
    MEMORY_SHORT,
    NO_MODEL,
    REFUSES,
    REVOKED,
    RULES_ANSWER,
    SHADOWING,
    SUPERSEDED,
)
from edge_agent.desired import Desired, Nothing, Run
from edge_agent.home import MAX_LOADS, heal, lasting, must_stop, stand_in
from edge_agent.home import against as against
from edge_agent.home import base as base
from edge_agent.journal import MARKS
from edge_agent.observed import Observed, Serving, Standby, Trial
from edge_agent.steps import (
    Activate,
    Collect,
    Commit,
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
    Stage,
    Step,
    Stop,
    Sync,
    Unload,
    Wait,
)
from protocol.identifiers import Digest

LEAVING: Final = "the runner before is still answering"


def reconcile(desired: Desired, observed: Observed, now_ms: int) -> Step:
    """The next step for one model; `now_ms` is trusted time."""
    if not observed.synced:
        return Sync()
    if observed.unnoted:
        return Remember(observed.unnoted)
    if isinstance(desired, Nothing):
        return _stopped(observed)
    run = desired if isinstance(desired, Run) else None
    want = run if run is not None and blocked_until(run, observed, now_ms) is None else None
    return (
        _safe(want, observed, now_ms)
        or _on_trial(want, observed)
        or _settled(want, observed, now_ms)
        or _ahead(want, observed)
        or _rest(run, want, observed, now_ms)
    )


# --- what the rows are about ------------------------------------------------------------------


def blocked_until(run: Run, observed: Observed, now_ms: int) -> int | None:
    """Until when this device will not head for a bundle; None: it may. A denial has no end (-1)."""
    bundle = run.digest
    if bundle in observed.revoked or bundle in observed.denied:
        return -1
    note = observed.journal.note(bundle)
    if note.reason is None or denials.lifted(
        note, attempt=run.candidate.attempt, allow=run.allow, agent=observed.agent
    ):
        return None
    if note.definite:
        return -1
    until = note.until_ms or 0
    return until if until > now_ms else None


def _in_trial(want: Run | None, observed: Observed) -> Trial | None:
    trial = observed.trial
    return trial if want is not None and trial is not None and trial.digest == want.digest else None


# --- rows 1 to 6: something must serve, and the right thing -------------------------------------


def _stopped(observed: Observed) -> Step:
    if any(runner.digest is not None for runner in observed.serving):
        return Stop(row=1)
    for runner in observed.standby:
        if runner.digest is not None or not runner.fit:
            return _dismiss(runner, row=1)
    return Report(row=1) if observed.unreported else Wait(row=1, reason=NO_MODEL)


def _safe(want: Run | None, observed: Observed, now_ms: int) -> Step | None:
    home = base(observed)
    serves = {runner.digest for runner in observed.serving} - {None}
    for runner in observed.serving:
        if runner.digest is not None and must_stop(runner.digest, observed):
            return _leave(runner, home, observed, row=2) or Stop(row=2)
    if (step := heal(observed)) is not None:
        return step
    if observed.lost and (found := _rescuable(want, observed)) is not None:
        return Rescue(found, row=4)
    held = observed.start_after_ms is not None and observed.start_after_ms > now_ms
    if not serves and home is not None and not held:
        step = _bring_back(want, home, observed)
        if step is not None:
            return step
    trial = _in_trial(want, observed)
    accepted = {(home, observed.journal.note(home).answering)} if home is not None else set()
    if trial is not None:
        accepted.add((trial.digest, "model"))
    for runner in observed.serving:
        if runner.digest is not None and (runner.digest, runner.answering) not in accepted:
            step = _give_up(runner.digest, observed)
            to = trial.digest if trial and not home else home
            step = step or _leave(runner, to, observed, row=6, held=held)
            if step is not None:
                return step
    return None


def _bring_back(want: Run | None, home: Digest, observed: Observed) -> Step | None:
    """The base, unless nothing serves because a bundle that is loaded next needs its memory."""
    if observed.waits_for_another:
        return Wait(row=5, detail="another model is loaded first")
    bundle = observed.making_way
    if bundle is None:
        return Activate(home, row=5)
    free = want is not None and want.hindrance is None and not want.shadow
    if free and want is not None and bundle == want.digest != home:
        return None
    return Wait(row=5, detail=LEAVING) if observed.leaving else Activate(home, row=5)


def _give_up(bundle: Digest, observed: Observed) -> Step | None:
    """Journal that a trial ended although it did not fail."""
    if bundle in observed.journal.slots or not observed.journal.note(bundle).trying:
        return None
    if bundle in observed.revoked or bundle in observed.denied:
        return Reject(bundle, REVOKED, "revoked or denied while on probation", row=6)
    return Reject(bundle, SUPERSEDED, "", row=6)


def _leave(
    runner: Serving, home: Digest | None, observed: Observed, *, row: int, held: bool = False
) -> Step | None:
    """From a runner to the base: start it where it is missing, then drain; None without a base.

    Without memory for two the runner goes first, unless the base is `held` and would not start.
    """
    if home is None:
        return None
    if runner.covered:
        return Drain(runner.runner, row)
    if observed.room_for_base in ("scarce", "none"):
        return None if held else Unload(home, row)
    return Activate(home, row)


def _dismiss(runner: Standby, row: int) -> Step:
    """A parked runner has served: its last counts are taken before it ends."""
    return Drain(runner.runner, row) if runner.parked else Kill(runner.runner, row)


def _rescuable(want: Run | None, observed: Observed) -> Digest | None:
    """An approved bundle to begin again with; the one headed for may be unproven, so it is last."""
    usable = (observed.verified & observed.approved) - observed.unfit_for_rescue - observed.denied
    serving = {runner.digest for runner in observed.serving}
    ordered = sorted(
        usable, key=lambda d: (want is not None and d == want.digest, d not in serving, d)
    )
    return next(iter(ordered), None)


# --- rows 7 to 10: a trial ----------------------------------------------------------------------


def _on_trial(want: Run | None, observed: Observed) -> Step | None:
    if want is None:
        return _surplus(observed)
    note = observed.journal.note(want.digest)
    # Only while it tries: otherwise a lifted denial would hold the crashes that earned it.
    trying = want.digest != observed.journal.current and note.trying
    if trying and note.crashes >= observed.crash_limit:
        instead = stand_in(want.digest, "crashes", observed)
        return Reject(want.digest, CRASHES, observed.crash_detail, row=7, answering=instead)
    trial = _in_trial(want, observed)
    if trial is None:
        return _surplus(observed)
    if trial.verdict.failed is not None:
        instead = stand_in(trial.digest, trial.verdict.trigger or "errors", observed)
        failed = trial.verdict.failed
        return Reject(trial.digest, denials.HEALTH, failed, row=7, answering=instead)
    for runner in observed.serving:
        if runner.runner != trial.runner and runner.covered:
            parks = observed.keeps_warm and runner.digest == base(observed)
            parks = parks and not any(standby.parked for standby in observed.standby)
            return (Park if parks else Drain)(runner.runner, row=8)
    running_s = note.marks * trial.terms.mark_s + trial.running_s
    if note.marks >= MARKS:
        if trial.requests >= trial.terms.min_requests:
            return Commit(trial.digest, unexercised=False, row=9)
        if running_s >= trial.terms.max_duration_s:
            return Commit(trial.digest, unexercised=True, row=9)
    if trial.running_s >= trial.terms.mark_s:
        return Mark(trial.digest, row=10)
    return None


def _surplus(observed: Observed) -> Step | None:
    for runner in observed.serving:
        if runner.twin or (runner.digest is None and runner.covered and _serves(observed)):
            return Drain(runner.runner, row=8)
    return None


def _serves(observed: Observed) -> bool:
    return any(runner.digest is not None for runner in observed.serving)


# --- rows 11 to 13: tidiness --------------------------------------------------------------------


def _settled(want: Run | None, observed: Observed, now_ms: int) -> Step | None:
    wanted = want.digest if want is not None and want.hindrance is None else None
    trial = _in_trial(want, observed)
    for runner in observed.standby:
        unwanted = not runner.fit or (runner.digest is not None and runner.digest != wanted)
        crowds = want is not None and _beside(runner, want) and not observed.keeps_warm
        if crowds or (unwanted and not _stays_warm(runner, trial, observed)):
            return _dismiss(runner, row=11)
    current = observed.journal.current
    if current is not None and trial is None and _hold_is_over(want, current, observed, now_ms):
        return Resume(current, row=12)
    if current is not None and observed.base_settled:
        note = observed.journal.note(current)
        if note.loads or note.crashes:
            return Mark(current, row=12)
    if (
        want is not None
        and observed.shadow_settled
        and observed.journal.note(want.digest).loads > 1
    ):
        return Mark(want.digest, row=12)
    if observed.unreported:
        return Report(row=13)
    return Wait(row=10) if trial is not None else None


def _hold_is_over(want: Run | None, current: Digest, observed: Observed, now_ms: int) -> bool:
    """Whether a committed bundle that was held not to work may try again by itself."""
    note = observed.journal.note(current)
    if not note.impaired:
        return False
    if want is not None and want.digest == current:
        return True
    return not note.definite and (note.until_ms or 0) <= now_ms


def _stays_warm(runner: Standby, trial: Trial | None, observed: Observed) -> bool:
    """Whether it is what the trial would go back to, and there is still memory for both."""
    back = runner.parked and runner.fit and runner.digest == base(observed)
    return back and trial is not None and observed.keeps_warm


def _beside(runner: Standby, want: Run) -> bool:
    """Whether a runner holds what is wanted only beside what serves."""
    return want.shadow and runner.digest == want.digest and runner.answering == "model"


# --- rows 14 to 21: on the way to what is wanted -------------------------------------------------


def _ahead(want: Run | None, observed: Observed) -> Step | None:
    if want is None:
        return _garbage(observed)
    bundle, current = want.digest, observed.journal.current
    note = observed.journal.note(bundle)
    if bundle != current:
        if any(_beside(standby, want) for standby in observed.standby):
            return _garbage(observed)
        if any(s.digest == bundle and s.answering == "model" for s in observed.standby):
            return Activate(bundle, row=14)
        if bundle == observed.making_way and bundle in observed.verified and not want.shadow:
            return Wait(row=17, detail=LEAVING) if observed.leaving else Probe(bundle, row=17)
        if note.loads >= MAX_LOADS and note.trying:
            detail = f"entered a process {note.loads} times without running well"
            return Reject(bundle, INTERRUPTED, detail, row=15)
        if bundle in observed.complete and bundle not in observed.verified:
            return Collect(bundle, row=16)
        free = want.hindrance is None and observed.lease and not _settling(observed)
        free = free and (not want.shadow or may_shadow(observed))
        if bundle in observed.verified and free:
            absent = observed.absent_return
            if absent is not None:
                return (Stage if absent.ready else Fetch)(absent.digest, row=17)
            if observed.room == "none":
                return Reject(bundle, MEMORY_SHORT, observed.short_of_memory, row=17)
            return (Unload if observed.room == "scarce" else Probe)(bundle, row=17)
    missing = bundle not in observed.verified
    if missing and bundle in observed.ready:
        return Stage(bundle, row=18)
    if (step := _garbage(observed)) is not None:
        return step
    if not missing:
        return None
    if observed.short_of_room or (observed.needed_bytes or 0) > observed.free_bytes:
        return _make_room(bundle, observed)
    return Fetch(bundle, row=21)


def may_shadow(observed: Observed) -> bool:
    """Whether there is something to run beside, and memory for that."""
    return observed.room == "roomy" and _model_serves(observed)


def _model_serves(observed: Observed) -> bool:
    current = observed.journal.current
    return any(s.digest == current and s.answering == "model" for s in observed.serving)


def _settling(observed: Observed) -> bool:
    """Whether the base serves, but not yet long enough to be cleared of its counters.

    A candidate that takes the machine down must not do it again before the base has run well:
    the base would be counted as the one that never does.
    """
    current = observed.journal.current
    serving = {runner.digest for runner in observed.serving}
    return current in serving and current is not None and bool(observed.journal.note(current).loads)


def _garbage(observed: Observed) -> Step | None:
    return Collect(observed.garbage[0], row=19) if observed.garbage else None


def _make_room(bundle: Digest, observed: Observed) -> Step:
    """Drop previous if current serves, verifies and nothing speaks against it; else give up."""
    current, previous = observed.journal.current, observed.journal.previous
    serving = {runner.digest for runner in observed.serving}
    if (
        previous is not None
        and current is not None
        and previous in observed.complete
        and previous != bundle
        and current in serving
        and against(current, observed) is None
        and not lasting(observed)
    ):
        return DropPrevious(previous, row=20)
    needed = observed.needed_bytes
    detail = f"needs {needed:,} bytes, {observed.free_bytes:,} are free" if needed else ""
    return Reject(bundle, DISK_FULL, detail, row=20)


# --- row 22 -------------------------------------------------------------------------------------


def _rest(run: Run | None, want: Run | None, observed: Observed, now_ms: int) -> Step:
    """Wait, and say what for."""
    starts = observed.start_after_ms if not _serves(observed) else None
    if run is None or run.digest == observed.journal.current:
        return _stays(observed, starts)
    if want is None:
        until = blocked_until(run, observed, now_ms)
        note = observed.journal.note(run.digest)
        if until is None or until < 0:
            return Wait(row=22, until_ms=starts, reason=note.reason or REVOKED, detail=note.detail)
        reason = note.reason
        if reason == DEGRADED and note.returns > 1:
            reason = FLAPPING
        return Wait(22, _earliest((until, starts)), reason, note.detail)
    if want.hindrance is not None:
        held = want.hindrance
        return Wait(22, _earliest((held.until_ms, starts)), held.reason, held.detail)
    if want.shadow and (detail := _shadowing(want, observed)) is not None:
        return Wait(22, starts, SHADOWING, detail)
    why = (
        "the model before is settling" if _settling(observed) else "another model is being changed"
    )
    return Wait(22, starts, None, why)


def _shadowing(want: Run, observed: Observed) -> str | None:
    """How far it is with running beside what serves, or why it cannot; None: it soon will."""
    if any(_beside(standby, want) for standby in observed.standby):
        shadow = observed.shadow
        return f"shadowed {shadow.rows:,} of {shadow.of:,} rows" if shadow is not None else ""
    if want.digest not in observed.verified:
        return None
    if not _model_serves(observed):
        return "no model answers here that it could be compared with"
    if observed.room != "roomy":
        return f"no memory for both{observed.short_of_memory and ': '}{observed.short_of_memory}"
    return None


def _stays(observed: Observed, starts: int | None) -> Step:
    """Nothing is to be changed; but what serves may be no working model."""
    if not _serves(observed):
        return Wait(row=22, until_ms=starts, reason=NO_MODEL)
    served = next(runner for runner in observed.serving if runner.digest is not None)
    note = observed.journal.note(served.digest or "")
    until = note.until_ms if note.impaired and not note.definite else None
    if served.answering != "model":
        reason = RULES_ANSWER if served.answering == "rules" else REFUSES
        return Wait(22, until, reason, note.detail)
    if wrong := lasting(observed):
        return Wait(22, starts, DEGRADED, f"{wrong}; nothing better is here, so it serves on")
    return Wait(22, until)


def _earliest(times: Iterable[int | None]) -> int | None:
    return min((at for at in times if at is not None), default=None)
