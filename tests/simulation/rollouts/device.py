"""One device in virtual time: reads plans with the real `resolve`, and reports what it does.

Pure: time, what arrived and a random generator come in, messages go out. It keeps two bundles,
fetches, probes, tries, commits or gives up as agents do, and forgets nothing but what it is told.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from protocol import codec
from protocol.approval import Approvals
from protocol.bundle import Facts
from protocol.device import DeviceDocument
from protocol.identifiers import Digest
from protocol.plan import Candidate, Local, Plan, resolve
from protocol.reported import ModelState, Note, Outcome, Phase, ReportedState, Shadow
from protocol.telemetry import STATE_STREAM, Record, Upload, stream_name
from tests.fakes.betting import window

MODEL: Final = "digits"
MINUTE_MS: Final = 60_000
WINDOW_MS: Final = 60 * MINUTE_MS
"""Length of a window of answers."""

Fate = Literal["fine", "worse", "idle", "rejects", "rolls back", "dies staged", "dies serving"]
"""What a version does on one device."""
DEADLY: Final[tuple[Fate, ...]] = ("dies staged", "dies serving")
NEW: Final = frozenset({"shadow/1", "window/1"})
"""What an older agent does not know."""
BEGUN: Final[tuple[Phase, ...]] = ("fetching", "staged", "probing", "standby", "probation")


@dataclass(frozen=True, slots=True)
class Began:
    """A device began to serve a candidate of a rollout."""

    device: str
    rollout: str
    since: int
    """Of the document that it had read."""


@dataclass
class Device:
    """`fates` by bundle; a bundle that is not in it is fine. Times are virtual Unix ms."""

    id: str
    versions: dict[Digest, str]
    fates: dict[Digest, Fate] = field(default_factory=dict)
    skew_ms: int = 0
    """Its clock against the control plane's."""
    fetch_ms: int = 10 * MINUTE_MS
    trial_ms: int = 30 * MINUTE_MS
    agreement: float = 1.0
    """Share of rows on which a shadow agrees."""
    shadows: bool = True
    """Whether its agent knows shadow mode and windows."""
    linked: bool = True
    dead: bool = False
    document: DeviceDocument | None = None
    plan: Plan | None = None
    current: Digest | None = None
    previous: Digest | None = None
    target: Digest | None = None
    choice: Candidate | None = None
    phase: Phase = "idle"
    until_ms: int = 0
    since_ms: int = 0
    notes: dict[Digest, Note] = field(default_factory=dict)
    last: Outcome | None = None
    unexercised: bool = False
    shadow: Shadow | None = None
    order: int = 0
    number: int = 0
    windows: int = 0
    window_ms: int = 0
    outbox: dict[tuple[str, int], Record] = field(default_factory=dict)
    """What no ack has covered yet, by stream and number."""
    began: list[Began] = field(default_factory=list)
    _said: ModelState | None = None

    @property
    def trial(self) -> Digest | None:
        return self.target if self.phase == "probation" else None

    @property
    def serving(self) -> Digest | None:
        return self.trial or self.current

    # --- what arrives ---------------------------------------------------------------------------

    def read_plan(self, plan: Plan) -> None:
        """An older one is never followed: the signed metadata says which is the newest."""
        if self.understands(plan) and (self.plan is None or plan.version > self.plan.version):
            self.plan = plan

    def understands(self, plan: Plan | None) -> bool:
        known = codec.FEATURES - (set() if self.shadows else NEW)
        return plan is None or set(plan.must_understand) <= known

    def read_document(self, document: DeviceDocument) -> None:
        if self.document is None or document.version > self.document.version:
            self.document = document

    def acked(self, stream: str, lo: int, hi: int) -> None:
        for key in [key for key in self.outbox if key[0] == stream and lo <= key[1] <= hi]:
            del self.outbox[key]

    # --- what it does ---------------------------------------------------------------------------

    def step(self, approvals: Approvals, denied: frozenset[Digest], now_ms: int) -> None:
        if self.dead:
            return
        self._follow(approvals, denied, now_ms)
        while self.phase in BEGUN and now_ms >= self.until_ms and not self.dead:
            before = self.phase
            self._go_on(now_ms)
            if self.phase == before:
                break

    def resolved(
        self, approvals: Approvals, denied: frozenset[Digest], now_ms: int
    ) -> Candidate | None:
        local = Local(
            now_ms + self.skew_ms,
            denied=self._held(),
            current=self.current,
            previous=self.previous,
            trial=self.trial,
        )
        return resolve(self.plan, self.document, approvals, denied, local, MODEL).choice

    def blocked(self, choice: Candidate) -> bool:
        """A rollout's new attempt lifts what it gave up; a pin to the same version does not."""
        note = self.notes.get(choice.digest)
        return note is not None and note.definite and choice.attempt <= note.attempt

    def _held(self) -> frozenset[Digest]:
        """What it gave up for good, unless a later attempt of a rollout lifts that."""
        asked: dict[Digest, int] = {}
        for rule in self.plan.rules if self.plan else ():
            if rule.rollout is not None:
                known = asked.get(rule.rollout.candidate, 0)
                asked[rule.rollout.candidate] = max(known, rule.rollout.attempt)
        return frozenset(
            digest
            for digest, note in self.notes.items()
            if note.definite and asked.get(digest, 0) <= note.attempt
        )

    def _follow(self, approvals: Approvals, denied: frozenset[Digest], now_ms: int) -> None:
        choice = self.resolved(approvals, denied, now_ms)
        if choice is None and self.phase == "probation":
            # Nothing is asked of it any more: what has begun comes to its end.
            return
        self.choice = choice
        if choice is None:
            self._rest()
            return
        if self.blocked(choice):
            self._rest()
            self.target = choice.digest
            return
        if choice.digest == self.target and self.phase in BEGUN:
            return
        if choice.digest == self.current:
            self._rest()
            return
        self._rest()
        self.target = choice.digest
        if choice.digest == self.previous and choice.origin in ("stable", "ended"):
            # Proven here before: a return needs no trial.
            self.current, self.previous = choice.digest, self.current
            self.since_ms, self.unexercised = now_ms, False
            self._rest()
            return
        here = choice.digest == self.previous
        self.phase = "staged" if here else "fetching"
        self.until_ms = now_ms if here else now_ms + self.fetch_ms

    def _rest(self) -> None:
        self.target, self.phase, self.shadow = self.current, "idle", None

    def _go_on(self, now_ms: int) -> None:
        assert self.target is not None
        assert self.choice is not None
        fate = self.fates.get(self.target, "fine")
        match self.phase:
            case "fetching":
                self.phase = "staged"
                self.until_ms = now_ms + MINUTE_MS
            case "staged" if self.choice.require_shadow:
                self.phase = "standby"
                self.until_ms = now_ms
                self.shadow = Shadow(self.target, of=self.choice.shadow_rows)
            case "standby" if self.choice.require_shadow:
                assert self.shadow is not None
                rows = min(self.shadow.rows + 40, self.choice.shadow_rows or 200)
                self.shadow = replace(self.shadow, rows=rows, agreed=int(rows * self.agreement))
            case "staged" | "standby":
                self.phase = "probing"
                self.until_ms = now_ms + MINUTE_MS
                self.dead = fate == "dies staged"
            case "probing" if fate == "rejects":
                self._give_up("rejected", "OUT-D301", now_ms, activated=False)
            case "probing":
                self.phase = "probation"
                self.until_ms, self.since_ms = now_ms + self.trial_ms, now_ms
                if self.choice.rollout is not None:
                    since = self.document.since if self.document else 0
                    self.began.append(Began(self.id, self.choice.rollout, since))
                self.dead = fate == "dies serving" and self.trial_ms % 2 == 0
            case _:
                if fate == "rolls back":
                    self._give_up("rolled_back", "OUT-D310", now_ms, activated=True)
                else:
                    self._commit(fate, now_ms)
                    self.dead = fate == "dies serving"

    def _commit(self, fate: Fate, now_ms: int) -> None:
        assert self.target is not None
        assert self.choice is not None
        if self.current is not None:
            self.previous = self.current
        self.current, self.unexercised = self.target, fate == "idle"
        self.notes.pop(self.target, None)
        self.number += 1
        self.last = Outcome(
            self.number, MODEL, self.target, "committed", rollout=self.choice.rollout,
            unexercised=self.unexercised, at_ms=max(0, now_ms + self.skew_ms),
        )  # fmt: skip
        self._rest()

    def _give_up(
        self, result: Literal["rejected", "rolled_back"], why: str, now_ms: int, *, activated: bool
    ) -> None:
        assert self.target is not None
        assert self.choice is not None
        attempt = self.choice.attempt
        self.notes[self.target] = Note(why, definite=True, activated=activated, attempt=attempt)
        self.number += 1
        self.last = Outcome(
            self.number, MODEL, self.target, result, why, rollout=self.choice.rollout,
            at_ms=max(0, now_ms + self.skew_ms),
        )  # fmt: skip
        self._rest()

    # --- what it says ---------------------------------------------------------------------------

    def count(self, rng: random.Random, now_ms: int) -> None:
        """Close a window of answers if one is over. Without a current version nothing answers."""
        if self.dead or now_ms < self.window_ms:
            return
        start_ms, self.window_ms = self.window_ms, self.window_ms + WINDOW_MS
        serving = self.serving
        if serving is None or start_ms == 0:
            return
        fate = self.fates.get(serving, "fine")
        if fate == "idle":
            return
        self.add_window(serving, max(0, start_ms + self.skew_ms), rng, worse=fate == "worse")

    def add_window(
        self, serving: Digest, t0_ms: int, rng: random.Random, *, worse: bool = False
    ) -> None:
        answers = rng.randrange(20, 60)
        body = window(
            self.versions[serving],
            answers,
            errors=rng.randrange(20, 40) if worse else rng.randrange(3),
            latency=rng.randrange(16, 24),
            confidence=rng.randrange(8, 12) if worse else rng.randrange(14, 20),
            first=rng.randrange(answers),
        )
        stream = stream_name("inference", body.manifest, body.profile)
        number, self.windows = self.windows, self.windows + 1
        self.outbox[stream, number] = Record(
            1, stream, number, number, answers, codec.to_wire(body), t0=t0_ms, t1=t0_ms + WINDOW_MS
        )

    def state(self, now_ms: int, *, again: bool = False) -> None:
        """Put its state into the outbox if it is another one; `again`: in any case."""
        if self.dead:
            return
        choice = self.choice
        said = ModelState(
            current=self.current,
            previous=self.previous,
            serving=self.serving,
            target=self.target,
            origin=choice.origin if choice else "",
            rollout=choice.rollout if choice else None,
            attempt=choice.attempt if choice else 0,
            phase=self.phase,
            plan_version=self.plan.version if self.plan else 0,
            since_ms=max(0, self.since_ms + self.skew_ms),
            committed_unexercised=self.unexercised,
            notes=dict(self.notes),
            last=self.last,
            shadow=self.shadow,
        )
        if said == self._said and not again:
            return
        self._said = said
        self.order = max(self.order + 1, now_ms + self.skew_ms)
        features = codec.FEATURES if self.shadows else codec.FEATURES - NEW
        body = ReportedState(
            self.order,
            "0.1",
            features=tuple(sorted(features)),
            facts=Facts("x86_64", "1.20", 1_024_000_000, "0.1", "3.11", "linux"),
            document_version=self.document.version if self.document else 0,
            models={MODEL: said},
        )
        # The newest state says everything, so no older one is sent again.
        for key in [key for key in self.outbox if key[0] == STATE_STREAM]:
            del self.outbox[key]
        number, self.windows = self.windows, self.windows + 1
        self.outbox[STATE_STREAM, number] = Record(
            1, STATE_STREAM, number, number, 1, codec.to_wire(body)
        )

    def upload(self, rng: random.Random) -> bytes:
        """All that is not acknowledged, in any order."""
        records = list(self.outbox.values())[:100]
        rng.shuffle(records)
        return codec.encode_up(Upload(1, tuple(records)))
