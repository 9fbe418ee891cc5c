"""Devices in virtual time that follow signed plans with the real `resolve`, and report honestly.

They keep a committed bundle, try a candidate for `trial_s`, and give back what is in `bad`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from protocol.approval import Approvals, ApprovedBundle
from protocol.bundle import Facts
from protocol.device import DeviceDocument
from protocol.identifiers import Digest, digest_of
from protocol.plan import Local, Plan, resolve
from protocol.reported import ModelState, Note, Outcome, ReportedState

MODEL = "digits"


def bundle(version: str) -> Digest:
    return digest_of(version.encode())


def approve(*versions: str) -> dict[Digest, ApprovedBundle]:
    return {bundle(v): ApprovedBundle(MODEL, v, bundle(v)) for v in versions}


@dataclass
class VirtualDevice:
    document: DeviceDocument
    bad: frozenset[Digest] = frozenset()
    """Bundles that fail their trial here."""
    quiet: frozenset[Digest] = frozenset()
    """Bundles that see no traffic during their trial."""
    kills: frozenset[Digest] = frozenset()
    """Bundles that it reports to have activated, and is never heard of again."""
    linked: bool = True
    trial_s: float = 30.0
    current: Digest | None = None
    previous: Digest | None = None
    trial: Digest | None = None
    trial_began_ms: int = 0
    unexercised: bool = False
    rollout: str | None = None
    attempt: int = 0
    notes: dict[Digest, Note] = field(default_factory=dict)
    last: Outcome | None = None
    number: int = 0
    order: int = 0
    downloads: int = 0
    disk: set[Digest] = field(default_factory=set)
    ever: set[Digest] = field(default_factory=set)
    """Bundles that it ever served."""

    @property
    def serving(self) -> Digest | None:
        return self.trial or self.current

    def local(self, now_ms: int) -> Local:
        held = {
            d: n
            for d, n in self.notes.items()
            if n.definite and not (d == self._asked and self._attempt > n.attempt)
        }
        return Local(
            now_ms,
            denied=frozenset(held),
            current=self.current,
            previous=self.previous,
            trial=self.trial,
        )

    _asked: Digest | None = None
    _attempt: int = 0
    _seen: Plan | None = None
    _said: ReportedState | None = None

    def step(self, plan: Plan | None, approvals: Approvals, now_ms: int) -> ReportedState | None:
        """Follow the plan; what it reports, None while it is not heard."""
        if self.trial in self.kills:
            return None
        if plan is self._seen and self.trial is None and self.linked:
            return self._said
        if self.linked:
            self._seen = plan
            self._follow(plan, approvals, now_ms)
        if self.trial is not None and now_ms - self.trial_began_ms >= self.trial_s * 1000:
            self._end_trial(now_ms)
        if not self.linked:
            return None
        self._said = self.report()
        return self._said

    def _follow(self, plan: Plan | None, approvals: Approvals, now_ms: int) -> None:
        for rule in plan.rules if plan else ():
            if rule.rollout is not None:
                self._asked, self._attempt = rule.rollout.candidate, rule.rollout.attempt
        found = resolve(plan, self.document, approvals, frozenset(), self.local(now_ms), MODEL)
        choice = found.choice
        if choice is None or choice.digest == self.serving:
            return
        if choice.digest not in self.disk:
            self.downloads += 1
            self.disk.add(choice.digest)
        if self.trial is not None:
            self.trial = None
        if choice.digest == self.current:
            return
        self.rollout, self.attempt = choice.rollout, choice.attempt
        self.ever.add(choice.digest)
        if choice.digest == self.previous and choice.origin in ("stable", "ended"):
            self.current, self.previous = choice.digest, self.current
            return
        self.trial, self.trial_began_ms = choice.digest, now_ms

    def _end_trial(self, now_ms: int) -> None:
        ended, self.trial = self.trial, None
        assert ended is not None
        self.number += 1
        outcome = Outcome(self.number, MODEL, ended, "committed", rollout=self.rollout)
        if ended in self.bad:
            self.notes[ended] = Note(
                "OUT-D310", definite=True, activated=True, attempt=self.attempt
            )
            outcome = dataclasses.replace(outcome, result="rolled_back", reason="OUT-D310")
        else:
            self.previous, self.current = self.current, ended
            self.unexercised = ended in self.quiet
            self.notes.pop(ended, None)
        self.last = outcome

    def report(self) -> ReportedState:
        self.order += 1
        model = ModelState(
            current=self.current,
            previous=self.previous,
            serving=self.serving,
            target=self.trial or self.current,
            rollout=self.rollout,
            attempt=self.attempt,
            phase="probation" if self.trial else "idle",
            committed_unexercised=self.unexercised,
            notes=dict(self.notes),
            last=self.last,
        )
        facts = Facts("x86_64", "1.20", 1_024_000_000, "0.1", "3.11", "linux")
        return ReportedState(self.order, "0.1", facts=facts, models={MODEL: model})
