"""Moves rollouts: what devices did and did not say becomes a decision, and the decision happens.

    judge a bounded piece of evidence ─▶ sweep who fell silent ─▶ per rollout: decide, do, again

What a round costs depends on rollouts, waves and hours, not on the number of devices. Everything
that it knows is in the store, so it does not matter where it is broken off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from control_plane.rollout.advance import (
    UNPROVEN,
    Abort,
    Advance,
    Begin,
    Complete,
    Decision,
    LiftShadow,
    Pause,
    Position,
    Shadowed,
    StartSoak,
    Wait,
    decide,
)
from control_plane.rollout.evidence import Evidence
from control_plane.rollout.explaining import gate_rows, record_of, said
from control_plane.rollout.gate import Judgement
from control_plane.rollout.targets import follow_changes
from control_plane.rollout.transitions import (
    GATE,
    TICKER,
    begin_wave,
    judged,
    lift_shadow,
    move,
    start_soak,
)
from control_plane.store import Store
from control_plane.store.rollouts import Rollout
from protocol.approval import Approvals
from protocol.identifiers import Digest

_STEPS: Final = 6
"""Per rollout and round: a wave without soak may begin, be enough and pass at once."""


class Judging(Protocol):
    """Collects evidence, a bounded piece per round."""

    def round(self, now_ms: int) -> None: ...
    def prepared(self, rollout_id: str) -> bool: ...
    def evidence(self, rollout_id: str) -> Evidence: ...
    def shadowed(self, rollout: Rollout) -> Shadowed: ...


class Moving:
    """`collect`, then `move` in one transaction with the plans that follow; from one thread."""

    def __init__(
        self, store: Store, judge: Judging, listening_since_ms: Callable[[], int | None]
    ) -> None:
        """`listening_since_ms`: since when devices can be heard without a break; None: they
        cannot. Nobody is called silent for a time in which nobody listened."""
        self._store = store
        self._judge = judge
        self._listening_since_ms = listening_since_ms

    def collect(self, now_ms: int) -> None:
        """What devices sent becomes evidence, and who has been quiet for too long is silent."""
        self._judge.round(now_ms)
        with self._store.write():
            swept = self._store.rollouts.members.sweep(now_ms, self._listening_since_ms())
            for rollout, wave, silence in swept.silences():
                self._store.evidence.add_silence(rollout, wave, silence)

    def move(self, approvals: Approvals, ready: Collection[Digest], now_ms: int) -> None:
        """`ready`: candidates of which everything lies with the broker."""
        for rollout in self._store.rollouts.active():
            may_begin = rollout.candidate in ready and self._judge.prepared(rollout.id)
            self._move(rollout, approvals, may_begin, now_ms)

    def _move(self, rollout: Rollout, approvals: Approvals, ready: bool, now_ms: int) -> None:
        looked = follow_changes(self._store, rollout, approvals, now_ms)
        if looked != rollout.looked:
            rollout = dataclasses.replace(rollout, looked=looked)
            self._store.rollouts.put(rollout)
        withdrawn = self._withdrawn(rollout, approvals)
        for _ in range(_STEPS):
            evidence = self._judge.evidence(rollout.id) if rollout.wave else Evidence()
            decision, judgement = decide(
                rollout.spec,
                Position(
                    rollout.status,
                    rollout.wave,
                    rollout.started_ms,
                    rollout.soak_ms,
                    withdrawn,
                    accepted=rollout.accepted,
                    wave_ms=rollout.wave_ms,
                    approved=rollout.approved,
                    shadowing=rollout.shadowing,
                ),
                evidence,
                now_ms=now_ms,
                ready=ready,
                shadowed=self._judge.shadowed(rollout) if rollout.shadowing else None,
            )
            if judgement is not None:
                rollout = self._note(rollout, judgement, decision, now_ms)
            moved = self._do(rollout, decision, judgement, now_ms)
            if moved is None or moved.ended or moved.status == "paused":
                return
            rollout = moved

    def _do(
        self, rollout: Rollout, decision: Decision, judgement: Judgement | None, now_ms: int
    ) -> Rollout | None:
        """The rollout after the decision; None: it waits."""
        store, who = self._store, GATE if judgement is not None else TICKER
        match decision:
            case Begin():
                return begin_wave(store, rollout, 1, now_ms, who=TICKER)
            case Advance(wave):
                return begin_wave(store, rollout, wave, now_ms, who=GATE, why=_why(judgement))
            case LiftShadow():
                return lift_shadow(store, rollout, now_ms, self._agreed(rollout))
            case StartSoak():
                return start_soak(store, rollout, now_ms)
            case Pause(why, code):
                failed = judgement is not None and judgement.verdict == "fail"
                asks = code or ("" if failed or judgement is None else UNPROVEN)
                return move(store, rollout, "paused", now_ms, who=who, why=why, asks=asks)
            case Abort(why, keep):
                about = {"by": "gate" if judgement is not None else "approvals"}
                return move(
                    store, rollout, "aborted", now_ms, who=who, why=why, keep=keep, about=about
                )
            case Complete():
                return move(store, rollout, "completed", now_ms, who=GATE, why=_why(judgement))
            case Wait():
                return None

    def _note(
        self, rollout: Rollout, judgement: Judgement, decision: Decision, now_ms: int
    ) -> Rollout:
        """Keep the newest verdict; where it is another one, or something follows, its record."""
        before, now = rollout.verdict or {}, said(judgement)
        if before.get("verdict") == "fail" and judgement.verdict != "fail" and _held(rollout):
            return rollout
        same = all(before.get(name) == now[name] for name in now)
        another = (before.get("verdict"), before.get("id"), before.get("wave")) != (
            judgement.verdict, judgement.id, rollout.wave,
        )  # fmt: skip
        follows = not isinstance(decision, Wait | StartSoak | LiftShadow)
        if same and not another and (not follows or before.get("recorded")):
            return rollout
        recorded = another or follows
        evidence = rollout.evidence
        if recorded:
            evidence = self._store.evidence.append_record(
                rollout.id, record_of(rollout, judgement, now_ms, self._plan(rollout)), now_ms
            )
        verdict = {
            **now,
            "wave": rollout.wave,
            "gates": gate_rows(judgement),
            "recorded": recorded,
        }
        noted = judged(rollout, verdict, evidence)
        self._store.rollouts.put(noted)
        if another:
            about = {"wave": rollout.wave, **now, "evidence": evidence}
            self._store.happened(
                GATE,
                rollout.topic,
                "rollout.verdict",
                about,
                now_ms,
                before=before.get("verdict"),
                after=judgement.verdict,
                why=judgement.sentence,
                evidence=evidence,
            )
        return noted

    def _plan(self, rollout: Rollout) -> Mapping[str, int] | None:
        row = self._store.plans.get(rollout.model)
        return {"number": row.number, "version": row.version} if row else None

    def _agreed(self, rollout: Rollout) -> str:
        found = self._store.shadows.total(rollout.id, rollout.wave)
        if not found.rows:
            return ""
        return (
            f"{found.agreed:,} of {found.rows:,} answers of {found.with_rows} devices agree "
            "with the current version"
        )

    def _withdrawn(self, rollout: Rollout, approvals: Approvals) -> str | None:
        approved = approvals.get(rollout.candidate)
        reference = f"{rollout.model}/{rollout.spec.version}"
        if approved is None:
            return f"{reference} is no longer approved"
        if approved.revoked:
            return f"{reference} was revoked by approvers"
        if any(each.digest == rollout.candidate for each in self._store.plans.denied()):
            return f"{reference} is denied by an operator"
        return None


def _held(rollout: Rollout) -> bool:
    """Whether a verdict of failure stands: it is final until a person starts a new attempt."""
    return rollout.status == "paused"


def _why(judgement: Judgement | None) -> str:
    return judgement.sentence if judgement is not None else ""
